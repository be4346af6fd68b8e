#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "lab/report/charts.h"
#include "lab/report/report.h"
#include "lab/report/style.h"
#include "lab/report/svg.h"

namespace logitlab {
namespace {

class Page {
 public:
  std::string take() { return std::move(out_); }
  void raw(std::string_view markup) { out_ += markup; }
  // One element with escaped content, left out when that is empty.
  void element(std::string_view tag, std::string_view css, std::string_view content) {
    if (!content.empty()) {
      out_ += fmt::format("<{0} class=\"{1}\">{2}</{0}>\n", tag, css, escape_markup(content));
    }
  }
  void chart(std::string_view heading, const std::string& svg) {
    if (!svg.empty()) {
      element("h3", "", heading);
      out_ += "<div class=\"box\">" + svg + "</div>\n";
    }
  }
  void list(std::string_view heading, const std::vector<std::string>& items) {
    if (items.empty()) {
      return;
    }
    element("h3", "", heading);
    out_ += "<ul>\n";
    for (const std::string& item : items) {
      element("li", "", item);
    }
    out_ += "</ul>\n";
  }
  // Headers that begin with '#' stand over columns of numbers.
  void begin_table(const std::vector<std::string>& headers) {
    is_number_.clear();
    out_ += "<div class=\"box\"><table><thead><tr>";
    for (const std::string& header : headers) {
      is_number_.push_back(!header.empty() && header.front() == '#');
      out_ += fmt::format("<th scope=\"col\"{}>{}</th>", is_number_.back() ? " class=\"n\"" : "",
                          escape_markup(header.substr(is_number_.back() ? 1 : 0)));
    }
    out_ += "</tr></thead><tbody>\n";
  }
  void row(const std::vector<std::string>& cells) {
    out_ += "<tr>";
    for (size_t i = 0; i < cells.size(); ++i) {
      out_ += fmt::format("<td{}>{}</td>", is_number_[i] ? " class=\"n\"" : "",
                          escape_markup(cells[i]));
    }
    out_ += "</tr>\n";
  }
  void end_table() { out_ += "</tbody></table></div>\n"; }

 private:
  std::string out_;
  std::vector<bool> is_number_;
};

std::string within_text(const SettingFigures& setting) {
  if (!setting.within || setting.within->n == 0) {
    return "n/a";
  }
  std::string text = fmt::format("{:.3f}", setting.within->mean);
  if (setting.within->interval) {
    text += fmt::format(" [{:.3f}, {:.3f}]", setting.within->interval->low,
                        setting.within->interval->high);
  }
  if (setting.within->published) {
    text += fmt::format(" (with self-pairs {:.4f})", *setting.within->published);
  }
  return text;
}

std::string stops_text(const SettingFigures& setting) {
  std::string text;
  for (const auto& [reason, count] : setting.stop_reasons) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", reason, count);
  }
  return text;
}

void add_settings(Page* page, const StudyResults& results) {
  if (results.settings.empty()) {
    return;
  }
  page->element("h3", "", "Settings");
  page->begin_table({"#", "setting", "#different", "#runs", "#likeness within [95 %]",
                     "#tokens, mean", "#thinking", "ended by"});
  for (size_t i = 0; i < results.settings.size(); ++i) {
    const SettingFigures& one = results.settings[i];
    page->row({fmt::format("{}", i + 1), setting_label(results, one),
               fmt::format("{}", one.unique_ids), fmt::format("{}", one.runs), within_text(one),
               fmt::format("{:.1f}", one.lengths.mean),
               fmt::format("{:.1f}", one.thinking_tokens.mean), stops_text(one)});
  }
  page->end_table();
}

void add_pairs(Page* page, const StudyResults& results) {
  if (results.pairs.empty()) {
    return;
  }
  page->element("h3", "", "Settings compared");
  page->begin_table({"first", "second", "#min", "#mean", "#max", "#p", "#smallest p possible",
                     "#same tokens", "#runs to settle"});
  for (const PairFigures& pair : results.pairs) {
    page->row({setting_label(results, results.settings[pair.first]),
               setting_label(results, results.settings[pair.second]),
               short_number(pair.between.minimum), short_number(pair.between.mean),
               short_number(pair.between.maximum), short_number(pair.test.p_value),
               short_number(pair.test.smallest_p), fmt::format("{}", pair.equal_texts),
               pair.runs_to_settle ? fmt::format("{}", *pair.runs_to_settle) : "n/a"});
  }
  page->end_table();
}

void add_survivors(Page* page, const StudyResults& results) {
  bool has_any = false;
  for (const SettingFigures& setting : results.settings) {
    has_any = has_any || !setting.stages.empty();
  }
  if (!has_any) {
    return;
  }
  page->element("h3", "", "Tokens left to choose from");
  page->begin_table({"setting", "after", "#min", "#mean", "#max", "#steps with more than one",
                     "#probability kept"});
  for (const SettingFigures& setting : results.settings) {
    for (const StageSurvivors& stage : setting.stages) {
      if (stage.name != "all" && stage.mean_removed <= 0) {
        continue;  // what moves scores and drops none
      }
      page->row({setting_label(results, setting), stage.name,
                 fmt::format("{:.0f}", stage.survivors.minimum),
                 fmt::format("{:.3f}", stage.survivors.mean),
                 fmt::format("{:.0f}", stage.survivors.maximum),
                 fmt::format("{:.1f} %", 100 * stage.share_above_one),
                 short_number(stage.mean_mass)});
    }
  }
  page->end_table();
  for (const auto& [title, chart] : survivor_charts(results)) {
    page->chart(title, chart);
  }
}

bool asks_for(const StudyResults& results, MeasureKind kind) {
  const auto& measures = results.plan.measures;
  return std::find(measures.begin(), measures.end(), kind) != measures.end();
}

void add_thinking(Page* page, const StudyResults& results) {
  if (!asks_for(results, MeasureKind::kThinking)) {
    return;
  }
  page->element("h3", "", "Thinking and answer");
  page->begin_table({"setting", "#thinking tokens", "#answer tokens", "#cut inside the thinking",
                     "#cut by the limit"});
  for (const SettingFigures& one : results.settings) {
    page->row({setting_label(results, one), fmt::format("{:.1f}", one.thinking_tokens.mean),
               fmt::format("{:.1f}", one.answer_tokens.mean),
               fmt::format("{} of {}", one.thinking_cut, one.runs),
               fmt::format("{} of {}", one.truncated, one.runs)});
  }
  page->end_table();
}

void add_stops(Page* page, const StudyResults& results) {
  if (!asks_for(results, MeasureKind::kStops)) {
    return;
  }
  page->element("h3", "", "Tokens at which a run may end");
  page->begin_table({"setting", "#id", "token", "from", "#runs ended by it"});
  for (const SettingFigures& one : results.settings) {
    for (const StopFigures& stop : one.stop_ids) {
      page->row({setting_label(results, one), fmt::format("{}", stop.id), stop.piece, stop.origin,
                 fmt::format("{} of {}", stop.runs, one.runs)});
    }
    if (one.stop_ids.empty()) {
      page->row({setting_label(results, one), "none", "", "", "only the limit ends it"});
    }
  }
  page->end_table();
}

void add_penalties(Page* page, const StudyResults& results) {
  if (!asks_for(results, MeasureKind::kPenalties)) {
    return;
  }
  page->element("h3", "", "What was said before, and what penalties and bans did");
  page->begin_table({"setting", "#tokens said before", "#pairs said before", "stage",
                     "#tokens removed a step", "#scores changed a step", "#of the prompt",
                     "#of the answer alone"});
  for (const SettingFigures& one : results.settings) {
    std::vector<std::string> row = {setting_label(results, one),
                                    fmt::format("{:.1f} %", 100 * one.said_before.mean),
                                    fmt::format("{:.1f} %", 100 * one.pairs_before.mean)};
    bool has_stage = false;
    for (const StageSurvivors& stage : one.stages) {
      if (stage.name == "all" || !(std::isfinite(stage.mean_changed) || stage.mean_removed > 0)) {
        continue;
      }
      page->row({row[0], row[1], row[2], stage.name, short_number(stage.mean_removed),
                 short_number(stage.mean_changed), short_number(stage.mean_changed_in_prompt),
                 short_number(stage.mean_changed_in_answer)});
      has_stage = true;
      row = {"", "", ""};
    }
    if (!has_stage) {
      page->row({row[0], row[1], row[2], "none", "", "", "", ""});
    }
  }
  page->end_table();
}

// By how much the draw of a run put its choice before the other run's.
std::string lead_text(const Divergence& divergence, size_t run) {
  return short_number(divergence.key[run][run] - divergence.key[run][1 - run]);
}

void add_divergences(Page* page, const StudyResults& results) {
  if (results.divergences.empty()) {
    return;
  }
  page->chart("Where runs part, and why", divergence_chart(results));
  page->begin_table({"first", "second", "#step", "cause", "verdict"});
  for (const DivergenceFigures& one : results.divergences) {
    page->row({one.first_name, one.second_name, fmt::format("{}", one.divergence.step),
               std::string(name(one.divergence.cause)), one.divergence.verdict});
  }
  page->end_table();
  page->raw(
      "<details><summary>The two tokens, their gap and the draws</summary>"
      "<p class=\"dim\">The gap is the logit of the first run's token above that of the second's, "
      "as the first run saw them. A draw adds a random number to every score; the lead says by how "
      "much it put the run's own token before the other one: so much more score the other token "
      "would have needed.</p>\n");
  page->begin_table({"first", "second", "token of the first", "#its p", "token of the second",
                     "#its p", "#gap", "#gap, last places", "#lead, first", "#lead, second"});
  for (const DivergenceFigures& one : results.divergences) {
    const Divergence& found = one.divergence;
    if (found.sides[0][0].id < 0) {
      continue;
    }
    const bool has_gap = found.sides[0][0].is_known && found.sides[0][1].is_known;
    page->row(
        {one.first_name, one.second_name, "'" + found.sides[0][0].piece + "'",
         short_number(found.sides[0][0].probability), "'" + found.sides[1][1].piece + "'",
         short_number(found.sides[1][1].probability), has_gap ? short_number(found.gap) : "n/a",
         has_gap ? short_number(found.gap_ulps) : "n/a", lead_text(found, 0), lead_text(found, 1)});
  }
  page->end_table();
  page->raw("</details>\n");
}

std::string range_text(const Interval& interval) {
  return interval.high - interval.low < 5e-4
             ? short_number(interval.low)
             : short_number(interval.low) + " to " + short_number(interval.high);
}

void add_agreement(Page* page, const StudyResults& results) {
  if (results.agreement.empty()) {
    return;
  }
  page->element("h3", "", "Samples beside exact probabilities");
  page->begin_table({"setting", "#likeliest text, exact", "#runs that gave it", "#95 % interval",
                     "do they agree"});
  for (const ExactAgreement& one : results.agreement) {
    page->row({setting_label(results, results.settings[one.setting]), short_number(one.exact),
               fmt::format("{} of {}", one.hits, one.runs), range_text(one.sampled),
               one.agrees() ? "yes" : "no"});
  }
  page->end_table();
}

void add_exact(Page* page, const StudyResults& results) {
  for (const ExactFigures& exact : results.extras.exact) {
    page->element("h3", "", "Every text that is possible: " + exact.setting_name);
    page->element(
        "p", "",
        fmt::format("{} texts hold {:.4f} of the probability; two runs give the same text "
                    "with probability {}. {} prefixes went through the model.",
                    exact.texts, exact.mass, range_text(exact.same_text), exact.nodes));
    page->begin_table({"#runs", "#different texts to be expected"});
    for (const auto& [runs, distinct] : exact.expected_distinct) {
      page->row({fmt::format("{}", runs), range_text(distinct)});
    }
    page->end_table();
    page->begin_table({"#probability", "text"});
    for (const ExactFigures::Text& text : exact.likeliest) {
      page->row({short_number(text.probability), text.text});
    }
    page->end_table();
  }
}

void add_beams_and_tokens(Page* page, const StudyResults& results) {
  for (const SettingFigures& setting : results.settings) {
    const std::string label = setting_label(results, setting);
    if (setting.beams) {
      page->chart("Beams: " + label, beam_chart(*setting.beams, label));
      page->element("p", "dim", "Ended because: " + setting.beams->stopped_because);
      page->begin_table({"#score", "text"});
      for (const BeamFigures::Hypothesis& one : setting.beams->hypotheses) {
        page->row({short_number(one.score), one.text});
      }
      page->end_table();
    }
  }
  for (const MeasureKind kind : results.plan.measures) {
    for (const SettingFigures& setting : results.settings) {
      if (kind == MeasureKind::kNextToken) {
        const std::string label = setting_label(results, setting);
        page->chart("Next token: " + label, next_token_chart(setting, label));
      }
    }
    if (kind == MeasureKind::kHashes) {
      page->element("h3", "", "Hash of the logits of all steps");
      page->begin_table({"setting", "#run", "hash"});
      for (const SettingFigures& setting : results.settings) {
        for (size_t i = 0; i < setting.hashes.size(); ++i) {
          page->row({setting_label(results, setting), fmt::format("{}", i + 1),
                     fmt::format("{:016x}", setting.hashes[i])});
        }
      }
      page->end_table();
    }
  }
}

std::string_view doubt_class(double probability) {
  if (!std::isfinite(probability)) {
    return "p0";
  }
  return probability >= 0.9   ? "p0"
         : probability >= 0.6 ? "p1"
         : probability >= 0.3 ? "p2"
         : probability >= 0.1 ? "p3"
                              : "p4";
}

void add_texts(Page* page, const std::vector<ReportText>& texts) {
  if (texts.empty()) {
    return;
  }
  page->element("h3", "", "Texts, coloured by doubt");
  page->raw(
      "<p class=\"dim tokens\">probability of the token: <span class=\"p1\">0.6 to 0.9</span> "
      "<span class=\"p2\">0.3 to 0.6</span> <span class=\"p3\">0.1 to 0.3</span> "
      "<span class=\"p4\">below 0.1</span> <span class=\"part\">where runs part</span></p>\n");
  for (const ReportText& text : texts) {
    page->element("p", "dim", text.label);
    page->raw("<div class=\"box tokens\">");
    for (const ReportText::Token& token : text.tokens) {
      page->raw(fmt::format("<span class=\"{}{}\" title=\"probability {}, entropy {}\">{}</span>",
                            doubt_class(token.probability), token.is_divergence ? " part" : "",
                            short_number(token.probability), short_number(token.entropy),
                            escape_markup(token.text)));
    }
    page->raw("</div>\n");
  }
}

void add_cost(Page* page, const StudyResults& results) {
  const StudyTotals& totals = results.study.totals;
  const RunOrigin& origin = results.study.origin;
  page->element("h3", "", "Cost, and how to do it again");
  page->begin_table({"what", "value"});
  page->row({"runs stored", fmt::format("{}", results.study.n_runs)});
  page->row({"tokens asked for", fmt::format("{} of prompts, {} new", totals.prompt_tokens_asked,
                                             totals.new_tokens_asked)});
  page->row({"distinct tokens computed",
             fmt::format("{} of prompts, {} new", totals.prefill_tokens, totals.decode_rows)});
  const int64_t asked = totals.prompt_tokens_asked + totals.new_tokens_asked;
  if (asked > 0) {
    page->row({"computed / asked", fmt::format("{:.3f}", computed_share(totals))});
  }
  page->row({"time", fmt::format("{:.2f} s", totals.seconds)});
  if (totals.seconds > 0) {
    page->row(
        {"new tokens a second, all runs together",
         fmt::format("{:.1f}", static_cast<double>(totals.new_tokens_asked) / totals.seconds)});
  }
  page->row({"peak memory",
             fmt::format("{:.0f} MiB", static_cast<double>(totals.peak_memory_bytes) / 1048576)});
  page->row({"made", results.study.created + ", " + results.study.status});
  page->row({"model", origin.model + " (" + origin.model_hash + ")"});
  page->row(
      {"machine", fmt::format("{}, {}, {} threads", origin.device, origin.isa, origin.threads)});
  page->row({"build", origin.build});
  page->row({"command", origin.command});
  page->end_table();
  page->raw("<details><summary>Study file</summary>");
  page->element("pre", "", results.study.source);
  page->raw("</details>\n");
}

void add_study(Page* page, const StudyResults& results, const std::vector<ReportText>& texts,
               size_t number, bool is_part) {
  const Study& plan = results.plan;
  if (is_part) {
    page->raw(fmt::format("<h2 id=\"study-{}\">{}</h2>\n", number,
                          escape_markup(plan.title.empty() ? plan.name : plan.title)));
  }
  page->element("p", "", plan.question);
  page->element("p", "answer", results.headline);
  for (const std::string& warning : results.warnings) {
    page->element("p", "warn", warning);
  }
  page->list("What the figures say", results.findings);
  if (!plan.expectation.empty()) {
    page->element("p", "", "Expected before the run: " + plan.expectation);
  }
  const std::string& reading = results.study.reading.empty() ? plan.reading : results.study.reading;
  if (!reading.empty()) {
    page->element("p", "", "Read afterwards: " + reading);
  }
  page->element("p", "dim", plan.notes);
  add_settings(page, results);
  page->chart("Different texts per setting", uniqueness_chart(results));
  page->chart("Likeness of texts", similarity_chart(results));
  add_pairs(page, results);
  add_thinking(page, results);
  add_stops(page, results);
  add_penalties(page, results);
  add_survivors(page, results);
  page->chart("Entropy by step", entropy_chart(results));
  add_divergences(page, results);
  add_agreement(page, results);
  add_exact(page, results);
  add_beams_and_tokens(page, results);
  if (results.extras.cache) {
    page->chart("Cost of a step", cache_chart(*results.extras.cache));
  }
  add_texts(page, texts);
  add_cost(page, results);
}

// What holds for the course: its question, what was expected, and what all of it cost.
void add_course(Page* page, const Report& report) {
  page->element("p", "", report.course.question);
  if (!report.course.expectation.empty()) {
    page->element("p", "", "Expected before the run: " + report.course.expectation);
  }
  if (!report.course.reading.empty()) {
    page->element("p", "", "Read afterwards: " + report.course.reading);
  }
  page->element("p", "dim", report.course.notes);
  page->element("p", "dim", cost_text(report));
}

}  // namespace

std::string to_html(const Report& report) {
  Page page;
  page.raw(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
  page.raw(escape_markup(report.title));
  page.raw("</title>\n<style>");
  page.raw(kReportStyle);
  page.raw("</style></head>\n<body><main>\n");
  page.element("h1", "", report.title);
  const bool is_course = report.studies.size() > 1;
  if (is_course) {
    add_course(&page, report);
    page.raw("<nav aria-label=\"Contents\"><ol>\n");
    for (size_t i = 0; i < report.studies.size(); ++i) {
      const StudyResults& one = report.studies[i];
      page.raw(
          fmt::format("<li><a href=\"#study-{}\">{}</a><br>{}</li>\n", i + 1,
                      escape_markup(one.plan.question.empty() ? one.plan.name : one.plan.question),
                      escape_markup(one.headline)));
    }
    page.raw("</ol></nav>\n");
  }
  const std::vector<ReportText> none;
  for (size_t i = 0; i < report.studies.size(); ++i) {
    add_study(&page, report.studies[i], i < report.texts.size() ? report.texts[i] : none, i + 1,
              is_course);
  }
  page.raw("</main></body></html>\n");
  return page.take();
}

}  // namespace logitlab
