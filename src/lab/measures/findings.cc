#include "lab/measures/findings.h"

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lab/measures/answers.h"

namespace logitlab {
namespace {

// Characters that the further answers may fill up.
constexpr size_t kHeadline = 260;
constexpr double kSignificant = 0.05;
// With fewer runs than this in a group no permutation test can reach 5 % (statistics.h).
constexpr int64_t kFewestRuns = 4;

// The answers of the measures in the order of the study: the first one is the headline, with what
// fits of the next ones.
void add_answers(StudyResults* results) {
  std::vector<MeasureKind> kinds = results->plan.measures;
  if (kinds.empty()) {
    kinds = {MeasureKind::kTexts};
  }
  bool is_headline = true;
  for (const MeasureKind kind : kinds) {
    const std::string answer = answer_of(kind, *results);
    if (answer.empty()) {
      continue;
    }
    is_headline = is_headline && (results->headline.empty() ||
                                  results->headline.size() + answer.size() < kHeadline);
    if (is_headline) {
      results->headline += (results->headline.empty() ? "" : " ") + answer;
    } else {
      results->findings.push_back(answer);
    }
  }
}

void add_pairs(StudyResults* results) {
  for (const PairFigures& pair : results->pairs) {
    const SettingFigures& first = results->settings[pair.first];
    const SettingFigures& second = results->settings[pair.second];
    const std::string names =
        fmt::format("{} and {}", name_of(*results, first), name_of(*results, second));
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
  for (const ExactAgreement& one : results->agreement) {
    const SettingFigures& setting = results->settings[one.setting];
    std::string text = fmt::format(
        "{}: the likeliest text has an exact probability of {:.3f}; {} of {} gave it (95 % "
        "interval "
        "{:.2f} to {:.2f}): {}.",
        name_of(*results, setting), one.exact, one.hits, runs_text(one.runs), one.sampled.low,
        one.sampled.high, one.agrees() ? "they agree" : "they do not agree");
    for (const ExactFigures& exact : results->extras.exact) {
      if (exact.setting_name != setting.name || exact.prompt_name != setting.prompt_name) {
        continue;
      }
      for (const auto& [n, distinct] : exact.expected_distinct) {
        if (n == setting.runs) {
          text += fmt::format(" Different texts: {} came, {:.2f} to {:.2f} were to be expected.",
                              setting.unique_ids, distinct.low, distinct.high);
        }
      }
    }
    results->findings.push_back(text);
  }
}

}  // namespace

void add_findings(StudyResults* results) {
  add_answers(results);
  add_tree(results);
  add_pairs(results);
  for (const SettingFigures& setting : results->settings) {
    if (setting.tied_steps > 0) {
      results->findings.push_back(
          fmt::format("{}: at {} steps several tokens had exactly the largest logit.",
                      name_of(*results, setting), setting.tied_steps));
    }
  }
  for (const SettingFigures& setting : results->settings) {
    for (const std::string& idle : setting.idle_settings) {
      results->findings.push_back(
          fmt::format("{}: without effect: {}.", name_of(*results, setting), idle));
    }
  }
  add_warnings(results);
}

}  // namespace logitlab
