#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Removes every token below the k-th largest score. The comparison is strict: all tokens that tie
// with the k-th stay, so more than k may remain. NaN counts as the largest score; when the k-th is
// NaN or -inf nothing is removed. k is at least min_tokens_to_keep and at most the vocabulary.
class TopK final : public LogitsProcessor {
 public:
  TopK(int64_t top_k, int64_t min_tokens_to_keep);  // both >= 1

  [[nodiscard]] std::string_view name() const override { return "top_k"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  int64_t k_;
  std::vector<TokenId> best_;
};

}  // namespace logitlab
