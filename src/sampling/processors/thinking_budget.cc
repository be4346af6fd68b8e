#include "sampling/processors/thinking_budget.h"

#include "sampling/row_edits.h"

namespace logitlab {

ThinkingBudget::ThinkingBudget(int64_t budget, const ThinkingIds& marks)
    : budget_(budget), marks_(marks) {}

void ThinkingBudget::apply(std::span<float> scores, const SequenceView& sequence) {
  for (int64_t n_after = 0; n_after < sequence.length(); ++n_after) {
    const TokenId id = sequence.ids[sequence.ids.size() - 1 - static_cast<size_t>(n_after)];
    if (id == marks_.close) {
      return;
    }
    if (id == marks_.open) {
      if (n_after >= budget_) {
        force_tokens(scores, {&marks_.close, 1});
      }
      return;
    }
  }
}

std::unique_ptr<LogitsProcessor> ThinkingBudget::clone() const {
  return std::make_unique<ThinkingBudget>(*this);
}

}  // namespace logitlab
