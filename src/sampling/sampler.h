// The choice of a token from processed scores: arg-max, or a draw.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "base/error.h"
#include "logitlab/types.h"

namespace logitlab {

// Greedy. The lowest id among equals; a NaN counts as larger than any number and the first one
// wins; a row of -inf gives 0. scores: [vocab_size], not empty.
[[nodiscard]] TokenId arg_max(std::span<const float> scores);

// Names one random choice. The draw depends on nothing else: not on the batch, not on the threads,
// not on the settings.
struct Draw {
  uint64_t seed = 0;
  uint32_t sequence_index = 0;  // among the sequences of one request
  uint32_t step = 0;            // 0 for the first generated token
};

// The random number of token `id`, exponentially distributed with mean 1:
//   block = Philox4x32-10(counter = {id / 2, step, sequence_index, 0},
//                         key = {low 32 bits of seed, high 32 bits of seed})
//   x     = block[h] + 2^32 * block[h + 1], with h = 0 for an even id and 2 for an odd one
//   u     = (floor(x / 2^12) + 0.5) * 2^-52       exact in double, 0 < u < 1
//   E     = -log1p(-u)
// The last word of the counter separates token draws (0) from other uses of the same seed. This
// definition is a promise: stored runs are replayed with it.
[[nodiscard]] double draw_exponential(const Draw& draw, TokenId id);

// The same for beam sampling, which draws from all beams of a prompt at once: `candidate` =
// beam * vocab_size + id stands in the place of the id, and the last word of the counter is 1.
// candidate < 2^33.
[[nodiscard]] double draw_beam_exponential(const Draw& draw, uint64_t candidate);

// The token with the largest score - log(E_id), in double, the lowest id among equals: an exact
// draw from softmax(scores). Tokens at -inf cannot be chosen and change nothing. Adding a constant
// to all scores, or removing tokens that were not chosen, leaves the choice as it was.
// scores: [vocab_size]. Expected cost: one Philox block for two tokens near the maximum, a few
// logarithms in all. kInvalidArgument: a NaN or +inf score, or every score -inf (where torch
// raises).
[[nodiscard]] Result<TokenId> sample(std::span<const float> scores, const Draw& draw);

struct DrawKey {
  TokenId id = -1;                                        // -1: there is no such token
  double key = std::numeric_limits<double>::quiet_NaN();  // score - log(E_id)
};
// What `sample` would have chosen without `chosen`. ids: the tokens to look at, ascending, as when
// all others are known to be -inf; empty: every token. NaN scores are passed over.
[[nodiscard]] DrawKey runner_up(std::span<const float> scores, std::span<const TokenId> ids,
                                const Draw& draw, TokenId chosen);

}  // namespace logitlab
