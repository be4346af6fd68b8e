// What a row of logits says: probabilities, best tokens, entropy. All in double; the sums run in
// id order. -inf has probability 0. With a NaN, a +inf, or nothing but -inf the distribution does
// not exist and every probability is NaN.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

// log(sum(exp(logits))).
[[nodiscard]] double log_sum_exp(std::span<const float> logits);

// softmax; [vocab_size].
[[nodiscard]] std::vector<double> softmax_probabilities(std::span<const float> logits);

struct Alternative {
  TokenId id = 0;
  float logit = 0;
  double probability = 0;  // over the whole row
};

// The n largest, largest first, lower id first among equals; fewer when the row is shorter. NaN
// ranks above all. O(V log n).
[[nodiscard]] std::vector<Alternative> top_alternatives(std::span<const float> logits, int64_t n);

// Of softmax(logits), in nats.
[[nodiscard]] double entropy(std::span<const float> logits);

}  // namespace logitlab
