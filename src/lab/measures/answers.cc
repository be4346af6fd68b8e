#include "lab/measures/answers.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "base/utf8.h"
#include "lab/measures/setting_figures.h"

namespace logitlab {
namespace {

constexpr size_t kMostNamed = 6;
constexpr size_t kQuoted = 90;
constexpr size_t kFewestForATrend = 3;
// Settings whose likeness is named one by one.
constexpr size_t kMostCompared = 4;

// At most `most` items; the rest is counted.
std::string joined(const std::vector<std::string>& items, std::string_view between,
                   size_t most = kMostNamed) {
  std::string out;
  for (size_t i = 0; i < std::min(most, items.size()); ++i) {
    out += fmt::format("{}{}", i == 0 ? "" : between, items[i]);
  }
  return items.size() <= most ? out : out + fmt::format(" and {} more", items.size() - most);
}

std::string quoted(std::string_view text, size_t most) {
  const std::string plain = collapse_space(printable(text));
  size_t cut = std::min(most, plain.size());
  while (cut < plain.size() && cut > 0 &&
         (static_cast<unsigned char>(plain[cut]) & 0xC0U) == 0x80U) {
    --cut;
  }
  return fmt::format("\"{}{}\"", plain.substr(0, cut), cut < plain.size() ? "..." : "");
}

std::string token_text(const NextToken& token) {
  return token.piece.empty() ? fmt::format("#{}", token.id)
                             : fmt::format("'{}'", printable(token.piece));
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

std::string single_texts(const StudyResults& results) {
  if (results.settings.size() <= 2) {
    std::vector<std::string> texts;
    for (const SettingFigures& setting : results.settings) {
      texts.push_back(fmt::format("{}: {}", name_of(results, setting),
                                  setting.sample_text.empty()
                                      ? "no text, it ended at once"
                                      : quoted(setting.sample_text, kQuoted)));
    }
    return texts.empty() ? "No runs yet." : joined(texts, "; ") + ".";
  }
  const std::string across = across_settings(results);
  return across.empty() ? "" : across + ", one run each.";
}

std::string uniqueness(const StudyResults& results) {
  int64_t runs = 0;
  std::vector<std::string> lone;
  std::vector<std::string> many;
  for (const SettingFigures& setting : results.settings) {
    runs += setting.runs;
    if (setting.runs < 2) {
      continue;
    }
    if (setting.unique_ids == 1) {
      lone.push_back(name_of(results, setting));
    } else {
      many.push_back(fmt::format("{} ({} of {})", name_of(results, setting), setting.unique_ids,
                                 setting.runs));
    }
  }
  if (lone.empty() && many.empty()) {
    return single_texts(results);
  }
  if (results.settings.size() == 1) {
    const int64_t unique = results.settings.front().unique_ids;
    return unique == 1 ? fmt::format("All {} gave the same tokens.", runs_text(runs))
                       : fmt::format("{} gave {} different texts.", runs_text(runs), unique);
  }
  if (many.empty()) {
    const std::string across = across_settings(results);
    return fmt::format("In every setting all runs gave the same tokens ({}){}.", runs_text(runs),
                       across.empty() ? "" : "; the " + across);
  }
  if (lone.empty()) {
    return fmt::format("In every setting runs differed: {}.", joined(many, ", "));
  }
  return fmt::format("Always the same tokens: {}. Several texts: {}.", joined(lone, ", "),
                     joined(many, ", "));
}

// How likeness moves along a sweep over one name: whether it falls, rises or has no order. Only
// what the means of these runs did, not what others would do.
std::string trend(const StudyResults& results) {
  std::vector<double> means;
  std::vector<std::string> values;
  std::string swept;
  for (const SettingFigures& setting : results.settings) {
    if (setting.is_control || setting.swept.size() != 1 || !setting.within ||
        setting.within->n == 0) {
      continue;
    }
    swept = setting.swept.front().first;
    means.push_back(setting.within->mean);
    values.push_back(fmt::format("{:.2f} at {}", means.back(), setting.swept.front().second));
  }
  if (means.size() < kFewestForATrend || results.plan.prompts.size() > 1) {
    return "";
  }
  int64_t up = 0;
  int64_t down = 0;
  for (size_t i = 1; i < means.size(); ++i) {
    up += means[i] > means[i - 1] ? 1 : 0;
    down += means[i] < means[i - 1] ? 1 : 0;
  }
  const auto steps = static_cast<int64_t>(means.size()) - 1;
  const std::string_view course = down == steps         ? "falls with every step of"
                                  : up == steps         ? "rises with every step of"
                                  : up == 0 && down > 0 ? "never rises along"
                                  : down == 0 && up > 0 ? "never falls along"
                                                        : "follows no order in";
  return fmt::format("Likeness of two texts {} {}: {}.", course, swept, joined(values, ", ", 8));
}

// Of few settings without an order: how alike texts are inside each, and across two.
std::string likeness_inside(const StudyResults& results) {
  std::vector<std::string> inside;
  bool has_sweep = false;
  for (const SettingFigures& setting : results.settings) {
    has_sweep = has_sweep || !setting.swept.empty();
    if (setting.within && setting.within->n > 0 && setting.unique_ids > 1) {
      inside.push_back(
          fmt::format("two{} share {:.2f} of their words",
                      results.settings.size() == 1 ? "" : " of " + name_of(results, setting),
                      setting.within->mean));
    }
  }
  if (inside.empty() || has_sweep || results.settings.size() > kMostCompared) {
    return "";
  }
  const bool is_one_pair = results.pairs.size() == 1 && results.settings.size() == 2;
  return fmt::format(
      "Of the texts, {}{}.", joined(inside, ", "),
      is_one_pair ? fmt::format(", one of each {:.2f}", results.pairs.front().between.mean) : "");
}

std::string texts_answer(const StudyResults& results) {
  std::string out = uniqueness(results);
  for (const std::string& more : {trend(results), likeness_inside(results)}) {
    out += more.empty() ? "" : " " + more;
  }
  return out;
}

std::string candidates_answer(const StudyResults& results) {
  std::vector<std::string> lone;
  std::vector<std::string> wider;
  for (const SettingFigures& setting : results.settings) {
    const bool is_filtered =
        std::any_of(setting.stages.begin(), setting.stages.end(),
                    [](const StageSurvivors& stage) { return stage.mean_removed > 0; });
    if (!is_filtered) {
      continue;  // as under greedy decoding
    }
    const StageSurvivors& all = setting.stages.back();
    if (all.survivors.maximum <= 1) {
      lone.push_back(name_of(results, setting));
    } else if (all.survivors.minimum == all.survivors.maximum) {
      wider.push_back(
          fmt::format("{} always {:.0f}", name_of(results, setting), all.survivors.mean));
    } else {
      wider.push_back(fmt::format("{} up to {:.0f}, more than one at {:.0f} % of the steps",
                                  name_of(results, setting), all.survivors.maximum,
                                  100 * all.share_above_one));
    }
  }
  std::string out;
  if (!lone.empty()) {
    out = fmt::format("One token was left at every step: {}.", joined(lone, ", "));
  }
  if (!wider.empty()) {
    out += fmt::format("{}Tokens left: {}.", out.empty() ? "" : " ", joined(wider, "; ", 10));
  }
  return out;
}

std::string thinking_answer(const StudyResults& results) {
  std::vector<std::string> spent;
  bool thought = false;
  for (const SettingFigures& setting : results.settings) {
    thought = thought || setting.thinking_tokens.maximum > 0;
    std::string text =
        fmt::format("{}: {:.4g} thinking and {:.4g} answer tokens", name_of(results, setting),
                    setting.thinking_tokens.mean, setting.answer_tokens.mean);
    if (setting.thinking_cut > 0) {
      text += fmt::format(", cut inside the thinking in {} of {}", setting.thinking_cut,
                          runs_text(setting.runs));
    }
    spent.push_back(text);
  }
  if (spent.empty()) {
    return "";
  }
  return thought ? joined(spent, "; ", 8) + "."
                 : "This model did not think: no setting spent a token on it, the whole budget was "
                   "the answer's.";
}

std::string reason_text(const SettingFigures& setting) {
  std::vector<std::string> reasons;
  for (const auto& [reason, count] : setting.stop_reasons) {
    std::string text = reason == "length" ? "the limit" : reason;
    for (const StopFigures& stop : setting.stop_ids) {
      if (stop.runs > 0 && reason == "eos_token") {
        text = stop.piece.empty() ? fmt::format("end token #{}", stop.id)
                                  : fmt::format("end token '{}'", printable(stop.piece));
      }
    }
    reasons.push_back(setting.runs > 1 ? fmt::format("{} ({} of {})", text, count, setting.runs)
                                       : text);
  }
  return joined(reasons, ", ");
}

std::string stops_answer(const StudyResults& results) {
  std::vector<std::string> ends;
  for (const SettingFigures& setting : results.settings) {
    ends.push_back(fmt::format("{} after {:.4g} tokens by {}", name_of(results, setting),
                               setting.lengths.mean, reason_text(setting)));
  }
  return ends.empty() ? "" : fmt::format("Ended: {}.", joined(ends, "; "));
}

std::string next_token_answer(const StudyResults& results) {
  std::vector<std::string> first;
  for (const SettingFigures& setting : results.settings) {
    if (!setting.next_tokens.empty()) {
      const NextToken& token = setting.next_tokens.front();
      const double shown =
          std::isfinite(token.probability) ? token.probability : token.raw_probability;
      first.push_back(
          fmt::format("{} with {:.3f} ({})", token_text(token), shown, name_of(results, setting)));
    }
  }
  return first.empty() ? "" : fmt::format("Likeliest first token: {}.", joined(first, ", "));
}

double length_penalty_of(const StudyResults& results, const std::string& name) {
  for (const StudySetting& setting : results.plan.settings) {
    if (setting.name == name) {
      return setting.config.length_penalty.value_or(1.0);
    }
  }
  return 1.0;
}

std::string beams_answer(const StudyResults& results) {
  std::vector<std::string> found;
  for (const SettingFigures& setting : results.settings) {
    if (!setting.beams && std::isfinite(setting.log_probability)) {
      found.push_back(fmt::format("{} {:.1f} ({:.4g} tokens)", name_of(results, setting),
                                  setting.log_probability, setting.lengths.mean));
    }
    if (!setting.beams || setting.beams->hypotheses.empty()) {
      continue;
    }
    const auto& answers = setting.beams->hypotheses;
    const auto n_tokens = static_cast<double>(answers.front().ids.size());
    std::string text = fmt::format(
        "{} {:.1f} ({:.0f} tokens", name_of(results, setting),
        answers.front().score * std::pow(n_tokens, length_penalty_of(results, setting.name)),
        n_tokens);
    size_t latest = 0;
    for (size_t i = 1; i < answers.size(); ++i) {
      const auto apart = std::mismatch(answers.front().ids.begin(), answers.front().ids.end(),
                                       answers[i].ids.begin(), answers[i].ids.end());
      const auto common = static_cast<size_t>(apart.first - answers.front().ids.begin());
      latest = i == 1 ? common : std::min(latest, common);
    }
    if (answers.size() > 1) {
      text += fmt::format("; its {} answers share the first {}", answers.size(), latest);
    }
    text += ")";
    found.push_back(text);
  }
  return found.empty() ? ""
                       : fmt::format("Log-probability of the whole text: {}.", joined(found, "; "));
}

std::string penalties_answer(const StudyResults& results) {
  std::vector<std::string> tokens;
  for (const SettingFigures& setting : results.settings) {
    if (setting.said_before.n > 0) {
      tokens.push_back(fmt::format("{} {:.0f} % and {:.0f} %", name_of(results, setting),
                                   100 * setting.said_before.mean,
                                   100 * setting.pairs_before.mean));
    }
  }
  return tokens.empty()
             ? ""
             : fmt::format(
                   "Of the tokens and of the pairs of tokens, so many had been said before, "
                   "in prompt or answer: {}.",
                   joined(tokens, "; ", 8));
}

// Settings by the hashes of their runs, largest group first.
std::string hashes_answer(const StudyResults& results) {
  std::map<std::pair<std::string, std::set<uint64_t>>, std::vector<std::string>> groups;
  std::vector<std::string> several;
  for (const SettingFigures& setting : results.settings) {
    const std::set<uint64_t> hashes(setting.hashes.begin(), setting.hashes.end());
    if (hashes.size() == 1) {
      groups[{setting.prompt_name, hashes}].push_back(name_of(results, setting));
    } else if (!hashes.empty()) {
      several.push_back(
          fmt::format("{} ({} of {})", name_of(results, setting), hashes.size(), setting.runs));
    }
  }
  std::string out;
  for (const auto& [hash, names] : groups) {
    if (names.size() > 1) {
      out += fmt::format("{}The logits of every step are bit for bit the same: {}.",
                         out.empty() ? "" : " ", joined(names, "; ", 8));
    }
  }
  if (!several.empty()) {
    out += fmt::format("{}Logits differ between runs: {}.", out.empty() ? "" : " ",
                       joined(several, "; "));
  }
  return out;
}

std::string divergence_answer(const StudyResults& results) {
  std::map<DivergenceCause, int64_t> counts;
  const DivergenceFigures* tie = nullptr;
  for (const DivergenceFigures& one : results.divergences) {
    ++counts[one.divergence.cause];
    if (one.divergence.cause == DivergenceCause::kTie && tie == nullptr) {
      tie = &one;
    }
  }
  const auto n = static_cast<int64_t>(results.divergences.size());
  if (n == 0) {
    return "";
  }
  std::vector<std::string> causes;
  int64_t parted = 0;
  for (const auto& [cause, count] : counts) {
    if (cause != DivergenceCause::kNone && cause != DivergenceCause::kLength) {
      parted += count;
      causes.push_back(fmt::format("{} by {}", count, name(cause)));
    }
  }
  const std::string pairs =
      n == 1 ? "The two runs compared" : fmt::format("Of {} pairs of runs", n);
  std::string out = parted == 0 ? pairs + (n == 1 ? " did not part" : " none parted")
                    : n == 1
                        ? fmt::format("{} parted ({})", pairs, joined(causes, ", "))
                        : fmt::format("{} {} parted ({})", pairs, parted, joined(causes, ", "));
  if (counts[DivergenceCause::kLength] > 0) {
    out += n == 1 ? std::string("; one text is the beginning of the other")
                  : fmt::format("; in {} one text is the beginning of the other",
                                counts[DivergenceCause::kLength]);
  }
  out += ".";
  if (tie != nullptr) {
    out += fmt::format(" {} and {}: {}", tie->first_name, tie->second_name,
                       printable(tie->divergence.verdict));
  }
  return out;
}

std::string cache_answer(const StudyResults& results) {
  if (!results.extras.cache) {
    return "";
  }
  const CacheFigures& cache = *results.extras.cache;
  double with = 0;
  double without = 0;
  for (size_t i = 0; i < cache.cached_seconds.size(); ++i) {
    with += cache.cached_seconds[i];
    without += cache.uncached_seconds[i];
  }
  return with <= 0 ? ""
                   : fmt::format(
                         "Without the decode state {} tokens took {:.1f} times as long ({:.2f} s, "
                         "with it {:.2f} s).",
                         cache.cached_seconds.size(), without / with, without, with);
}

}  // namespace

std::string name_of(const StudyResults& results, const SettingFigures& setting) {
  if (results.plan.prompts.size() < 2) {
    return setting.name;
  }
  return results.plan.settings.size() == 1
             ? setting.prompt_name
             : fmt::format("{} ({})", setting.name, setting.prompt_name);
}

std::string runs_text(int64_t n) {
  return n == 1 ? "1 run" : fmt::format("{} runs", n);
}

std::string answer_of(MeasureKind kind, const StudyResults& results) {
  switch (kind) {
    case MeasureKind::kTexts:
      return texts_answer(results);
    case MeasureKind::kCandidates:
      return candidates_answer(results);
    case MeasureKind::kThinking:
      return thinking_answer(results);
    case MeasureKind::kDivergence:
      return divergence_answer(results);
    case MeasureKind::kHashes:
      return hashes_answer(results);
    case MeasureKind::kNextToken:
      return next_token_answer(results);
    case MeasureKind::kBeams:
      return beams_answer(results);
    case MeasureKind::kPenalties:
      return penalties_answer(results);
    case MeasureKind::kStops:
      return stops_answer(results);
    case MeasureKind::kCache:
      return cache_answer(results);
  }
  return "";
}

}  // namespace logitlab
