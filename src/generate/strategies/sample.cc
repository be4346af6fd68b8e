#include "generate/strategies/sample.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/env.h"
#include "generate/guidance_source.h"
#include "generate/sequence_run.h"
#include "generate/stopping.h"
#include "generate/strategies/device_steps.h"
#include "sampling/processor_chain.h"
#include "sampling/step_tracer.h"

namespace logitlab {
namespace {

// Steps that a device makes between two that go over the host. Those show a NaN in the state to
// whoever looks at rows; a cancelled run ends this many steps late at most.
constexpr int64_t kDeviceSteps = 15;

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
  // Up to kDeviceSteps steps on the device, from number `step` on; how many there were, 0 when
  // there is no memory for as many at once.
  Result<int64_t> device_steps(int64_t step);
  // Gives each sequence of `running` the ids that a device chose, [running, n], until all have
  // ended or the run is stopped; *taken: how many each took.
  Status push_chosen(std::span<Sequence* const> running, std::span<const TokenId> ids, int64_t step,
                     std::vector<int64_t>* taken);
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
  std::optional<DeviceSteps> device_;  // none: every step goes over the host
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
  if (sequences_.size() <= kMostDeviceSequences &&
      std::all_of(sequences_.begin(), sequences_.end(), [this](const Sequence& sequence) {
        return DeviceSteps::can_choose(settings_, sequence.chain);
      })) {
    device_.emplace(settings_);
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

Status SampleRun::push_chosen(std::span<Sequence* const> running, std::span<const TokenId> ids,
                              int64_t step, std::vector<int64_t>* taken) {
  const auto n = static_cast<int64_t>(ids.size() / running.size());
  const auto& on_step = settings_.options.on_step;
  taken->assign(running.size(), 0);
  for (int64_t i = 0; i < n && !is_done(); ++i) {
    for (size_t r = 0; r < running.size(); ++r) {
      Sequence& sequence = *running[r];
      if (sequence.run.has_ended()) {
        continue;
      }
      const TokenId id = ids[r * static_cast<size_t>(n) + static_cast<size_t>(i)];
      if (id == kNoDeviceChoice) {
        return fail(ErrorCode::kInvalidArgument,
                    "sampling: step {} of sequence {} has no token that can be drawn: a score is "
                    "NaN or +inf, or all are -inf",
                    step + i, sequence.number);
      }
      sequence.run.push(id, sequence.stopping);
      sequence.chain.accept(id);
      ++(*taken)[r];
      if (on_step && !on_step({sequence.number, step + i, id, {}, {}})) {
        is_stopped_by_caller_ = true;
      }
    }
    if (is_stopped_by_caller_ || settings_.is_cancelled()) {
      cancel();
    }
  }
  return {};
}

Result<int64_t> SampleRun::device_steps(int64_t step) {
  std::vector<Sequence*> running;
  std::vector<DeviceRow> rows;
  int64_t n = kDeviceSteps;
  for (Sequence& sequence : sequences_) {
    if (sequence.run.has_ended()) {
      continue;
    }
    running.push_back(&sequence);
    rows.push_back({.state = sequence.state,
                    .last = sequence.run.ids().back(),
                    .sequence_index =
                        settings_.options.sequence_index + static_cast<uint32_t>(sequence.number),
                    .keeps_state = sequence.state ==
                                   prompts_[static_cast<size_t>(sequence.prompt)].callers_state});
    n = std::min(n, sequence.stopping.max_new_tokens() - sequence.run.step());
  }
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids, device_->take(rows, step, n));
  if (ids.empty()) {
    return 0;
  }
  std::vector<int64_t> taken;
  const Status pushed = push_chosen(running, ids, step, &taken);
  for (size_t r = 0; r < rows.size(); ++r) {
    // What cannot be chosen from has gone through the model all the same.
    const int64_t n_held = taken[r] + (pushed ? 0 : 1);
    if (rows[r].keeps_state && n_held < n) {
      RETURN_IF_ERROR(device_->cut(r, n_held));
    }
  }
  RETURN_IF_ERROR(pushed);
  return *std::max_element(taken.begin(), taken.end());
}

void SampleRun::store(GenerationResult* result) {
  for (const Sequence& sequence : sequences_) {
    result->sequences.push_back(sequence.run.result());
  }
}

Status SampleRun::run(GenerationResult* result) {
  RETURN_IF_ERROR(make_sequences());
  for (int64_t n = 0; !is_done();) {
    RETURN_IF_ERROR(step(n));
    if (n++ == 0) {
      result->first_token_seconds = monotonic_seconds() - settings_.start;
    }
    if (is_stopped_by_caller_ || settings_.is_cancelled()) {
      cancel();
    }
    if (device_ && !is_done()) {
      ASSIGN_OR_RETURN(const int64_t n_taken, device_steps(n));
      n += n_taken;
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
