#pragma once

#include "sampling/logits_processor.h"

namespace logitlab {

// NaN becomes 0, +inf the largest finite float32, -inf the lowest: bans of earlier processors too.
class RemoveInvalidValues final : public LogitsProcessor {
 public:
  [[nodiscard]] std::string_view name() const override { return "remove_invalid_values"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;
};

}  // namespace logitlab
