// One generation whose text appears while it is made: what generate, chat and first-contact share.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "command.h"
#include "engine/engine.h"
#include "generate/thinking.h"
#include "sampling/distribution.h"
#include "sampling/effective_config.h"

namespace logitlab {

struct AnswerRequest {
  std::vector<PromptInput> prompts;
  GenerationConfig config;     // what the user gave; the model's defaults come behind it
  bool prints_text = true;     // to standard output while it comes; only a lone sequence streams
  bool shows_special = false;  // special tokens in the text
  int64_t n_alternatives = 0;  // per step, kept in the result
  TraceOptions trace;
};

struct StepRecord {
  int64_t sequence = 0;
  TokenId id = 0;
  float logit = 0;                        // raw, of the chosen token
  double probability = 0;                 // of the raw softmax
  std::vector<Alternative> alternatives;  // best first, of the raw logits
};

// A sequence's text in two parts, divided where the ids of the marks stand. Without thinking the
// answer is all of it.
struct AnswerParts {
  std::string thinking;  // without the marks
  std::string answer;
  ThinkingOutcome outcome = ThinkingOutcome::kNone;
};

struct Answer {
  GenerationResult result;
  std::vector<std::string> texts;  // one per sequence
  std::vector<AnswerParts> parts;  // one per sequence
  std::vector<StepRecord> steps;   // with n_alternatives > 0, in the order of their making
  EffectiveConfig settings;
  bool was_streamed = false;  // its text is on standard output already
  bool has_nan = false;       // a chosen token's logit was not a number

  [[nodiscard]] const std::string& text() const { return texts.front(); }
};

// Ctrl-C ends it with StopReason::kCancelled and what was generated until then. A reader of
// standard output that went away ends it too.
[[nodiscard]] Result<Answer> stream_answer(Engine& engine, Invocation& invocation,
                                           const AnswerRequest& request);

// What a person should know of how the thinking ended, one sentence; empty when an answer followed
// or there was none.
[[nodiscard]] std::string thinking_remark(const SequenceResult& sequence, ThinkingOutcome outcome);
// Adds "thinking_tokens", "answer_tokens", "thinking_outcome" (a name or null), "thinking_remark",
// "thinking_text" and "answer_text" (null without thinking) to an object.
void add_thinking_json(const SequenceResult& sequence, const AnswerParts& parts, Json* out);

// "prompt_tokens=9 new_tokens=12 first_token_s=0.05 tok_per_s=60.2 peak_memory_mib=410
// stop=eos_token", with thinking_tokens and answer_tokens where there was thinking and sequences
// where there are several.
[[nodiscard]] std::string receipt_line(const GenerationResult& result);
// The same numbers and more, for JSON: seconds, tokens per second, peak_memory_bytes.
[[nodiscard]] Json timings_json(const GenerationResult& result);
// Tokens per second after the first one of each sequence; 0 when there are no others.
[[nodiscard]] double decode_rate(const GenerationResult& result);

// "device cpu, AVX2, 2 threads".
[[nodiscard]] std::string machine_line(const Engine& engine);
// {"device", "isa", "threads", "cpu", "commit"}.
[[nodiscard]] Json machine_json(const Engine& engine);

// The token's text for people: its piece with control characters as escapes, in quotes.
[[nodiscard]] std::string quoted_piece(const Tokenizer& tokenizer, TokenId id);
// [{"id", "logit", "probability", "text"}].
[[nodiscard]] Json alternatives_json(const Tokenizer& tokenizer,
                                     std::span<const Alternative> alternatives);

}  // namespace logitlab
