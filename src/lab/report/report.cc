#include "lab/report/report.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "lab/report/charts.h"
#include "lab/study/stored_study.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

// The step at which the run parts from the one that it was compared with; -1: none.
int64_t parting_step(const StudyResults& results, int64_t run) {
  for (const DivergenceFigures& one : results.divergences) {
    if ((one.first_run == run || one.second_run == run) &&
        one.divergence.cause != DivergenceCause::kNone) {
      return one.divergence.step;
    }
  }
  return -1;
}

Result<ReportText> text_of(Store* store, const StudyResults& results,
                           const SettingFigures& setting) {
  ReportText text;
  text.label = setting_label(results, setting) + " #1";
  ASSIGN_OR_RETURN(const RunRecord run, store->run(setting.run_ids.front()));
  TraceMemory trace;
  if (!run.trace.empty()) {
    RETURN_IF_ERROR(parse_trace(run.trace, fmt::format("run {}", run.id), &trace));
  }
  if (trace.ended().sequences.empty()) {
    text.tokens.push_back({run.text, kNoNumber, kNoNumber, false});
    return text;
  }
  const auto& pieces = trace.ended().pieces;
  const int64_t parting = parting_step(results, run.id);
  for (const TokenId id : run.ids) {
    const auto known = std::find_if(pieces.begin(), pieces.end(),
                                    [id](const auto& piece) { return piece.first == id; });
    ReportText::Token token;
    token.text = known == pieces.end() ? fmt::format("#{}", id) : known->second;
    token.probability = kNoNumber;
    token.entropy = kNoNumber;
    token.is_divergence = static_cast<int64_t>(text.tokens.size()) == parting;
    text.tokens.push_back(std::move(token));
  }
  for (const TracedStep& step : trace.steps()) {
    const auto at = static_cast<size_t>(step.step);
    if (step.sequence == 0 && at < text.tokens.size()) {
      text.tokens[at].probability = step.probability;
      text.tokens[at].entropy = step.entropy;
    }
  }
  return text;
}

}  // namespace

std::string cost_text(const Report& report) {
  StudyTotals totals;
  for (const StudyResults& one : report.studies) {
    add(&totals, one.study.totals);
  }
  return fmt::format(
      "{} tokens were asked for and {} went through the model, {:.2f} of them: what runs have in "
      "common is computed once. All studies together took {:.1f} s.",
      totals.prompt_tokens_asked + totals.new_tokens_asked,
      totals.prefill_tokens + totals.decode_rows, computed_share(totals), totals.seconds);
}

Result<Report> make_report(Store* store, int64_t study, std::vector<StudyResults> studies) {
  Report report;
  ASSIGN_OR_RETURN(const StudyRecord record, store->study(study));
  ASSIGN_OR_RETURN(Study plan, plan_of(record));
  report.title = plan.title.empty() ? record.name : plan.title;
  if (plan.is_course()) {
    report.course = std::move(plan);
    if (!record.reading.empty()) {
      report.course.reading = record.reading;
    }
  }
  report.studies = std::move(studies);
  for (const StudyResults& results : report.studies) {
    std::vector<ReportText>& texts = report.texts.emplace_back();
    for (const SettingFigures& setting : results.settings) {
      if (texts.size() < kReportTexts && !setting.run_ids.empty()) {
        ASSIGN_OR_RETURN(texts.emplace_back(), text_of(store, results, setting));
      }
    }
  }
  return report;
}

}  // namespace logitlab
