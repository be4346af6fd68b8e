// Rotary position embedding: the table of frequencies and what scaling does to it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"

namespace logitlab {

// As config.json's rope_theta with rope_scaling, or its rope_parameters, say. Unset numbers take
// the defaults that transformers gives them.
struct RopeConfig {
  std::string type = "default";  // "default", "linear", "llama3", "yarn"
  double theta = 10000.0;
  double factor = 1.0;
  // llama3
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // llama3 and yarn: the length that the model was first trained on
  int64_t original_max_position_embeddings = 0;
  // yarn
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;
  std::optional<double> attention_factor;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
};

// Frequencies of one model. Immutable.
class Rope {
 public:
  // rotary_dim: even, > 0. kUnsupported for a type that is not in the list above (with the list);
  // kInvalidArgument for numbers that make no sense. Float32 arithmetic in transformers' order, so
  // that the angles have its rounding.
  [[nodiscard]] static Result<Rope> make(const RopeConfig& config, int64_t rotary_dim,
                                         RopeLayout layout);

  // Divides every frequency by its entry (a GGUF's rope_freqs.weight, [rotary_dim / 2], each > 0).
  [[nodiscard]] Status divide(std::span<const float> divisors);

  [[nodiscard]] int64_t rotary_dim() const { return 2 * static_cast<int64_t>(inv_freq_.size()); }
  [[nodiscard]] RopeLayout layout() const { return layout_; }
  [[nodiscard]] std::span<const float> inv_freq() const { return inv_freq_; }
  [[nodiscard]] float attention_factor() const { return attention_factor_; }

  // cosine, sine: [positions.size(), rotary_dim / 2], times the attention factor.
  void angles(std::span<const int64_t> positions, float* cosine, float* sine) const;

 private:
  std::vector<float> inv_freq_;
  float attention_factor_ = 1.0F;
  RopeLayout layout_ = RopeLayout::kHalfSplit;
};

}  // namespace logitlab
