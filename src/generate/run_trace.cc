#include "generate/run_trace.h"

#include <string>
#include <utility>

#include "base/env.h"

namespace logitlab {
namespace {

TracedSequence traced(int64_t number, const SequenceResult& result) {
  TracedSequence sequence;
  sequence.sequence = number;
  sequence.prompt = result.prompt;
  sequence.ids = result.ids;
  sequence.stop_reason = std::string(name(result.stop_reason));
  sequence.stop_id = result.stop_id;
  sequence.stop_string = result.stop_string;
  sequence.thinking_tokens = result.thinking_tokens;
  sequence.answer_tokens = result.answer_tokens;
  sequence.beam_score = result.beam_score;
  sequence.beam_indices = result.beam_indices;
  return sequence;
}

}  // namespace

void RunTracer::note(TokenId id) {
  if (id >= 0 && static_cast<size_t>(id) < has_occurred_.size()) {
    has_occurred_[static_cast<size_t>(id)] = true;
  }
}

void RunTracer::begin(std::span<const PromptRun> prompts, int64_t sequences_per_prompt) {
  if (!is_on()) {
    return;
  }
  RunTrace run = options_.run;
  run.seed = facts_.seed;
  run.vocab_size = facts_.vocab_size;
  run.n_candidates = options_.n_candidates;
  if (facts_.thinking) {
    run.think_open = facts_.thinking->open;
    run.think_close = facts_.thinking->close;
  }
  has_occurred_.assign(static_cast<size_t>(run.vocab_size), false);
  run.prompts.clear();
  run.sequence_prompts.clear();
  for (const PromptRun& prompt : prompts) {
    run.prompts.emplace_back(prompt.ids.begin(), prompt.ids.end());
    run.sequence_prompts.insert(run.sequence_prompts.end(),
                                static_cast<size_t>(sequences_per_prompt), prompt.index);
    for (const TokenId id : prompt.ids) {
      note(id);
    }
  }
  for (const TracedStopId& stop : run.stop_ids) {
    note(stop.id);
  }
  note(run.think_open);
  note(run.think_close);
  options_.sink->begin(run);
}

std::unique_ptr<StepTracer> RunTracer::make_step_tracer(std::span<const TokenId> prompt) const {
  if (!is_on()) {
    return nullptr;
  }
  auto tracer =
      std::make_unique<StepTracer>(StepTracerOptions{.vocab_size = facts_.vocab_size,
                                                     .n_candidates = options_.n_candidates,
                                                     .full_rows = options_.full_rows});
  tracer->begin_sequence(prompt);
  return tracer;
}

void RunTracer::step(const TracedStep& step) {
  note(step.id);
  note(step.draw_runner_up);
  for (const TracedCandidate& candidate : step.candidates) {
    note(candidate.id);
  }
  for (const TokenId id : step.tied_at_max) {
    note(id);
  }
  options_.sink->step(step);
}

void RunTracer::beam_step(const TracedBeamStep& step) {
  for (const TracedBeam& candidate : step.candidates) {
    note(candidate.id);
  }
  options_.sink->beam_step(step);
}

void RunTracer::end(const GenerationResult& result) {
  if (!is_on()) {
    return;
  }
  RunEnd end;
  for (const SequenceResult& sequence : result.sequences) {
    end.sequences.push_back(traced(static_cast<int64_t>(end.sequences.size()), sequence));
  }
  end.beam_stop = result.beam_stop;
  end.seconds = facts_.start ? monotonic_seconds() - *facts_.start : 0;
  if (options_.piece) {
    for (size_t id = 0; id < has_occurred_.size(); ++id) {
      if (has_occurred_[id]) {
        const auto token = static_cast<TokenId>(id);
        end.pieces.emplace_back(token, options_.piece(token));
      }
    }
  }
  options_.sink->end(end);
}

}  // namespace logitlab
