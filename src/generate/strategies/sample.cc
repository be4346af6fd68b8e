#include "generate/strategies/sample.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/env.h"
#include "generate/guidance_source.h"
#include "generate/sequence_run.h"
#include "generate/stopping.h"
#include "sampling/processor_chain.h"
#include "sampling/step_tracer.h"

namespace logitlab {
namespace {

struct Sequence {
  int64_t number = 0;  // among those of the call
  int64_t prompt = 0;
  DecodeState* state = nullptr;
  SequenceRun run;
  ProcessorChain chain;
  StoppingCriteria stopping;
  std::unique_ptr<StepTracer> tracer;  // null without a trace
};

class SampleRun {
 public:
  SampleRun(const RunSettings& settings, std::vector<PromptRun>* prompts, RunTracer* tracer)
      : settings_(settings), prompts_(*prompts), tracer_(*tracer) {}

  Status run(GenerationResult* result);

 private:
  Status make_sequences();
  // Chooses the next token of `sequence` from raw logits [vocab_size].
  Status advance(Sequence* sequence, std::span<const float> logits, int64_t step);
  Status step(int64_t step);
  [[nodiscard]] bool is_done() const;
  void cancel();
  void store(GenerationResult* result);

  const RunSettings& settings_;
  std::vector<PromptRun>& prompts_;
  RunTracer& tracer_;
  GuidanceRows guidance_;
  std::vector<GuidanceRows::Chosen> chosen_;
  std::vector<DecodeState> forks_;
  std::vector<Sequence> sequences_;
  std::vector<SequenceChunk> batch_;
  std::vector<float> scores_;
  bool is_stopped_by_caller_ = false;
};

Status SampleRun::make_sequences() {
  const auto copies = static_cast<size_t>(settings_.config.num_return_sequences.value_or(1));
  // Chunks point at the forks, which must not move.
  forks_.reserve(prompts_.size() * (copies - 1));
  ASSIGN_OR_RETURN(guidance_,
                   GuidanceRows::make(settings_, prompts_, static_cast<int64_t>(copies)));
  for (PromptRun& prompt : prompts_) {
    ChainOptions options;
    options.vocab_size = settings_.model.config().vocab_size;
    options.prompt_length = prompt.length();
    options.max_length = prompt.length() + prompt.lengths.max_new_tokens;
    options.thinking = settings_.options.thinking;
    options.callers = settings_.options.processors;
    for (size_t copy = 0; copy < copies; ++copy) {
      DecodeState* state = prompt.state();
      if (copy > 0) {
        forks_.push_back(prompt.state()->fork());
        state = &forks_.back();
      }
      options.guidance = guidance_.row(sequences_.size());
      ASSIGN_OR_RETURN(ProcessorChain chain, build_chain(settings_.config, options));
      sequences_.push_back({.number = static_cast<int64_t>(sequences_.size()),
                            .prompt = prompt.index,
                            .state = state,
                            .run = {prompt.index, prompt.ids, settings_.options.thinking},
                            .chain = std::move(chain),
                            .stopping = {settings_.config, prompt.lengths.max_new_tokens,
                                         settings_.start, settings_.stop_texts},
                            .tracer = tracer_.make_step_tracer(prompt.ids)});
    }
  }
  return {};
}

Status SampleRun::advance(Sequence* sequence, std::span<const float> logits, int64_t step) {
  scores_.assign(logits.begin(), logits.end());
  StepTracer* tracer = sequence->tracer.get();
  if (tracer != nullptr) {
    tracer->begin_step(logits);
  }
  sequence->chain.apply(scores_, sequence->run.view(), tracer);
  const std::optional<Draw> draw =
      draw_of(settings_.config,
              settings_.options.sequence_index + static_cast<uint32_t>(sequence->number), step);
  ASSIGN_OR_RETURN(const TokenId id, choose_token(scores_, draw));
  const bool is_thinking = sequence->run.push(id, sequence->stopping);
  sequence->chain.accept(id);
  if (tracer != nullptr) {
    TracedStep& traced = tracer->end_step(scores_, id, draw);
    traced.sequence = sequence->number;
    traced.step = step;
    traced.is_thinking = is_thinking;
    tracer_.step(traced);
  }
  const auto& on_step = settings_.options.on_step;
  if (on_step && !on_step({sequence->number, step, id, logits, scores_})) {
    is_stopped_by_caller_ = true;
  }
  return {};
}

bool SampleRun::is_done() const {
  return std::all_of(sequences_.begin(), sequences_.end(),
                     [](const Sequence& sequence) { return sequence.run.has_ended(); });
}

void SampleRun::cancel() {
  for (Sequence& sequence : sequences_) {
    sequence.run.cancel();
  }
}

Status SampleRun::step(int64_t step) {
  if (step == 0) {
    for (Sequence& sequence : sequences_) {
      const auto& logits = prompts_[static_cast<size_t>(sequence.prompt)].logits;
      RETURN_IF_ERROR(advance(&sequence, logits, step));
    }
    return {};
  }
  batch_.clear();
  chosen_.clear();
  for (Sequence& sequence : sequences_) {
    if (!sequence.run.has_ended()) {
      batch_.push_back({sequence.state, sequence.run.ids().last(1), LogitRows::kLast});
      chosen_.push_back({static_cast<size_t>(sequence.number), sequence.run.ids().back()});
    }
  }
  ASSIGN_OR_RETURN(const Logits logits, settings_.forward(batch_));
  RETURN_IF_ERROR(guidance_.advance(settings_, chosen_));
  int64_t row = 0;
  for (Sequence& sequence : sequences_) {
    if (!sequence.run.has_ended()) {
      RETURN_IF_ERROR(advance(&sequence, logits.row(row++), step));
    }
  }
  return {};
}

void SampleRun::store(GenerationResult* result) {
  for (const Sequence& sequence : sequences_) {
    result->sequences.push_back(sequence.run.result());
  }
}

Status SampleRun::run(GenerationResult* result) {
  RETURN_IF_ERROR(make_sequences());
  for (int64_t n = 0; !is_done(); ++n) {
    RETURN_IF_ERROR(step(n));
    if (n == 0) {
      result->first_token_seconds = monotonic_seconds() - settings_.start;
    }
    if (is_stopped_by_caller_ || settings_.is_cancelled()) {
      cancel();
    }
  }
  result->decode_seconds = monotonic_seconds() - settings_.start - result->first_token_seconds;
  store(result);
  return {};
}

}  // namespace

Status run_samples(const RunSettings& settings, std::vector<PromptRun>* prompts, RunTracer* tracer,
                   GenerationResult* result) {
  return SampleRun(settings, prompts, tracer).run(result);
}

}  // namespace logitlab
