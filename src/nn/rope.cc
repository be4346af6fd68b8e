#include "nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace logitlab {
namespace {

// Wavelengths longer than the original length are stretched by `factor`, short ones are kept, and
// those between are blended. transformers: modeling_rope_utils.py, llama3.
void scale_llama3(const RopeConfig& config, std::vector<float>* inv_freq) {
  const auto length = static_cast<float>(config.original_max_position_embeddings);
  const auto factor = static_cast<float>(config.factor);
  const auto low = static_cast<float>(config.low_freq_factor);
  const auto high = static_cast<float>(config.high_freq_factor);
  for (float& f : *inv_freq) {
    const float wavelength = 2.0F * std::numbers::pi_v<float> / f;
    if (wavelength > length / low) {
      f /= factor;
    } else if (wavelength >= length / high) {
      const float smooth = (length / wavelength - low) / (high - low);
      f = (1.0F - smooth) * f / factor + smooth * f;
    }
  }
}

// Index of the frequency that turns `rotations` times within the original length.
double correction_index(double rotations, const RopeConfig& config, double dim) {
  const auto length = static_cast<double>(config.original_max_position_embeddings);
  return dim * std::log(length / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.theta));
}

void scale_yarn(const RopeConfig& config, std::vector<float>* inv_freq) {
  const double dim = 2.0 * static_cast<double>(inv_freq->size());
  double low = correction_index(config.beta_fast, config, dim);
  double high = correction_index(config.beta_slow, config, dim);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  // A zero width would divide by zero; transformers widens it by the same amount.
  if (low == high) {
    high += 0.001;
  }
  for (size_t i = 0; i < inv_freq->size(); ++i) {
    const auto ramp =
        static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    const float kept = (*inv_freq)[i];
    const float stretched = kept / static_cast<float>(config.factor);
    (*inv_freq)[i] = stretched * ramp + kept * (1.0F - ramp);
  }
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeConfig& config) {
  if (config.attention_factor) {
    return *config.attention_factor;
  }
  if (config.mscale.value_or(0) != 0 && config.mscale_all_dim.value_or(0) != 0) {
    return yarn_mscale(config.factor, *config.mscale) /
           yarn_mscale(config.factor, *config.mscale_all_dim);
  }
  return yarn_mscale(config.factor, 1.0);
}

Status check(const RopeConfig& config, int64_t rotary_dim) {
  if (rotary_dim <= 0 || rotary_dim % 2 != 0) {
    return fail(ErrorCode::kInvalidArgument, "rotary dimension {}, want an even number above 0",
                rotary_dim);
  }
  if (!(config.theta > 1.0) || !std::isfinite(config.theta)) {
    return fail(ErrorCode::kInvalidArgument, "rope_theta {}, want a number above 1", config.theta);
  }
  const bool is_scaled = config.type != "default";
  if (is_scaled && (!(config.factor > 0.0) || !std::isfinite(config.factor))) {
    return fail(ErrorCode::kInvalidArgument, "rope factor {}, want a number above 0",
                config.factor);
  }
  const bool needs_length = config.type == "llama3" || config.type == "yarn";
  if (needs_length && config.original_max_position_embeddings <= 0) {
    return fail(ErrorCode::kInvalidArgument,
                "rope type {}: original_max_position_embeddings {}, want a number above 0",
                config.type, config.original_max_position_embeddings);
  }
  if (config.type == "llama3" &&
      !(config.low_freq_factor > 0 && config.high_freq_factor > config.low_freq_factor)) {
    return fail(ErrorCode::kInvalidArgument,
                "rope type llama3: low_freq_factor {} and high_freq_factor {}, want 0 < low < high",
                config.low_freq_factor, config.high_freq_factor);
  }
  if (config.type == "yarn" && !(config.beta_fast > 0 && config.beta_slow > 0)) {
    return fail(ErrorCode::kInvalidArgument,
                "rope type yarn: beta_fast {} and beta_slow {}, want numbers above 0",
                config.beta_fast, config.beta_slow);
  }
  return {};
}

}  // namespace

Result<Rope> Rope::make(const RopeConfig& config, int64_t rotary_dim, RopeLayout layout) {
  RETURN_IF_ERROR(check(config, rotary_dim));
  Rope rope;
  rope.layout_ = layout;
  const auto base = static_cast<float>(config.theta);
  for (int64_t i = 0; i < rotary_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotary_dim);
    rope.inv_freq_.push_back(1.0F / std::pow(base, exponent));
  }
  if (config.type == "linear") {
    for (float& f : rope.inv_freq_) {
      f /= static_cast<float>(config.factor);
    }
  } else if (config.type == "llama3") {
    scale_llama3(config, &rope.inv_freq_);
  } else if (config.type == "yarn") {
    scale_yarn(config, &rope.inv_freq_);
    rope.attention_factor_ = static_cast<float>(yarn_attention_factor(config));
  } else if (config.type != "default") {
    return fail(ErrorCode::kUnsupported,
                "rope type '{}' is not supported; known are default, linear, llama3, yarn",
                config.type);
  }
  return rope;
}

Status Rope::divide(std::span<const float> divisors) {
  if (divisors.size() != inv_freq_.size()) {
    return fail(ErrorCode::kInvalidArgument, "{} rope divisors, want {}", divisors.size(),
                inv_freq_.size());
  }
  for (size_t i = 0; i < divisors.size(); ++i) {
    if (!(divisors[i] > 0) || !std::isfinite(divisors[i])) {
      return fail(ErrorCode::kInvalidArgument, "rope divisor {} is {}, want a number above 0", i,
                  divisors[i]);
    }
    inv_freq_[i] /= divisors[i];
  }
  return {};
}

void Rope::angles(std::span<const int64_t> positions, float* cosine, float* sine) const {
  const size_t half = inv_freq_.size();
  for (size_t row = 0; row < positions.size(); ++row) {
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(positions[row]) * inv_freq_[i];
      cosine[row * half + i] = std::cos(angle) * attention_factor_;
      sine[row * half + i] = std::sin(angle) * attention_factor_;
    }
  }
}

}  // namespace logitlab
