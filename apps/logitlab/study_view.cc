#include "study_view.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/utf8.h"
#include "lab/measures/answers.h"
#include "lab/measures/setting_figures.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kShownDivergences = 8;

void print_wrapped(Terminal* terminal, std::string_view text, Style style, std::string_view first,
                   std::string_view rest) {
  const auto columns = static_cast<size_t>(terminal->columns());
  for (const std::string& line : wrap(text, columns - std::min(columns - 2, rest.size()))) {
    terminal->print(std::string(first) + terminal->paint(style, line) + "\n");
    first = rest;
  }
}

std::string interval_text(const SampleSummary& summary) {
  if (summary.n == 0) {
    return "-";
  }
  return summary.interval ? fmt::format("{:.3f} [{:.3f}, {:.3f}]", summary.mean,
                                        summary.interval->low, summary.interval->high)
                          : fmt::format("{:.3f}", summary.mean);
}

std::string setting_label(const StudyResults& results, const SettingFigures& setting) {
  return printable(name_of(results, setting) + (setting.is_control ? ", control" : ""));
}

std::string stops_text(const SettingFigures& setting) {
  std::string out;
  for (const auto& [reason, count] : setting.stop_reasons) {
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", reason, count);
  }
  return out;
}

bool asks_for(const StudyResults& results, MeasureKind kind) {
  const auto& measures = results.plan.measures;
  return std::find(measures.begin(), measures.end(), kind) != measures.end();
}

std::string settings_table(const Terminal& terminal, const StudyResults& results) {
  std::vector<Table::Column> columns = {{"setting", Align::kLeft}, {"runs", Align::kRight},
                                        {"unique", Align::kRight}, {"likeness", Align::kLeft},
                                        {"tokens", Align::kRight}, {"ended by", Align::kLeft}};
  if (results.plan.published_jaccard) {
    columns.push_back({"with self-pairs", Align::kRight});
  }
  Table table(columns);
  for (const SettingFigures& setting : results.settings) {
    const std::string likeness = setting.within ? interval_text(*setting.within) : "-";
    std::vector<Cell> row = {setting_label(results, setting),
                             fmt::format("{}", setting.runs),
                             {fmt::format("{}", setting.unique_ids),
                              setting.unique_ids == 1 ? Style::kGood : Style::kWarn},
                             likeness,
                             fmt::format("{:.4g}", setting.lengths.mean),
                             {stops_text(setting), Style::kDim}};
    if (results.plan.published_jaccard) {
      row.push_back(setting.within && setting.within->published
                        ? fmt::format("{:.4f}", *setting.within->published)
                        : "-");
    }
    table.add_row(row);
  }
  return table.render(terminal);
}

std::string candidates_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft},
               {"after", Align::kLeft},
               {"fewest", Align::kRight},
               {"mean", Align::kRight},
               {"most", Align::kRight},
               {"more than one", Align::kRight},
               {"mass kept", Align::kRight}});
  for (const SettingFigures& setting : results.settings) {
    for (const StageSurvivors& stage : setting.stages) {
      // What moves scores and drops none says nothing here, nor does the whole after one filter.
      const bool is_lone = setting.stages.size() == 2 && setting.stages.front().mean_mass < 1;
      if (stage.name == "all" ? is_lone : stage.mean_mass >= 1) {
        continue;
      }
      table.add_row({setting_label(results, setting), stage.name,
                     with_commas(static_cast<int64_t>(stage.survivors.minimum)),
                     stage.survivors.mean >= 1000 ? with_commas(std::llround(stage.survivors.mean))
                                                  : fmt::format("{:.4g}", stage.survivors.mean),
                     with_commas(static_cast<int64_t>(stage.survivors.maximum)),
                     fmt::format("{:.0f} %", 100 * stage.share_above_one),
                     fmt::format("{:.3f}", stage.mean_mass)});
    }
  }
  return table.render(terminal);
}

std::string next_token_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft},
               {"id", Align::kRight},
               {"token", Align::kLeft},
               {"raw p", Align::kRight},
               {"p", Align::kRight}});
  for (const SettingFigures& setting : results.settings) {
    std::string label = setting_label(results, setting);
    for (const NextToken& token : setting.next_tokens) {
      table.add_row(
          {label, fmt::format("{}", token.id), fmt::format("'{}'", printable(token.piece)),
           fmt::format("{:.4f}", token.raw_probability), fmt::format("{:.4f}", token.probability)});
      label.clear();
    }
  }
  return table.render(terminal);
}

std::string thinking_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft},
               {"thinking tokens", Align::kRight},
               {"answer tokens", Align::kRight},
               {"cut in thinking", Align::kRight}});
  for (const SettingFigures& setting : results.settings) {
    table.add_row({setting_label(results, setting),
                   fmt::format("{:.4g}", setting.thinking_tokens.mean),
                   fmt::format("{:.4g}", setting.answer_tokens.mean),
                   fmt::format("{} of {}", setting.thinking_cut, setting.runs)});
  }
  return table.render(terminal);
}

std::string stops_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft},
               {"may end at", Align::kLeft},
               {"from", Align::kLeft},
               {"ended runs", Align::kRight}});
  for (const SettingFigures& setting : results.settings) {
    std::string label = setting_label(results, setting);
    if (setting.stop_ids.empty()) {
      table.add_row({label, std::string("no token, the limit alone"), std::string(),
                     fmt::format("0 of {}", setting.runs)});
    }
    for (const StopFigures& stop : setting.stop_ids) {
      table.add_row({label,
                     stop.piece.empty() ? fmt::format("{}", stop.id)
                                        : fmt::format("{} '{}'", stop.id, printable(stop.piece)),
                     stop.origin, fmt::format("{} of {}", stop.runs, setting.runs)});
      label.clear();
    }
  }
  return table.render(terminal);
}

std::string penalties_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft},
               {"tokens said before", Align::kRight},
               {"pairs said before", Align::kRight},
               {"stage", Align::kLeft},
               {"removed a step", Align::kRight},
               {"changed a step", Align::kRight},
               {"in the prompt", Align::kRight}});
  for (const SettingFigures& setting : results.settings) {
    std::vector<std::string> first = {setting_label(results, setting),
                                      fmt::format("{:.0f} %", 100 * setting.said_before.mean),
                                      fmt::format("{:.0f} %", 100 * setting.pairs_before.mean)};
    for (const StageSurvivors& stage : setting.stages) {
      const bool is_counted = std::isfinite(stage.mean_changed);
      if (stage.name == "all" || !(is_counted || stage.mean_removed > 0)) {
        continue;
      }
      table.add_row({first[0], first[1], first[2], stage.name,
                     fmt::format("{:.4g}", stage.mean_removed),
                     is_counted ? fmt::format("{:.4g}", stage.mean_changed) : "-",
                     is_counted ? fmt::format("{:.4g}", stage.mean_changed_in_prompt) : "-"});
      first = {"", "", ""};
    }
    if (!first[0].empty()) {
      table.add_row({first[0], first[1], first[2], std::string("none"), std::string("-"),
                     std::string("-"), std::string("-")});
    }
  }
  return table.render(terminal);
}

std::string hashes_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft}, {"hashes of the logits of all steps", Align::kLeft}});
  for (const SettingFigures& setting : results.settings) {
    std::string hashes;
    for (size_t i = 0; i < setting.hashes.size(); ++i) {
      const bool is_again = i > 0 && setting.hashes[i] == setting.hashes[i - 1];
      hashes += (i == 0 ? "" : " ") +
                (is_again ? std::string("=") : fmt::format("{:08x}", setting.hashes[i] >> 32));
    }
    table.add_row({setting_label(results, setting), hashes});
  }
  return table.render(terminal);
}

std::string beams_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft}, {"score", Align::kRight}, {"text", Align::kLeft}});
  for (const SettingFigures& setting : results.settings) {
    if (!setting.beams) {
      continue;
    }
    std::string label = setting_label(results, setting);
    for (const BeamFigures::Hypothesis& one : setting.beams->hypotheses) {
      table.add_row(
          {label, fmt::format("{:.4f}", one.score), shortened(collapse_space(one.text), 60)});
      label.clear();
    }
    table.add_row(
        {std::string(), std::string(), {"ended: " + setting.beams->stopped_because, Style::kDim}});
  }
  return table.render(terminal);
}

std::string exact_table(const Terminal& terminal, const StudyResults& results) {
  Table table({{"setting", Align::kLeft},
               {"texts found", Align::kRight},
               {"their mass", Align::kRight},
               {"two runs alike", Align::kLeft},
               {"likeliest", Align::kLeft}});
  for (const ExactFigures& exact : results.extras.exact) {
    const std::string likeliest =
        exact.likeliest.empty()
            ? "-"
            : fmt::format("{:.3f} {}", exact.likeliest.front().probability,
                          shortened(collapse_space(exact.likeliest.front().text), 30));
    table.add_row({printable(exact.setting_name), with_commas(exact.texts),
                   fmt::format("{:.3f}", exact.mass),
                   exact.same_text.high - exact.same_text.low < 5e-4
                       ? fmt::format("{:.3f}", exact.same_text.low)
                       : fmt::format("{:.3f} to {:.3f}", exact.same_text.low, exact.same_text.high),
                   likeliest});
  }
  return table.render(terminal);
}

std::string cost_line(const StudyTotals& totals) {
  return fmt::format(
      "{} tokens asked for, {} computed ({:.2f} of them), {:.1f} s, {:.0f} tokens/s",
      with_commas(totals.prompt_tokens_asked + totals.new_tokens_asked),
      with_commas(totals.prefill_tokens + totals.decode_rows), computed_share(totals),
      totals.seconds,
      totals.seconds > 0 ? static_cast<double>(totals.new_tokens_asked) / totals.seconds : 0.0);
}

void print_section(Terminal* terminal, std::string_view title, const std::string& table) {
  terminal->print("\n");
  print_wrapped(terminal, title, Style::kHeading, "", "");
  terminal->print(table);
}

void print_texts(Terminal* terminal, const StudyResults& results) {
  print_section(terminal, "first text of every setting", "");
  for (const SettingFigures& setting : results.settings) {
    print_wrapped(terminal, setting_label(results, setting), Style::kAccent, "", "");
    print_wrapped(terminal, printable(collapse_space(setting.sample_text)), Style::kPlain, "  ",
                  "  ");
  }
}

void print_measures(Terminal* terminal, const StudyResults& results) {
  print_section(terminal, "settings", settings_table(*terminal, results));
  if (asks_for(results, MeasureKind::kCandidates)) {
    print_section(terminal, "survivors of a step", candidates_table(*terminal, results));
  }
  if (asks_for(results, MeasureKind::kNextToken)) {
    print_section(terminal, "likeliest next tokens", next_token_table(*terminal, results));
  }
  if (asks_for(results, MeasureKind::kThinking)) {
    print_section(terminal, "thinking", thinking_table(*terminal, results));
  }
  if (asks_for(results, MeasureKind::kStops)) {
    print_section(terminal, "tokens that end a run", stops_table(*terminal, results));
  }
  if (asks_for(results, MeasureKind::kPenalties)) {
    print_section(terminal, "what was said before, and what penalties and bans did",
                  penalties_table(*terminal, results));
  }
  if (asks_for(results, MeasureKind::kHashes)) {
    print_section(terminal, "hashes (=: as the run before)", hashes_table(*terminal, results));
  }
  if (asks_for(results, MeasureKind::kBeams)) {
    print_section(terminal, "beams", beams_table(*terminal, results));
  }
  if (!results.extras.exact.empty()) {
    print_section(terminal, "all texts that a setting allows", exact_table(*terminal, results));
  }
}

void print_divergences(Terminal* terminal, const StudyResults& results) {
  if (results.divergences.empty()) {
    return;
  }
  print_section(terminal, "where runs part", "");
  const size_t shown = std::min(kShownDivergences, results.divergences.size());
  for (size_t i = 0; i < shown; ++i) {
    const DivergenceFigures& one = results.divergences[i];
    print_wrapped(terminal,
                  fmt::format("{} and {}: {}", printable(one.first_name),
                              printable(one.second_name), printable(one.divergence.verdict)),
                  Style::kPlain, "  ", "    ");
  }
}

}  // namespace

void print_study(Terminal* terminal, const StudyResults& results) {
  print_wrapped(terminal, printable(results.plan.title), Style::kHeading, "", "");
  print_wrapped(terminal, printable(results.plan.question), Style::kPlain, "", "");
  terminal->print("\n");
  print_wrapped(terminal, printable(results.headline), Style::kBold, "", "");
  print_measures(terminal, results);
  print_divergences(terminal, results);
  print_texts(terminal, results);
  if (!results.findings.empty()) {
    print_section(terminal, "findings", "");
    for (const std::string& finding : results.findings) {
      print_wrapped(terminal, printable(finding), Style::kPlain, "- ", "  ");
    }
  }
  if (!results.plan.expectation.empty()) {
    terminal->print("\n");
    print_wrapped(terminal, "expected: " + printable(results.plan.expectation), Style::kDim, "",
                  "  ");
  }
  for (const std::string& warning : results.warnings) {
    print_wrapped(terminal, "note: " + warning, Style::kWarn, "", "  ");
  }
  terminal->print("\n");
  print_wrapped(terminal,
                fmt::format("study {}: {}", results.study.id, cost_line(results.study.totals)),
                Style::kDim, "", "  ");
}

void print_course(Terminal* terminal, const Study& course, std::span<const StudyResults> results) {
  print_wrapped(terminal, printable(course.title), Style::kHeading, "", "");
  StudyTotals sum;
  for (const StudyResults& one : results) {
    terminal->print("\n" + terminal->paint(Style::kAccent, one.plan.name) + "  " +
                    terminal->paint(Style::kDim, fmt::format("study {}", one.study.id)) + "\n");
    print_wrapped(terminal, printable(one.plan.question), Style::kPlain, "  ", "  ");
    print_wrapped(terminal, printable(one.headline), Style::kBold, "  ", "  ");
    add(&sum, one.study.totals);
  }
  terminal->print("\n");
  print_wrapped(terminal, cost_line(sum), Style::kDim, "", "");
}

}  // namespace logitlab
