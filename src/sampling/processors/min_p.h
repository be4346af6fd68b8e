#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Removes tokens whose probability is below min_p times the largest one, in float32. The comparison
// is strict, so min_p = 1 keeps all that tie for the maximum. The min_tokens_to_keep best stay in
// any case. Without a softmax (NaN, +inf, nothing but -inf) nothing is removed.
class MinP final : public LogitsProcessor {
 public:
  MinP(double min_p, int64_t min_tokens_to_keep);  // 0 to 1, >= 1

  [[nodiscard]] std::string_view name() const override { return "min_p"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float min_p_;
  int64_t min_tokens_to_keep_;
  std::vector<float> probabilities_;
  std::vector<TokenId> best_;
  Cut cut_;
};

}  // namespace logitlab
