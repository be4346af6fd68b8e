#include "lab/whatif.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <span>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "lab/step_rerun.h"
#include "sampling/field_values.h"
#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"

namespace logitlab {
namespace {

LogitsDtype dtype_of(const GenerationConfig& config) {
  return config.logits_dtype.value_or(LogitsDtype::kFloat32);
}

Status check_guidance_and_beams(const GenerationConfig& config, std::string_view whose) {
  if (config.num_beams.value_or(1) != 1) {
    return fail(ErrorCode::kInvalidArgument,
                "num_beams: {} found in {}, want 1: beam search goes on from every beam, and a "
                "trace holds the logits of one continuation; generate anew instead",
                *config.num_beams, whose);
  }
  if (config.guidance_scale.value_or(1) != 1) {
    return fail(ErrorCode::kInvalidArgument,
                "guidance_scale: {} found in {}, want 1: guidance needs a second forward of the "
                "model; generate anew instead",
                *config.guidance_scale, whose);
  }
  return {};
}

Status check_question(const GenerationConfig& run, const GenerationConfig& other) {
  RETURN_IF_ERROR(check_guidance_and_beams(run, "the run"));
  RETURN_IF_ERROR(check_guidance_and_beams(other, "the settings"));
  if (dtype_of(run) != dtype_of(other) && dtype_of(run) != LogitsDtype::kFloat32) {
    return fail(ErrorCode::kInvalidArgument,
                "logits_dtype: {} found, and the run rounded its logits to {}: what the rounding "
                "took is not in the trace; record a run with --logits-dtype float32",
                name(dtype_of(other)), name(dtype_of(run)));
  }
  return {};
}

// One sequence of the run: its processors, its ids so far.
struct Replay {
  ProcessorChain chain;
  std::optional<ProcessorChain> old_chain;  // with full rows
  std::vector<TokenId> ids;
  int64_t prompt_length = 0;
  bool has_changed = false;
};

class Question {
 public:
  Question(const TraceMemory& trace, const GenerationConfig& run, const EffectiveConfig& other)
      : trace_(trace), run_(run), other_(other.config) {}

  [[nodiscard]] Result<WhatIf> answer();

 private:
  [[nodiscard]] Result<Replay> start(int64_t sequence) const;
  [[nodiscard]] Result<ProcessorChain> chain(const GenerationConfig& config,
                                             int64_t prompt_length) const;
  [[nodiscard]] Status check_draw(const TracedStep& step) const;
  [[nodiscard]] Status ask(const TracedStep& step, Replay* replay);
  void judge(const TracedStep& step, const RerunChoice& choice, WhatIfStep* out) const;
  void add_probabilities(const TracedStep& step, const RerunChoice& choice,
                         const std::vector<double>& old, double old_rest, WhatIfStep* out) const;
  [[nodiscard]] Result<double> old_probabilities(const TracedStep& step, const SequenceView& view,
                                                 Replay* replay, const RerunChoice& choice,
                                                 std::vector<double>* out) const;
  [[nodiscard]] std::string reason(const TracedStep& step, const RerunChoice& choice) const;
  [[nodiscard]] RerunInput input_of(const TracedStep& step, const SequenceView& view,
                                    const GenerationConfig& config) const;
  void note_end(const TracedStep& step);
  void add_notes();
  void add_remedy();

  const TraceMemory& trace_;
  const GenerationConfig& run_;
  const GenerationConfig& other_;
  WhatIf answer_;
  std::map<int64_t, int64_t> ends_;  // sequence -> step at which the other settings end it
};

Result<ProcessorChain> Question::chain(const GenerationConfig& config,
                                       int64_t prompt_length) const {
  ChainOptions options;
  options.vocab_size = trace_.run().vocab_size;
  options.prompt_length = prompt_length;
  if (config.max_new_tokens) {
    options.max_length = prompt_length + *config.max_new_tokens;
  } else if (config.max_length) {
    options.max_length = *config.max_length;
  }
  if (trace_.run().think_close >= 0) {
    options.thinking = ThinkingIds{trace_.run().think_open, trace_.run().think_close};
  }
  return build_chain(config, options);
}

Result<Replay> Question::start(int64_t sequence) const {
  const RunTrace& run = trace_.run();
  const auto index = static_cast<size_t>(sequence);
  if (sequence < 0 || index >= run.sequence_prompts.size()) {
    return fail(ErrorCode::kDataLoss, "trace: a step of sequence {} found, want one of {}",
                sequence, run.sequence_prompts.size());
  }
  const auto prompt = static_cast<size_t>(run.sequence_prompts[index]);
  if (prompt >= run.prompts.size()) {
    return fail(ErrorCode::kDataLoss, "trace: prompt {} found for sequence {}, want one of {}",
                prompt, sequence, run.prompts.size());
  }
  Replay replay;
  replay.ids = run.prompts[prompt];
  replay.prompt_length = static_cast<int64_t>(replay.ids.size());
  ASSIGN_OR_RETURN(replay.chain, chain(other_, replay.prompt_length));
  ASSIGN_OR_RETURN(replay.old_chain, chain(run_, replay.prompt_length));
  return replay;
}

Status Question::check_draw(const TracedStep& step) const {
  if (std::isnan(step.draw)) {
    return {};
  }
  const double replayed = draw_exponential({.seed = run_.seed.value_or(0),
                                            .sequence_index = static_cast<uint32_t>(step.sequence),
                                            .step = static_cast<uint32_t>(step.step)},
                                           step.id);
  if (std::abs(replayed - step.draw) > 1e-9 * std::max(1.0, replayed)) {
    return fail(ErrorCode::kDataLoss,
                "trace: sequence {}, step {}: draw {} of token {} found, want {}, which seed {} "
                "gives; the file was changed or comes from another build",
                step.sequence, step.step, step.draw, step.id, replayed, run_.seed.value_or(0));
  }
  return {};
}

RerunInput Question::input_of(const TracedStep& step, const SequenceView& view,
                              const GenerationConfig& config) const {
  RerunInput input;
  input.step = &step;
  input.vocab_size = trace_.run().vocab_size;
  input.n_candidates = trace_.run().n_candidates;
  input.sequence = view;
  input.config = &config;
  input.rounding = dtype_of(config) == dtype_of(run_) ? LogitsDtype::kFloat32 : dtype_of(config);
  if (config.do_sample.value_or(false)) {
    input.draw = Draw{.seed = config.seed.value_or(0),
                      .sequence_index = static_cast<uint32_t>(step.sequence),
                      .step = static_cast<uint32_t>(step.step)};
  }
  return input;
}

std::string Question::reason(const TracedStep& step, const RerunChoice& choice) const {
  for (const RerunToken& token : choice.tokens) {
    if (token.id == step.id && !token.is_alive) {
      return fmt::format("{} drops the old token", token.dropped_by);
    }
  }
  if (!other_.do_sample.value_or(false)) {
    return fmt::format("greedy decoding takes the best token; the old one had rank {}",
                       step.raw_rank);
  }
  for (const TracedCandidate& candidate : step.candidates) {
    if (choice.id && candidate.id == *choice.id && candidate.dropped_by >= 0 &&
        static_cast<size_t>(candidate.dropped_by) < step.stages.size()) {
      return fmt::format(
          "{} had dropped the new token in the run; here it stays, and its draw wins",
          step.stages[static_cast<size_t>(candidate.dropped_by)].name);
    }
  }
  if (!run_.do_sample.value_or(false)) {
    return "the run was greedy; the draw takes another token";
  }
  if (run_.seed.value_or(0) != other_.seed.value_or(0)) {
    return "another seed, another draw";
  }
  return fmt::format("with the same draw the moved scores put the new token ahead by {:.3g}",
                     choice.margin);
}

void Question::judge(const TracedStep& step, const RerunChoice& choice, WhatIfStep* out) const {
  out->new_id = choice.id;
  if (!choice.id) {
    out->verdict = Verdict::kUndecided;
    out->why = choice.open_reason;
  } else if (*choice.id != step.id) {
    out->verdict = Verdict::kDiffers;
    out->why = reason(step, choice);
  }
}

// Of choice.tokens, in their order; the value is what is left for all other tokens.
Result<double> Question::old_probabilities(const TracedStep& step, const SequenceView& view,
                                           Replay* replay, const RerunChoice& choice,
                                           std::vector<double>* out) const {
  out->assign(choice.tokens.size(), 0);
  if (!run_.do_sample.value_or(false)) {
    for (size_t i = 0; i < choice.tokens.size(); ++i) {
      (*out)[i] = choice.tokens[i].id == step.id ? 1 : 0;
    }
    return 0;
  }
  if (!step.logits.empty()) {
    ASSIGN_OR_RETURN(const RerunChoice old,
                     rerun_step(input_of(step, view, run_), &*replay->old_chain));
    if (old.id != step.id) {
      return fail(ErrorCode::kDataLoss,
                  "trace: sequence {}, step {}: token {} found, and its logits, settings and seed "
                  "give {}; the file was changed or comes from another build",
                  step.sequence, step.step, step.id, old.id.value_or(-1));
    }
    for (size_t i = 0; i < old.tokens.size(); ++i) {
      (*out)[i] = old.tokens[i].is_alive ? std::exp(old.tokens[i].score - step.score) : 0;
    }
    return 0;
  }
  double seen = 0;
  int64_t n_survivors = 0;
  for (const TracedCandidate& candidate : step.candidates) {
    const auto found =
        std::find_if(choice.tokens.begin(), choice.tokens.end(),
                     [&](const RerunToken& token) { return token.id == candidate.id; });
    (*out)[static_cast<size_t>(found - choice.tokens.begin())] = candidate.probability;
    seen += candidate.probability;
    n_survivors += candidate.dropped_by < 0 ? 1 : 0;
  }
  const int64_t all = step.stages.empty() ? trace_.run().vocab_size : step.stages.back().survivors;
  return all <= n_survivors ? 0 : std::max(0.0, 1 - seen);
}

void Question::add_probabilities(const TracedStep& step, const RerunChoice& choice,
                                 const std::vector<double>& old, double old_rest,
                                 WhatIfStep* out) const {
  double largest = choice.unseen.are_alive ? choice.unseen.top : step.score;
  for (const RerunToken& token : choice.tokens) {
    largest = token.is_alive ? std::max(largest, token.score) : largest;
  }
  const bool is_greedy = !other_.do_sample.value_or(false);
  if (is_greedy && !choice.id) {
    out->flip = out->independent_flip = {0, 1};
    return;
  }
  std::vector<CoupledToken> tokens;
  for (size_t i = 0; i < choice.tokens.size(); ++i) {
    const RerunToken& token = choice.tokens[i];
    CoupledToken coupled{.first = old[i]};
    if (is_greedy) {
      coupled.second = token.id == *choice.id ? 1 : 0;
    } else if (token.is_alive) {
      coupled.second = std::exp(token.score - largest);
      coupled.is_sure = token.is_sure;
    }
    tokens.push_back(coupled);
  }
  CoupledRest rest{.first = old_rest};
  if (!is_greedy && choice.unseen.are_alive) {
    rest.second_low = std::exp(choice.unseen.low - largest);
    rest.second_high = std::exp(choice.unseen.high - largest);
  }
  const ChoiceDifference difference = choice_difference(tokens, rest);
  // Nothing can be said where scores could be anything.
  const bool is_blind = choice.unseen.blind && !is_greedy;
  const bool has_other_draws =
      run_.do_sample.value_or(false) && run_.seed.value_or(0) != other_.seed.value_or(0);
  out->independent_flip = is_blind ? Interval{0, 1} : difference.independent;
  out->flip = is_blind          ? Interval{0, 1}
              : has_other_draws ? difference.independent
                                : difference.shared;
}

Status Question::ask(const TracedStep& step, Replay* replay) {
  RETURN_IF_ERROR(check_draw(step));
  const SequenceView view{.ids = replay->ids, .prompt_length = replay->prompt_length};
  WhatIfStep out;
  out.sequence = step.sequence;
  out.step = step.step;
  out.old_id = step.id;
  out.is_hypothetical = replay->has_changed;
  const auto choice = rerun_step(input_of(step, view, other_), &replay->chain);
  if (choice) {
    judge(step, *choice, &out);
    std::vector<double> old;
    ASSIGN_OR_RETURN(const double old_rest, old_probabilities(step, view, replay, *choice, &old));
    add_probabilities(step, *choice, old, old_rest, &out);
  } else {
    out.verdict = Verdict::kUndecided;
    out.why = choice.error().message;
    out.flip = out.independent_flip = {0, 1};
  }
  if (out.verdict != Verdict::kSame && !replay->has_changed) {
    replay->has_changed = true;
    answer_.first_changes.push_back(answer_.steps.size());
  }
  answer_.steps.push_back(std::move(out));
  note_end(step);
  replay->ids.push_back(step.id);
  replay->chain.accept(step.id);
  if (replay->old_chain) {
    replay->old_chain->accept(step.id);
  }
  return {};
}

void Question::note_end(const TracedStep& step) {
  if (ends_.count(step.sequence) > 0) {
    return;
  }
  const auto& stops = other_.eos_token_id;
  const bool is_end = stops && std::find(stops->begin(), stops->end(), step.id) != stops->end();
  const bool is_full = other_.max_new_tokens && step.step + 1 >= *other_.max_new_tokens;
  if (is_end || is_full) {
    ends_[step.sequence] = step.step;
  }
}

void Question::add_notes() {
  for (const TracedSequence& sequence : trace_.ended().sequences) {
    const auto n = static_cast<int64_t>(sequence.ids.size());
    const auto end = ends_.find(sequence.sequence);
    if (end != ends_.end() && end->second + 1 < n) {
      answer_.notes.push_back(
          fmt::format("sequence {}: these settings end it after {} tokens, the run went on to {}",
                      sequence.sequence, end->second + 1, n));
    } else if (end == ends_.end() && sequence.stop_reason != "stop_string" &&
               sequence.stop_reason != "time" && sequence.stop_reason != "cancelled" &&
               other_.max_new_tokens.value_or(n) > n) {
      answer_.notes.push_back(
          fmt::format("sequence {}: the run ended after {} tokens; what these settings would have "
                      "made of more is not in the trace",
                      sequence.sequence, n));
    }
  }
  if (other_.stop_strings && other_.stop_strings != run_.stop_strings) {
    answer_.notes.push_back(
        "stop_strings: where they would have stopped is not asked; the tokens before are");
  }
  if (other_.max_time && other_.max_time != run_.max_time) {
    answer_.notes.push_back("max_time: a trace has no clock; the tokens do not depend on it");
  }
  if (other_.num_return_sequences.value_or(1) >
      static_cast<int64_t>(trace_.run().sequence_prompts.size())) {
    answer_.notes.push_back(fmt::format("num_return_sequences: the trace holds {} of {}",
                                        trace_.run().sequence_prompts.size(),
                                        *other_.num_return_sequences));
  }
}

void Question::add_remedy() {
  const bool is_open =
      std::any_of(answer_.steps.begin(), answer_.steps.end(), [](const WhatIfStep& step) {
        return step.verdict == Verdict::kUndecided || step.flip.high - step.flip.low > 1e-3;
      });
  const bool has_rows = !trace_.steps().empty() && !trace_.steps().front().logits.empty();
  if (!is_open || has_rows) {
    return;
  }
  const int64_t top_k = other_.do_sample.value_or(false) ? other_.top_k.value_or(0) : 0;
  if (top_k > trace_.run().n_candidates && top_k <= 1000) {
    answer_.remedy = fmt::format(
        "a trace with more candidates (--trace-candidates {}) or whole rows (--trace-full)",
        std::min<int64_t>(1000, top_k + top_k / 4 + 1));
  } else {
    answer_.remedy = "a trace with whole rows (--trace-full)";
  }
}

Result<WhatIf> Question::answer() {
  std::map<int64_t, Replay> replays;
  for (const TracedStep& step : trace_.steps()) {
    auto found = replays.find(step.sequence);
    if (found == replays.end()) {
      ASSIGN_OR_RETURN(Replay replay, start(step.sequence));
      found = replays.emplace(step.sequence, std::move(replay)).first;
    }
    RETURN_IF_ERROR(ask(step, &found->second));
  }
  add_notes();
  add_remedy();
  return std::move(answer_);
}

}  // namespace

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kSame:
      return "same";
    case Verdict::kDiffers:
      return "differs";
    case Verdict::kUndecided:
      return "undecided";
  }
  return "";
}

Result<WhatIf> what_if(const TraceMemory& trace, const GenerationConfig& other) {
  ASSIGN_OR_RETURN(const Json json, parse_json(trace.run().config_json, "the trace's settings"));
  ASSIGN_OR_RETURN(const ParsedConfig run,
                   generation_config_from_json(json, "the trace's settings", UnknownKeys::kRefuse));
  const EffectiveConfig effective = merge_generation_config(other, run.config);
  RETURN_IF_ERROR(validate_generation_config(effective.config));
  RETURN_IF_ERROR(check_question(run.config, effective.config));
  const GenerationConfig whole = merge_generation_config({}, run.config).config;
  ASSIGN_OR_RETURN(WhatIf answer, Question(trace, whole, effective).answer());
  answer.settings = effective;
  return answer;
}

}  // namespace logitlab
