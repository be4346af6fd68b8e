#include "generate/generator.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/env.h"
#include "generate/stopping.h"
#include "sampling/effective_config.h"
#include "sampling/processor_chain.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

bool is_cancelled(const GenerateOptions& options) {
  return options.is_cancelled && options.is_cancelled();
}

Status check_prompt(std::span<const TokenId> prompt, const DecodeState& state, int64_t vocab_size) {
  if (prompt.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the prompt is empty; want at least one token id");
  }
  CHECK(state.length() < static_cast<int64_t>(prompt.size()))
      << "state of " << state.length() << " positions, prompt of " << prompt.size();
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= vocab_size) {
      return fail(ErrorCode::kInvalidArgument,
                  "prompt: token id {} at position {} is outside the vocabulary, want 0 to {}",
                  prompt[i], i, vocab_size - 1);
    }
  }
  return {};
}

// One sequence on its way: the prompt, what has been generated, and how the next token is chosen.
class Run {
 public:
  Run(ExecContext& context, const Model& model, DecodeState* state, const GenerationConfig& config,
      const GenerateOptions& options)
      : context_(context), model_(model), state_(state), config_(config), options_(options) {}

  Result<GenerationResult> generate(std::span<const TokenId> prompt);

 private:
  // Runs the part of the prompt that the state has not seen; no logits when cancelled.
  Result<std::optional<Logits>> prefill(std::span<const TokenId> prompt);
  Result<TokenId> choose(const Logits& logits, ProcessorChain* chain, int64_t step);
  Result<Logits> forward(std::span<const TokenId> ids, LogitRows rows) {
    const SequenceChunk chunk{state_, ids, rows};
    return model_.forward(context_, {&chunk, 1});
  }

  ExecContext& context_;
  const Model& model_;
  DecodeState* state_;
  const GenerationConfig& config_;
  const GenerateOptions& options_;
  std::vector<TokenId> ids_;  // prompt and generated
  int64_t prompt_length_ = 0;
  std::vector<float> scores_;
};

Result<std::optional<Logits>> Run::prefill(std::span<const TokenId> prompt) {
  constexpr std::string_view kWhat = "reading the prompt";
  ProgressSink& progress = options_.progress != nullptr ? *options_.progress : null_progress();
  const auto chunk = static_cast<size_t>(std::max<int64_t>(1, options_.prefill_chunk));
  auto done = static_cast<size_t>(state_->length());
  std::optional<Logits> last;
  while (done < prompt.size()) {
    if (is_cancelled(options_)) {
      progress.finish(kWhat);
      return std::optional<Logits>();
    }
    const size_t n = std::min(chunk, prompt.size() - done);
    const bool is_last = done + n == prompt.size();
    ASSIGN_OR_RETURN(Logits logits, forward(prompt.subspan(done, n),
                                            is_last ? LogitRows::kLast : LogitRows::kNone));
    done += n;
    progress.update(kWhat, done, prompt.size(), "tokens");
    last = std::move(logits);
  }
  progress.finish(kWhat);
  return last;
}

Result<TokenId> Run::choose(const Logits& logits, ProcessorChain* chain, int64_t step) {
  const std::span<const float> raw = logits.row(logits.rows - 1);
  scores_.assign(raw.begin(), raw.end());
  chain->apply(scores_, {ids_, prompt_length_});
  if (!config_.do_sample.value_or(false)) {
    return arg_max(scores_);
  }
  return sample(scores_,
                {config_.seed.value_or(0), options_.sequence_index, static_cast<uint32_t>(step)});
}

Result<GenerationResult> Run::generate(std::span<const TokenId> prompt) {
  const double start = monotonic_seconds();
  const ModelConfig& model_config = model_.config();
  RETURN_IF_ERROR(check_prompt(prompt, *state_, model_config.vocab_size));
  ASSIGN_OR_RETURN(ProcessorChain chain,
                   build_chain(config_, {.vocab_size = model_config.vocab_size}));
  const std::optional<int64_t> max_positions =
      model_config.max_position_embeddings > 0
          ? std::optional<int64_t>(model_config.max_position_embeddings)
          : std::nullopt;
  prompt_length_ = static_cast<int64_t>(prompt.size());
  ASSIGN_OR_RETURN(const StoppingCriteria stopping,
                   StoppingCriteria::make(config_, prompt_length_, max_positions));

  GenerationResult result;
  result.prompt_tokens = prompt_length_;
  result.reused_prompt_tokens = state_->length();
  ids_.assign(prompt.begin(), prompt.end());
  ASSIGN_OR_RETURN(std::optional<Logits> logits, prefill(prompt));
  result.prefill_seconds = monotonic_seconds() - start;
  if (!logits) {
    result.stop_reason = StopReason::kCancelled;
    return result;
  }
  for (int64_t step = 0;; ++step) {
    ASSIGN_OR_RETURN(const TokenId id, choose(*logits, &chain, step));
    if (step == 0) {
      result.first_token_seconds = monotonic_seconds() - start;
    }
    ids_.push_back(id);
    result.ids.push_back(id);
    chain.accept(id);
    const bool goes_on =
        !options_.on_step || options_.on_step({step, id, logits->row(logits->rows - 1), scores_});
    std::optional<StopReason> stop = stopping.check(id, step + 1);
    if (!stop && (!goes_on || is_cancelled(options_))) {
      stop = StopReason::kCancelled;
    }
    result.decode_seconds = monotonic_seconds() - start - result.first_token_seconds;
    if (stop) {
      result.stop_reason = *stop;
      result.stop_id = *stop == StopReason::kEos ? id : -1;
      return result;
    }
    ASSIGN_OR_RETURN(logits, forward({&id, 1}, LogitRows::kLast));
  }
}

}  // namespace

std::string_view name(StopReason reason) {
  switch (reason) {
    case StopReason::kEos:
      return "eos_token";
    case StopReason::kLength:
      return "length";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

Result<GenerationResult> generate(ExecContext& context, const Model& model, DecodeState* state,
                                  std::span<const TokenId> prompt, const GenerationConfig& config,
                                  const GenerateOptions& options) {
  CHECK(state != nullptr);
  return Run(context, model, state, config, options).generate(prompt);
}

}  // namespace logitlab
