#include "lab/measures/findings.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include <fmt/format.h>

namespace logitlab {
namespace {

constexpr double kSignificant = 0.05;
// With fewer runs than this in a group no permutation test can reach 5 % (statistics.h).
constexpr int64_t kFewestRuns = 4;

std::string runs_text(int64_t n) {
  return n == 1 ? "1 run" : fmt::format("{} runs", n);
}

std::string label(const StudyResults& results, const SettingFigures& setting) {
  return results.plan.prompts.size() > 1 ? fmt::format("{} ({})", setting.name, setting.prompt_name)
                                         : setting.name;
}

// What the settings gave compared with each other, by the first text of each.
std::string across_settings(const StudyResults& results) {
  std::map<std::string, std::set<std::string>> texts;  // by prompt
  for (const SettingFigures& setting : results.settings) {
    texts[setting.prompt_name].insert(setting.sample_text);
  }
  const size_t n_settings = results.settings.size() / std::max<size_t>(1, texts.size());
  std::string counts;
  for (const auto& [prompt, distinct] : texts) {
    counts +=
        fmt::format("{}{}", counts.empty() ? "" : ", ",
                    distinct.size() == 1 ? std::string("one and the same text")
                                         : fmt::format("{} different texts", distinct.size()));
    counts += texts.size() > 1 ? fmt::format(" ({})", prompt) : "";
  }
  return n_settings < 2 ? "" : fmt::format("{} settings gave {}", n_settings, counts);
}

std::string cache_sentence(const CacheFigures& cache) {
  double with = 0;
  double without = 0;
  for (size_t i = 0; i < cache.cached_seconds.size(); ++i) {
    with += cache.cached_seconds[i];
    without += cache.uncached_seconds[i];
  }
  return with <= 0 ? ""
                   : fmt::format(
                         "Without the decode state {} tokens took {:.1f} times as long ({:.2f} "
                         "s, with it {:.2f} s).",
                         cache.cached_seconds.size(), without / with, without, with);
}

std::string uniqueness(const StudyResults& results) {
  int64_t runs = 0;
  std::string lone;
  std::string many;
  int64_t n_lone = 0;
  int64_t n_many = 0;
  for (const SettingFigures& setting : results.settings) {
    runs += setting.runs;
    if (setting.runs < 2) {
      continue;
    }
    const bool is_lone = setting.unique_ids == 1;
    std::string& names = is_lone ? lone : many;
    int64_t& count = is_lone ? n_lone : n_many;
    if (count < 4) {
      names += names.empty() ? "" : ", ";
      names += is_lone ? label(results, setting)
                       : fmt::format("{} ({} of {})", label(results, setting), setting.unique_ids,
                                     setting.runs);
    }
    ++count;
  }
  const auto more = [](int64_t n) { return n > 4 ? fmt::format(" and {} more", n - 4) : ""; };
  if (n_lone + n_many == 0) {
    const std::string across = across_settings(results);
    return across.empty() ? "One setting, one run." : across + ", one run each.";
  }
  if (n_many == 0) {
    const std::string across = across_settings(results);
    return fmt::format("In every setting all runs gave the same tokens ({}){}.", runs_text(runs),
                       across.empty() ? "" : "; the " + across);
  }
  if (n_lone == 0) {
    return fmt::format("In every setting runs differed: {}{}.", many, more(n_many));
  }
  return fmt::format("Always the same tokens: {}{}. Several texts: {}{}.", lone, more(n_lone), many,
                     more(n_many));
}

void add_pairs(StudyResults* results) {
  for (const PairFigures& pair : results->pairs) {
    const SettingFigures& first = results->settings[pair.first];
    const SettingFigures& second = results->settings[pair.second];
    const std::string names =
        fmt::format("{} and {}", label(*results, first), label(*results, second));
    const int64_t all = first.runs * second.runs;
    if (all > 0 && pair.equal_texts == all) {
      results->findings.push_back(fmt::format("{}: every run gave the same tokens.", names));
      continue;
    }
    if (pair.test.relabelings == 0 || pair.test.smallest_p > kSignificant) {
      continue;
    }
    if (pair.test.p_value <= kSignificant) {
      results->findings.push_back(fmt::format(
          "{}: texts of one setting are more alike than texts of the two, by {:.3f} (p = {:.3g}).",
          names, pair.test.difference, pair.test.p_value));
    } else {
      std::string text = fmt::format("{}: no difference can be told from chance (p = {:.2f})",
                                     names, pair.test.p_value);
      if (pair.runs_to_settle) {
        text += fmt::format("; about {} runs a setting would settle one of the size seen ({:.3f})",
                            *pair.runs_to_settle, pair.test.difference);
      }
      results->findings.push_back(text + ".");
    }
  }
}

void add_warnings(StudyResults* results) {
  int64_t fewest = 0;
  int64_t truncated = 0;
  int64_t runs = 0;
  int64_t cut = 0;
  for (const SettingFigures& setting : results->settings) {
    runs += setting.runs;
    truncated += setting.truncated;
    cut += setting.thinking_cut;
    if (setting.runs > 1 && setting.unique_ids > 1) {
      fewest = fewest == 0 ? setting.runs : std::min(fewest, setting.runs);
    }
  }
  if (fewest > 0 && fewest < kFewestRuns && results->pairs.size() > 0) {
    results->warnings.push_back(
        fmt::format("{} a setting settle nothing about likeness: no test on so few can tell a "
                    "difference from chance at 5 %. --runs 5 or more can.",
                    runs_text(fewest)));
  }
  if (results->compared_runs > 0) {
    results->warnings.push_back(fmt::format(
        "Likeness is that of the first {} runs of every setting.", results->compared_runs));
  }
  if (truncated > 0) {
    results->warnings.push_back(
        fmt::format("{} of {} ended at the limit of new tokens: lengths and likeness are those of "
                    "beginnings.",
                    truncated, runs_text(runs)));
  }
  if (cut > 0) {
    results->warnings.push_back(fmt::format(
        "{} ended while the model was still thinking, without an answer.", runs_text(cut)));
  }
}

void add_tree(StudyResults* results) {
  for (const ExactFigures& exact : results->extras.exact) {
    const auto setting = std::find_if(
        results->settings.begin(), results->settings.end(), [&](const SettingFigures& one) {
          return one.name == exact.setting_name && one.prompt_name == exact.prompt_name;
        });
    if (setting == results->settings.end()) {
      continue;
    }
    for (const auto& [n, distinct] : exact.expected_distinct) {
      if (n == setting->runs) {
        results->findings.push_back(
            fmt::format("{}: {} gave {} different texts; by the exact tree {:.2f} to {:.2f} were "
                        "to be expected.",
                        label(*results, *setting), runs_text(n), setting->unique_ids, distinct.low,
                        distinct.high));
      }
    }
  }
}

}  // namespace

void add_findings(StudyResults* results) {
  results->headline = uniqueness(*results);
  if (results->extras.cache) {
    // A study of the cache asks about time.
    results->findings.push_back(results->headline);
    results->headline = cache_sentence(*results->extras.cache);
  }
  add_tree(results);
  add_pairs(results);
  for (const SettingFigures& setting : results->settings) {
    if (setting.tied_steps > 0) {
      results->findings.push_back(
          fmt::format("{}: at {} steps several tokens had exactly the largest logit.",
                      label(*results, setting), setting.tied_steps));
    }
  }
  add_warnings(results);
}

}  // namespace logitlab
