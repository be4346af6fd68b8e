#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Removes tokens whose probability is below epsilon, in float32. The min_tokens_to_keep best, and
// all that tie with the last of them, stay in any case. Without a softmax (NaN, +inf, nothing but
// -inf) nothing is removed.
class EpsilonCutoff final : public LogitsProcessor {
 public:
  EpsilonCutoff(double epsilon, int64_t min_tokens_to_keep);  // between 0 and 1; >= 1

  [[nodiscard]] std::string_view name() const override { return "epsilon_cutoff"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float epsilon_;
  int64_t min_tokens_to_keep_;
  std::vector<float> probabilities_;
  std::vector<TokenId> best_;
  Cut cut_;
};

// The same with min(epsilon, sqrt(epsilon) * e^-entropy) in place of epsilon.
class EtaCutoff final : public LogitsProcessor {
 public:
  EtaCutoff(double epsilon, int64_t min_tokens_to_keep);  // between 0 and 1; >= 1

  [[nodiscard]] std::string_view name() const override { return "eta_cutoff"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float epsilon_;
  int64_t min_tokens_to_keep_;
  std::vector<float> probabilities_;
  std::vector<TokenId> best_;
  Cut cut_;
};

}  // namespace logitlab
