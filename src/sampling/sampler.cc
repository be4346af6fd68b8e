#include "sampling/sampler.h"

#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/philox.h"

namespace logitlab {
namespace {

constexpr uint32_t kTokenDraws = 0;  // last word of the counter
constexpr double kLn2 = 0.69314718055994530942;
// No E is below 2^-53, so no -log(E) is above this.
constexpr double kLargestGumbel = 53 * kLn2 + 1e-9;

// The uniform numbers of one draw; neighbours share a Philox block.
class Uniforms {
 public:
  explicit Uniforms(const Draw& draw)
      : key_{static_cast<uint32_t>(draw.seed), static_cast<uint32_t>(draw.seed >> 32)},
        step_(draw.step),
        sequence_index_(draw.sequence_index) {}

  double operator()(TokenId id) {
    const uint32_t pair = static_cast<uint32_t>(id) >> 1;
    if (pair != pair_) {
      block_ = philox4x32({pair, step_, sequence_index_, kTokenDraws}, key_);
      pair_ = pair;
    }
    const size_t half = (static_cast<uint32_t>(id) & 1U) * 2;
    const uint64_t bits = block_[half] | static_cast<uint64_t>(block_[half + 1]) << 32;
    return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
  }

 private:
  std::array<uint32_t, 2> key_;
  uint32_t step_;
  uint32_t sequence_index_;
  uint32_t pair_ = std::numeric_limits<uint32_t>::max();  // no id has it: ids are below 2^31
  PhiloxBlock block_{};
};

double exponential(double uniform) {
  return -std::log1p(-uniform);
}

}  // namespace

TokenId arg_max(std::span<const float> scores) {
  CHECK(!scores.empty());
  size_t best = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) {
      return static_cast<TokenId>(i);
    }
    if (scores[i] > scores[best]) {
      best = i;
    }
  }
  return static_cast<TokenId>(best);
}

double draw_exponential(const Draw& draw, TokenId id) {
  return exponential(Uniforms(draw)(id));
}

Result<TokenId> sample(std::span<const float> scores, const Draw& draw) {
  const TokenId mode = arg_max(scores);
  const float largest = scores[static_cast<size_t>(mode)];
  if (std::isnan(largest)) {
    return fail(ErrorCode::kInvalidArgument,
                "sampling: the score of token {} is NaN, want numbers; the model's logits or a "
                "processor produced it",
                mode);
  }
  if (std::isinf(largest) && largest > 0) {
    return fail(ErrorCode::kInvalidArgument,
                "sampling: the score of token {} is +inf, want finite scores; a temperature close "
                "to 0 overflows: use do_sample=false instead",
                mode);
  }
  if (std::isinf(largest)) {
    return fail(ErrorCode::kInvalidArgument,
                "sampling: every score is -inf, want at least one token that may be chosen; the "
                "settings ban the whole vocabulary");
  }

  Uniforms uniforms(draw);
  // Beginning with the mode sets a high mark that nearly every other token misses cheaply.
  TokenId best = mode;
  double best_key = static_cast<double>(largest) - std::log(exponential(uniforms(mode)));
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const auto score = static_cast<double>(scores[i]);
    if (score + kLargestGumbel < best_key || id == mode) {
      continue;
    }
    const double uniform = uniforms(id);
    // E >= u >= 2^exponent, so -log(E) is at most this; the slack covers rounding.
    const double gumbel_bound = -std::ilogb(uniform) * kLn2 + 1e-9;
    if (score + gumbel_bound < best_key) {
      continue;
    }
    const double key = score - std::log(exponential(uniform));
    if (key > best_key || (key == best_key && id < best)) {
      best = id;
      best_key = key;
    }
  }
  return best;
}

}  // namespace logitlab
