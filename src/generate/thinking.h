// How much of an answer is thinking.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

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

}  // namespace logitlab
