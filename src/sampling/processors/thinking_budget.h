#pragma once

#include <cstdint>

#include "sampling/logits_processor.h"
#include "sampling/processor_chain.h"

namespace logitlab {

// When the sequence thinks (an open mark, in prompt or answer, and no close mark after it) and has
// `budget` tokens or more after the mark: only the close mark, with the score 0.
class ThinkingBudget final : public LogitsProcessor {
 public:
  ThinkingBudget(int64_t budget, const ThinkingIds& marks);  // marks inside the vocabulary

  [[nodiscard]] std::string_view name() const override { return "thinking_budget"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  int64_t budget_;
  ThinkingIds marks_;
};

}  // namespace logitlab
