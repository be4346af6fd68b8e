#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Keeps the smallest set of best tokens whose mass reaches top_p, at least min_tokens_to_keep.
// As transformers: probabilities in float32 are summed from the small end, and a token goes while
// the sum, itself included and rounded to float32, is <= 1 - top_p (taken in double, then rounded).
// A group of equal scores can be cut; the lower ids stay (in torch the order is arbitrary). Without
// a softmax (NaN, +inf, nothing but -inf) nothing is removed. Expected O(V): a selection, not a
// sort.
class TopP final : public LogitsProcessor {
 public:
  TopP(double top_p, int64_t min_tokens_to_keep);  // >= 0, >= 1

  [[nodiscard]] std::string_view name() const override { return "top_p"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  struct Candidate {
    float score;
    float probability;
    TokenId id;
  };

  float removed_mass_;  // 1 - top_p
  int64_t min_tokens_to_keep_;
  std::vector<float> probabilities_;
  std::vector<Candidate> candidates_;
  std::vector<TokenId> best_;
  Cut cut_;
};

}  // namespace logitlab
