// Prefill and the decode loop of one sequence: greedy or sampling, with stopping.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "logitlab/generation_config.h"
#include "logitlab/types.h"
#include "models/model.h"

namespace logitlab {

enum class StopReason { kEos, kLength, kCancelled };
// "eos_token", "length", "cancelled".
[[nodiscard]] std::string_view name(StopReason reason);

// What one step did; the spans are valid during the callback only.
struct StepEvent {
  int64_t step = 0;               // 0 for the first generated token
  TokenId id = 0;                 // chosen
  std::span<const float> logits;  // [vocab_size], raw
  std::span<const float> scores;  // [vocab_size], after the processors
};

struct GenerateOptions {
  // Longest chunk of the prompt that goes through the model at once; >= 1.
  int64_t prefill_chunk = 512;
  // Number of this sequence among those of one request; enters the draw.
  uint32_t sequence_index = 0;
  // Called after every token; false stops with kCancelled.
  std::function<bool(const StepEvent&)> on_step;
  // Asked between prefill chunks and steps; true stops with kCancelled.
  std::function<bool()> is_cancelled;
  ProgressSink* progress = nullptr;  // prefill, in tokens
};

struct GenerationResult {
  std::vector<TokenId> ids;  // generated, the end token included
  StopReason stop_reason = StopReason::kLength;
  TokenId stop_id = -1;  // the end token when stop_reason is kEos
  int64_t prompt_tokens = 0;
  int64_t reused_prompt_tokens = 0;  // of which the state held already
  double prefill_seconds = 0;
  double first_token_seconds = 0;  // from the call to the first chosen token
  double decode_seconds = 0;       // from the first token to the last
};

// Continues `state`, which must hold a proper prefix of `prompt` (state->length() < prompt.size(),
// the same ids), with `config` after merge_generation_config. On return the state holds the prompt
// and all generated ids but the last. kInvalidArgument: empty prompt, an id outside the vocabulary,
// a setting out of range; kResourceExhausted.
[[nodiscard]] Result<GenerationResult> generate(ExecContext& context, const Model& model,
                                                DecodeState* state, std::span<const TokenId> prompt,
                                                const GenerationConfig& config,
                                                const GenerateOptions& options);

}  // namespace logitlab
