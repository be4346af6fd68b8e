// From prompts to sequences: greedy, sampling, beam search and beam sampling, with stopping.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "logitlab/generation_config.h"
#include "logitlab/trace.h"
#include "logitlab/types.h"
#include "models/model.h"
#include "sampling/processor_chain.h"

namespace logitlab {

enum class StopReason { kEos, kLength, kTime, kStopString, kCancelled };
// "eos_token", "length", "time", "stop_string", "cancelled".
[[nodiscard]] std::string_view name(StopReason reason);

// What one step did; the spans are valid during the callback only.
struct StepEvent {
  int64_t sequence = 0;  // among the sequences of the call
  int64_t step = 0;      // 0 for the first generated token
  TokenId id = 0;        // chosen
  // Both may be empty without GenerateOptions::on_step_needs_rows.
  std::span<const float> logits;  // [vocab_size], raw, after logits_dtype
  std::span<const float> scores;  // [vocab_size], after the processors
};

struct TraceOptions {
  TraceSink* sink = nullptr;  // null: no trace
  RunTrace run;               // what the caller knows: model, build, ledger; generate adds the rest
  int64_t n_candidates = 20;  // 0 to 1000
  bool full_rows = false;
  // Text of an id, for the end of the trace; may be empty.
  std::function<std::string(TokenId)> piece;
};

// What every token stands for, for stop strings. An interface, so that generation builds without
// the tokenizer library.
class TokenTexts {
 public:
  virtual ~TokenTexts() = default;
  // The bytes that the token adds to a text, its leading space included; may be a part of a UTF-8
  // character. A special token stands for its own name. None for an unknown id.
  [[nodiscard]] virtual std::optional<std::string> text(TokenId id) const = 0;
};

struct GenerateOptions {
  // Longest chunk of the prompt that goes through the model at once; 0: Model::prefill_chunk.
  int64_t prefill_chunk = 0;
  // Number of the first sequence among those of one request; enters the draw.
  uint32_t sequence_index = 0;
  // Called after every token; false stops with kCancelled. Not called by beam search, whose tokens
  // are not settled before the end.
  std::function<bool(const StepEvent&)> on_step;
  // Whether on_step looks at logits and scores. When it does not, a model on a device may choose
  // several tokens at a time by itself, the same ones; on_step is then called for each of them
  // afterwards, without rows.
  bool on_step_needs_rows = true;
  // Asked between prefill chunks and steps; true stops with kCancelled.
  std::function<bool()> is_cancelled;
  ProgressSink* progress = nullptr;         // prefill in tokens; beam search in steps
  const TokenTexts* token_texts = nullptr;  // needed by stop_strings
  std::optional<ThinkingIds> thinking;      // of the model; none: nothing is thinking
  // The caller's own, copied for every sequence; where they stand: ChainOptions::callers. Not with
  // a trace, whose reader could not run them.
  std::span<const LogitsProcessor* const> processors;
  TraceOptions trace;
};

struct SequenceResult {
  int64_t prompt = 0;        // index of its prompt
  std::vector<TokenId> ids;  // generated, the end token included
  StopReason stop_reason = StopReason::kLength;
  TokenId stop_id = -1;           // the end token when stop_reason is kEos
  std::string stop_string;        // when stop_reason is kStopString
  int64_t thinking_tokens = 0;    // generated inside the thinking, its marks included
  int64_t answer_tokens = 0;      // all others but the end token
  bool is_thinking_open = false;  // it ended inside the thinking
  // Beam search: sum of the processed log-probabilities over length^length_penalty, and per
  // generated token the beam that it came from.
  double beam_score = std::numeric_limits<double>::quiet_NaN();
  std::vector<int64_t> beam_indices;
};

struct GenerationResult {
  // num_return_sequences for each prompt, in the order of the prompts; beam search: best first.
  std::vector<SequenceResult> sequences;
  std::string beam_stop;  // why beam search ended; empty without beams
  int64_t prompt_tokens = 0;
  int64_t reused_prompt_tokens = 0;  // of which states held already
  double prefill_seconds = 0;
  double first_token_seconds = 0;  // from the call to the first chosen token
  double decode_seconds = 0;       // from the first token to the last

  [[nodiscard]] const SequenceResult& first() const { return sequences.front(); }
  [[nodiscard]] int64_t new_tokens() const;  // of all sequences
};

struct PromptInput {
  std::span<const TokenId> ids;
  // Holds a proper prefix of `ids` (state->length() < ids.size()). Null: a fresh one. With one
  // sequence (no beams, one returned) it holds the prompt and all generated ids but the last
  // afterwards; else it is used and left as it was.
  DecodeState* state = nullptr;
  // When the prompt's first `mark` ids have gone through the model, *at_mark becomes a fork of the
  // state. Null, or a mark that the state has passed already: nothing happens.
  int64_t mark = 0;
  std::optional<DecodeState>* at_mark = nullptr;
};

// Generates for every prompt with `config` after merge_generation_config. Each sequence is what it
// would be alone, bit for bit: prompts are not padded, so no mask is needed, and lengths count the
// sequence's own prompt. The prompt goes through the model once, whatever num_beams and
// num_return_sequences are. kInvalidArgument: no prompt, an empty one, an id outside the
// vocabulary, a setting out of range; kResourceExhausted.
[[nodiscard]] Result<GenerationResult> generate(ExecContext& context, const Model& model,
                                                std::span<const PromptInput> prompts,
                                                const GenerationConfig& config,
                                                const GenerateOptions& options);

}  // namespace logitlab
