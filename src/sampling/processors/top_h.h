#pragma once

#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Looks at the 100 best tokens: with q = softmax over them and entropy H, keeps from the best down
// those whose partial sums of -q log q stay within top_h * H, and the best in any case. All others
// go, so top_h = 1 is a cut to 100 tokens, and rounding can drop the last. A token at -inf is never
// kept. Among equal scores at the hundredth the lower ids are looked at. Without a softmax (NaN,
// +inf, nothing but -inf) nothing is removed.
class TopH final : public LogitsProcessor {
 public:
  explicit TopH(double top_h);  // above 0, to 1

  [[nodiscard]] std::string_view name() const override { return "top_h"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float top_h_;
  std::vector<TokenId> best_;
  std::vector<float> best_scores_;
  std::vector<float> probabilities_;
  Cut cut_;
};

}  // namespace logitlab
