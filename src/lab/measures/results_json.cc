// The figures of a study as JSON.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "lab/measures/study_results.h"

namespace logitlab {
namespace {

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json json_of(const Interval& interval) {
  return Json::array({interval.low, interval.high});
}

Json json_of(const SampleSummary& summary) {
  Json out = Json::object();
  out["pairs"] = summary.n;
  out["minimum"] = number(summary.minimum);
  out["mean"] = number(summary.mean);
  out["maximum"] = number(summary.maximum);
  out["interval"] = summary.interval ? json_of(*summary.interval) : Json();
  out["published"] = summary.published ? Json(*summary.published) : Json();
  return out;
}

Json json_of(const NumberSummary& summary) {
  return {{"n", summary.n},
          {"minimum", summary.minimum},
          {"mean", summary.mean},
          {"median", summary.median},
          {"maximum", summary.maximum}};
}

Json numbers(const std::vector<double>& values) {
  Json out = Json::array();
  for (const double value : values) {
    out.push_back(number(value));
  }
  return out;
}

Json json_of(const BeamFigures& beams) {
  Json out = Json::object();
  out["stopped_because"] = beams.stopped_because;
  out["hypotheses"] = Json::array();
  for (const BeamFigures::Hypothesis& one : beams.hypotheses) {
    out["hypotheses"].push_back({{"score", number(one.score)},
                                 {"text", one.text},
                                 {"ids", one.ids},
                                 {"beam_indices", one.beam_indices}});
  }
  return out;
}

Json json_of(const SettingFigures& setting) {
  Json out = Json::object();
  out["prompt"] = setting.prompt_name;
  out["setting"] = setting.name;
  out["control"] = setting.is_control;
  out["runs"] = setting.runs;
  out["run_ids"] = setting.run_ids;
  out["unique_ids"] = setting.unique_ids;
  out["unique_texts"] = setting.unique_texts;
  out["within"] = setting.within ? json_of(*setting.within) : Json();
  out["lengths"] = json_of(setting.lengths);
  out["stop_reasons"] = Json::object();
  for (const auto& [reason, count] : setting.stop_reasons) {
    out["stop_reasons"][reason] = count;
  }
  out["stop_ids"] = Json::array();
  for (const StopFigures& stop : setting.stop_ids) {
    out["stop_ids"].push_back(
        {{"id", stop.id}, {"text", stop.piece}, {"origin", stop.origin}, {"runs", stop.runs}});
  }
  out["idle_settings"] = setting.idle_settings;
  out["said_before"] = json_of(setting.said_before);
  out["pairs_before"] = json_of(setting.pairs_before);
  out["overruled_steps"] = setting.overruled_steps;
  out["log_probability"] = number(setting.log_probability);
  out["truncated"] = setting.truncated;
  out["thinking_tokens"] = json_of(setting.thinking_tokens);
  out["answer_tokens"] = json_of(setting.answer_tokens);
  out["cut_in_thinking"] = setting.thinking_cut;
  out["stages"] = Json::array();
  for (const StageSurvivors& stage : setting.stages) {
    out["stages"].push_back({{"name", stage.name},
                             {"survivors", json_of(stage.survivors)},
                             {"share_above_one", stage.share_above_one},
                             {"mean_mass", stage.mean_mass},
                             {"mean_removed", stage.mean_removed},
                             {"mean_changed", number(stage.mean_changed)},
                             {"mean_changed_in_prompt", number(stage.mean_changed_in_prompt)},
                             {"mean_changed_in_answer", number(stage.mean_changed_in_answer)},
                             {"by_step", numbers(stage.by_step)}});
  }
  out["entropy_by_step"] = numbers(setting.entropy_by_step);
  out["raw_entropy_by_step"] = numbers(setting.raw_entropy_by_step);
  out["tied_steps"] = setting.tied_steps;
  out["next_tokens"] = Json::array();
  for (const NextToken& token : setting.next_tokens) {
    out["next_tokens"].push_back({{"id", token.id},
                                  {"text", token.piece},
                                  {"raw_probability", number(token.raw_probability)},
                                  {"probability", number(token.probability)}});
  }
  out["hashes"] = Json::array();
  for (const uint64_t hash : setting.hashes) {
    out["hashes"].push_back(fmt::format("{:016x}", hash));
  }
  out["beams"] = setting.beams ? json_of(*setting.beams) : Json();
  out["first_text"] = setting.sample_text;
  return out;
}

Json json_of(const PairFigures& pair, const StudyResults& results) {
  Json out = Json::object();
  out["first"] = results.settings[pair.first].name;
  out["second"] = results.settings[pair.second].name;
  out["prompt"] = results.settings[pair.first].prompt_name;
  out["adjacent"] = pair.is_adjacent;
  out["between"] = json_of(pair.between);
  out["difference"] = number(pair.test.difference);
  out["p_value"] = pair.test.p_value;
  out["smallest_p"] = pair.test.smallest_p;
  out["relabelings"] = pair.test.relabelings;
  out["exact_test"] = pair.test.is_exact;
  out["runs_to_settle"] = pair.runs_to_settle ? Json(*pair.runs_to_settle) : Json();
  out["equal_texts"] = pair.equal_texts;
  return out;
}

Json json_of(const DivergenceFigures& figures) {
  const Divergence& one = figures.divergence;
  return {{"first_run", figures.first_run},
          {"second_run", figures.second_run},
          {"first", figures.first_name},
          {"second", figures.second_name},
          {"cause", std::string(name(one.cause))},
          {"step", one.step},
          {"verdict", one.verdict},
          {"gap", number(one.gap)},
          {"gap_ulps", number(one.gap_ulps)},
          {"changed_settings", one.changed_settings}};
}

Json json_of(const StudyTotals& totals) {
  return {{"prompt_tokens_asked", totals.prompt_tokens_asked},
          {"new_tokens_asked", totals.new_tokens_asked},
          {"prefill_tokens", totals.prefill_tokens},
          {"decode_rows", totals.decode_rows},
          {"replayed_rows", totals.replayed_rows},
          {"forward_passes", totals.forward_passes},
          {"peak_state_bytes", totals.peak_state_bytes},
          {"peak_memory_bytes", totals.peak_memory_bytes},
          {"prefill_seconds", totals.prefill_seconds},
          {"seconds", totals.seconds},
          {"computed_share", number(computed_share(totals))}};
}

}  // namespace

void add(StudyTotals* sum, const StudyTotals& part) {
  sum->prompt_tokens_asked += part.prompt_tokens_asked;
  sum->new_tokens_asked += part.new_tokens_asked;
  sum->prefill_tokens += part.prefill_tokens;
  sum->decode_rows += part.decode_rows;
  sum->replayed_rows += part.replayed_rows;
  sum->forward_passes += part.forward_passes;
  sum->peak_state_bytes = std::max(sum->peak_state_bytes, part.peak_state_bytes);
  sum->peak_memory_bytes = std::max(sum->peak_memory_bytes, part.peak_memory_bytes);
  sum->prefill_seconds += part.prefill_seconds;
  sum->seconds += part.seconds;
}

double computed_share(const StudyTotals& totals) {
  const int64_t asked = totals.prompt_tokens_asked + totals.new_tokens_asked;
  return asked == 0 ? 1.0
                    : static_cast<double>(totals.prefill_tokens + totals.decode_rows) /
                          static_cast<double>(asked);
}

std::string to_json_text(const StudyResults& results) {
  Json out = Json::object();
  out["id"] = results.study.id;
  out["name"] = results.study.name;
  out["question"] = results.plan.question;
  out["expectation"] = results.plan.expectation;
  out["reading"] = results.study.reading.empty() ? results.plan.reading : results.study.reading;
  out["status"] = results.study.status;
  out["created"] = results.study.created;
  out["answer"] = results.headline;
  out["findings"] = results.findings;
  out["warnings"] = results.warnings;
  out["totals"] = json_of(results.study.totals);
  const RunOrigin& origin = results.study.origin;
  out["origin"] = {{"model", origin.model},    {"model_hash", origin.model_hash},
                   {"device", origin.device},  {"isa", origin.isa},
                   {"build", origin.build},    {"command", origin.command},
                   {"threads", origin.threads}};
  out["settings"] = Json::array();
  for (const SettingFigures& setting : results.settings) {
    out["settings"].push_back(json_of(setting));
  }
  out["pairs"] = Json::array();
  for (const PairFigures& pair : results.pairs) {
    out["pairs"].push_back(json_of(pair, results));
  }
  out["divergences"] = Json::array();
  for (const DivergenceFigures& figures : results.divergences) {
    out["divergences"].push_back(json_of(figures));
  }
  out["exact_agreement"] = Json::array();
  for (const ExactAgreement& one : results.agreement) {
    out["exact_agreement"].push_back({{"setting", results.settings[one.setting].name},
                                      {"prompt", results.settings[one.setting].prompt_name},
                                      {"runs", one.runs},
                                      {"hits", one.hits},
                                      {"sampled", json_of(one.sampled)},
                                      {"exact", one.exact},
                                      {"agrees", one.agrees()}});
  }
  const auto extras = parse_json(to_json_text(results.extras), "extras");
  out["extras"] = extras ? *extras : Json();
  return dump_json(out);
}

}  // namespace logitlab
