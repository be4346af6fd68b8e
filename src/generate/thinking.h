// How much of an answer is thinking.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "generate/generator.h"
#include "logitlab/types.h"
#include "sampling/processor_chain.h"

namespace logitlab {

// Counts the tokens of one sequence. The prompt may have opened the thinking already (some chat
// templates do): then it goes on from there. Copyable: a fork counts on by itself.
class ThinkingCounter {
 public:
  ThinkingCounter() = default;
  // `ids`: none, and nothing is ever thinking.
  ThinkingCounter(std::optional<ThinkingIds> ids, std::span<const TokenId> prompt);

  // Takes the next generated token. True when it stands inside the thinking, the marks included.
  // An end token counts as neither.
  bool push(TokenId id, bool is_end);

  [[nodiscard]] bool is_open() const { return is_open_; }
  [[nodiscard]] int64_t thinking_tokens() const { return thinking_tokens_; }
  [[nodiscard]] int64_t answer_tokens() const { return answer_tokens_; }

 private:
  std::optional<ThinkingIds> ids_;
  bool is_open_ = false;
  int64_t thinking_tokens_ = 0;
  int64_t answer_tokens_ = 0;
};

// How the thinking of a sequence ended.
enum class ThinkingOutcome {
  kNone,         // there was none
  kAnswered,     // an answer came after it
  kSaidNothing,  // it was closed, and then came no answer
  kCut,          // max_new_tokens or max_length ended the sequence inside it
  kBrokenOff,    // something else did: an end token, a stop string, the caller
};

// "answered", "said_nothing", "cut_in_thinking", "ended_in_thinking"; none has no name ("").
[[nodiscard]] std::string_view name(ThinkingOutcome outcome);

// `answer_is_blank`: the text outside the thinking is white space at most.
[[nodiscard]] ThinkingOutcome thinking_outcome(const SequenceResult& sequence,
                                               bool answer_is_blank);

}  // namespace logitlab
