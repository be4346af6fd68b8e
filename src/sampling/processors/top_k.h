#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Whether the tokens that tie with the k-th all stay, or only as many as make k, the lower ids
// first.
enum class TopKTies { kKeep, kCut };

// Removes every token below the k-th largest score. The comparison is strict: all tokens that tie
// with the k-th stay, so more than k may remain, unless ties are cut. NaN counts as the largest
// score; when the k-th is NaN or -inf nothing is removed. k is at least min_tokens_to_keep and at
// most the vocabulary.
class TopK final : public LogitsProcessor {
 public:
  // Numbers: >= 1.
  TopK(int64_t top_k, int64_t min_tokens_to_keep, TopKTies ties = TopKTies::kKeep);

  [[nodiscard]] std::string_view name() const override { return "top_k"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  int64_t k_;
  TopKTies ties_;
  std::vector<TokenId> best_;
  Cut cut_;
};

}  // namespace logitlab
