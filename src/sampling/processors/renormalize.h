#pragma once

#include "sampling/logits_processor.h"

namespace logitlab {

// The scores become log_softmax of themselves. A row without a softmax (NaN, +inf, nothing but
// -inf) becomes NaN, as in torch.
class Renormalize final : public LogitsProcessor {
 public:
  [[nodiscard]] std::string_view name() const override { return "renormalize_logits"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;
};

}  // namespace logitlab
