// Every record of a trace with the names of its fields, said once: the writer, the reader and the
// test of docs/trace.schema.json all walk this list. A visitor has field(name, member&).
#pragma once

#include <string_view>
#include <type_traits>
#include <utility>

#include "logitlab/trace.h"

namespace logitlab {

inline constexpr std::string_view kTraceSchema = "logitlab.trace/1";
inline constexpr std::string_view kRunRecord = "run";
inline constexpr std::string_view kStepRecord = "step";
inline constexpr std::string_view kBeamStepRecord = "beam_step";
inline constexpr std::string_view kEndRecord = "end";

// Members whose text in JSON is not that of their type.
template <typename Text>
struct JsonText {  // a JSON document, kept as text
  Text& text;
};
template <typename Number>
struct HexNumber {  // 16 hexadecimal digits: JSON readers round large numbers
  Number& value;
};
template <typename Pieces>
struct PieceList {  // [[id, text], ...]
  Pieces& pieces;
};
template <typename Text>
JsonText(Text&) -> JsonText<Text>;
template <typename Number>
HexNumber(Number&) -> HexNumber<Number>;
template <typename Pieces>
PieceList(Pieces&) -> PieceList<Pieces>;

template <typename Visitor, typename T>
void visit_entry(Visitor& v, T& entry) {
  v.field("name", entry.name);
  v.field("value", entry.value);
  v.field("origin", entry.origin);
  v.field("acts", entry.acts);
  v.field("why", entry.why);
}

template <typename Visitor, typename T>
void visit_stop_id(Visitor& v, T& stop) {
  v.field("id", stop.id);
  v.field("origin", stop.origin);
}

template <typename Visitor, typename T>
void visit_run(Visitor& v, T& run) {
  v.field("model", run.model);
  v.field("model_hash", run.model_hash);
  v.field("device", run.device);
  v.field("isa", run.isa);
  v.field("build", run.build);
  v.field("config", JsonText{run.config_json});
  v.field("ledger", run.ledger);
  v.field("stop_ids", run.stop_ids);
  v.field("warnings", run.warnings);
  v.field("seed", run.seed);
  v.field("vocab_size", run.vocab_size);
  v.field("n_candidates", run.n_candidates);
  v.field("prompts", run.prompts);
  v.field("sequence_prompts", run.sequence_prompts);
  v.field("think_open", run.think_open);
  v.field("think_close", run.think_close);
}

template <typename Visitor, typename T>
void visit_candidate(Visitor& v, T& candidate) {
  v.field("id", candidate.id);
  v.field("logit", candidate.logit);
  v.field("score", candidate.score);
  v.field("raw_probability", candidate.raw_probability);
  v.field("probability", candidate.probability);
  v.field("dropped_by", candidate.dropped_by);
  v.field("in_prompt", candidate.in_prompt);
  v.field("in_answer", candidate.in_answer);
}

template <typename Visitor, typename T>
void visit_stage(Visitor& v, T& stage) {
  v.field("name", stage.name);
  v.field("survivors", stage.survivors);
  v.field("mass", stage.mass);
  v.field("measure", stage.measure);
  v.field("threshold", stage.threshold);
  v.field("cut_score", stage.cut_score);
  v.field("tied_kept", stage.tied_kept);
  v.field("tied_dropped", stage.tied_dropped);
  v.field("changed", stage.changed);
  v.field("changed_in_prompt", stage.changed_in_prompt);
  v.field("changed_in_answer", stage.changed_in_answer);
}

template <typename Visitor, typename T>
void visit_step(Visitor& v, T& step) {
  v.field("sequence", step.sequence);
  v.field("step", step.step);
  v.field("id", step.id);
  v.field("logit", step.logit);
  v.field("score", step.score);
  v.field("raw_probability", step.raw_probability);
  v.field("probability", step.probability);
  v.field("raw_rank", step.raw_rank);
  v.field("rank", step.rank);
  v.field("raw_entropy", step.raw_entropy);
  v.field("entropy", step.entropy);
  v.field("log_sum_exp", step.log_sum_exp);
  v.field("tail_log_sum_exp", step.tail_log_sum_exp);
  v.field("largest_logit", step.largest_logit);
  v.field("tied_at_max", step.tied_at_max);
  v.field("n_tied_at_max", step.n_tied_at_max);
  v.field("draw", step.draw);
  v.field("draw_key", step.draw_key);
  v.field("draw_margin", step.draw_margin);
  v.field("draw_runner_up", step.draw_runner_up);
  v.field("logits_hash", HexNumber{step.logits_hash});
  v.field("is_thinking", step.is_thinking);
  v.field("stages", step.stages);
  v.field("candidates", step.candidates);
  v.field("logits", step.logits);
}

template <typename Visitor, typename T>
void visit_beam(Visitor& v, T& beam) {
  v.field("id", beam.id);
  v.field("parent", beam.parent);
  v.field("score", beam.score);
}

template <typename Visitor, typename T>
void visit_beam_step(Visitor& v, T& step) {
  v.field("prompt", step.prompt);
  v.field("step", step.step);
  v.field("candidates", step.candidates);
  v.field("candidate_stops", step.candidate_stops);
  v.field("running", step.running);
  v.field("finished", step.finished);
  v.field("improvable", step.improvable);
}

template <typename Visitor, typename T>
void visit_sequence(Visitor& v, T& sequence) {
  v.field("sequence", sequence.sequence);
  v.field("prompt", sequence.prompt);
  v.field("ids", sequence.ids);
  v.field("stop_reason", sequence.stop_reason);
  v.field("stop_id", sequence.stop_id);
  v.field("stop_string", sequence.stop_string);
  v.field("thinking_tokens", sequence.thinking_tokens);
  v.field("answer_tokens", sequence.answer_tokens);
  v.field("beam_score", sequence.beam_score);
  v.field("beam_indices", sequence.beam_indices);
}

template <typename Visitor, typename T>
void visit_end(Visitor& v, T& end) {
  v.field("sequences", end.sequences);
  v.field("beam_stop", end.beam_stop);
  v.field("seconds", end.seconds);
  v.field("pieces", PieceList{end.pieces});
}

// The list of a struct, by its type; `T` may be const.
template <typename Visitor, typename T>
void visit_fields(Visitor& v, T& record) {
  using Record = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Record, LedgerEntry>) {
    visit_entry(v, record);
  } else if constexpr (std::is_same_v<Record, TracedStopId>) {
    visit_stop_id(v, record);
  } else if constexpr (std::is_same_v<Record, RunTrace>) {
    visit_run(v, record);
  } else if constexpr (std::is_same_v<Record, TracedCandidate>) {
    visit_candidate(v, record);
  } else if constexpr (std::is_same_v<Record, TracedStage>) {
    visit_stage(v, record);
  } else if constexpr (std::is_same_v<Record, TracedStep>) {
    visit_step(v, record);
  } else if constexpr (std::is_same_v<Record, TracedBeam>) {
    visit_beam(v, record);
  } else if constexpr (std::is_same_v<Record, TracedBeamStep>) {
    visit_beam_step(v, record);
  } else if constexpr (std::is_same_v<Record, TracedSequence>) {
    visit_sequence(v, record);
  } else {
    static_assert(std::is_same_v<Record, RunEnd>);
    visit_end(v, record);
  }
}

}  // namespace logitlab
