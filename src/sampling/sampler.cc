#include "sampling/sampler.h"

#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/philox.h"

namespace logitlab {
namespace {

constexpr uint32_t kTokenDraws = 0;  // last word of the counter
constexpr uint32_t kBeamDraws = 1;
constexpr double kLn2 = 0.69314718055994530942;
// No E is below 2^-53, so no -log(E) is above this.
constexpr double kLargestGumbel = 53 * kLn2 + 1e-9;

double uniform_of(const PhiloxBlock& block, size_t half) {
  const uint64_t bits = block[half] | static_cast<uint64_t>(block[half + 1]) << 32;
  return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
}

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
    return uniform_of(block_, half);
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

// E >= u >= 2^exponent, so -log(E) is at most this; the slack covers rounding.
double gumbel_bound(double uniform) {
  return -std::ilogb(uniform) * kLn2 + 1e-9;
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

double draw_beam_exponential(const Draw& draw, uint64_t candidate) {
  const auto pair = static_cast<uint32_t>(candidate >> 1);
  const PhiloxBlock block =
      philox4x32({pair, draw.step, draw.sequence_index, kBeamDraws},
                 {static_cast<uint32_t>(draw.seed), static_cast<uint32_t>(draw.seed >> 32)});
  return exponential(uniform_of(block, (candidate & 1U) * 2));
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
    if (score + gumbel_bound(uniform) < best_key) {
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

DrawKey runner_up(std::span<const float> scores, std::span<const TokenId> ids, const Draw& draw,
                  TokenId chosen) {
  const size_t n = ids.empty() ? scores.size() : ids.size();
  const auto id_at = [&](size_t k) { return ids.empty() ? static_cast<TokenId>(k) : ids[k]; };
  // As in sample: the best score first, so that most others need no logarithm.
  TokenId mode = -1;
  for (size_t k = 0; k < n; ++k) {
    const TokenId id = id_at(k);
    const float score = scores[static_cast<size_t>(id)];
    const float best_score =
        mode < 0 ? -std::numeric_limits<float>::infinity() : scores[static_cast<size_t>(mode)];
    if (id != chosen && score > best_score) {
      mode = id;
    }
  }
  if (mode < 0) {
    return {};
  }
  Uniforms uniforms(draw);
  DrawKey best{mode, static_cast<double>(scores[static_cast<size_t>(mode)]) -
                         std::log(exponential(uniforms(mode)))};
  for (size_t k = 0; k < n; ++k) {
    const TokenId id = id_at(k);
    const auto score = static_cast<double>(scores[static_cast<size_t>(id)]);
    if (!(score + kLargestGumbel >= best.key) || id == mode || id == chosen) {
      continue;
    }
    const double uniform = uniforms(id);
    if (score + gumbel_bound(uniform) < best.key) {
      continue;
    }
    const double key = score - std::log(exponential(uniform));
    if (key > best.key || (key == best.key && id < best.id)) {
      best = {id, key};
    }
  }
  return best;
}

}  // namespace logitlab
