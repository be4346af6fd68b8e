// Finding the best tokens of a row, and the softmax that the filters compare with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

// Whether a score ranks before another: NaN before every number (as in torch), then larger first.
// Equal scores, and two NaNs, do not rank before each other: the lower id goes first then.
[[nodiscard]] bool ranks_before(float a, float b);

// The n best ids, best first, the lower id first among equals; all of them when n is larger than
// the row. `ids` is overwritten and its memory reused. O(V + n log n) expected.
void top_ids(std::span<const float> scores, int64_t n, std::vector<TokenId>* ids);

// softmax(scores) in float32 with torch's steps: exp(x - max), their sum rounded to float32, one
// division. `probabilities` is overwritten and its memory reused. False, and nothing usable in
// `probabilities`, when the softmax does not exist: a NaN, a +inf, or every score -inf.
[[nodiscard]] bool softmax_float32(std::span<const float> scores,
                                   std::vector<float>* probabilities);

// log_softmax(scores) in float32 with torch's steps, in place: (x - max) - log(sum(exp(x - max))).
// A row without a softmax becomes NaN throughout, as in torch.
void log_softmax_float32(std::span<float> scores);

// Entropy in nats as torch.distributions.Categorical computes it in float32: the sum of
// -(x - logsumexp) * probability, where a probability of 0 adds nothing. `probabilities`: what
// softmax_float32 gave for `scores`.
[[nodiscard]] float entropy_float32(std::span<const float> scores,
                                    std::span<const float> probabilities);

}  // namespace logitlab
