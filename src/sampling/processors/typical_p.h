#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Keeps the tokens whose surprise, -log p, is nearest to the entropy until their probabilities add
// up to typical_p, and all that are as near as the last one; the most probable token may go. The
// min_tokens_to_keep nearest stay in any case. Float32 as torch, sums in double and then rounded.
// Without a softmax (NaN, +inf, nothing but -inf) nothing is removed. Expected O(V): a selection,
// not a sort.
class TypicalP final : public LogitsProcessor {
 public:
  TypicalP(double typical_p, int64_t min_tokens_to_keep);  // between 0 and 1; >= 1

  [[nodiscard]] std::string_view name() const override { return "typical_p"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  struct Candidate {
    float distance;
    float probability;
  };

  [[nodiscard]] float largest_kept_distance();

  float mass_;
  int64_t min_tokens_to_keep_;
  std::vector<float> probabilities_;
  std::vector<float> log_probabilities_;
  std::vector<float> distances_;
  std::vector<Candidate> candidates_;
  std::vector<TokenId> nearest_;
  Cut cut_;
};

}  // namespace logitlab
