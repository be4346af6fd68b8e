#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Bans the end tokens while prompt and answer together are shorter than min_length. Ids outside the
// vocabulary never occur and are skipped.
class MinLength final : public LogitsProcessor {
 public:
  MinLength(int64_t min_length, std::vector<TokenId> end_ids);

  [[nodiscard]] std::string_view name() const override { return "min_length"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  int64_t min_length_;
  std::vector<TokenId> end_ids_;
};

}  // namespace logitlab
