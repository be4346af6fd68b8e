// What several processors do to a row of scores.
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

inline constexpr float kRemovedScore = -std::numeric_limits<float>::infinity();

[[nodiscard]] inline bool is_in_row(std::span<const float> scores, TokenId id) {
  return id >= 0 && static_cast<size_t>(id) < scores.size();
}

// Removes the tokens; ids outside the row never occur and are skipped.
inline void ban_tokens(std::span<float> scores, std::span<const TokenId> ids) {
  for (const TokenId id : ids) {
    if (is_in_row(scores, id)) {
      scores[static_cast<size_t>(id)] = kRemovedScore;
    }
  }
}

// Removes every other token and gives these the score 0. ids: inside the row.
inline void force_tokens(std::span<float> scores, std::span<const TokenId> ids) {
  std::ranges::fill(scores, kRemovedScore);
  for (const TokenId id : ids) {
    scores[static_cast<size_t>(id)] = 0;
  }
}

// Which tokens of a row were met. Starting over costs nothing, so a processor can rebuild the set
// from the sequence at every step and is right whatever happened to the sequence in between.
class SeenTokens {
 public:
  void start_over(size_t vocab_size) {
    if (++round_ == 0 || marks_.size() != vocab_size) {
      marks_.assign(vocab_size, 0);
      round_ = 1;
    }
  }
  // True when `id` is new. id: inside the row.
  [[nodiscard]] bool insert(TokenId id) {
    uint32_t& mark = marks_[static_cast<size_t>(id)];
    const bool is_new = mark != round_;
    mark = round_;
    return is_new;
  }

 private:
  std::vector<uint32_t> marks_;
  uint32_t round_ = 0;
};

}  // namespace logitlab
