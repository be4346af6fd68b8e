#include "sampling/processors/exponential_decay.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace logitlab {

ExponentialDecayLengthPenalty::ExponentialDecayLengthPenalty(const ExponentialDecay& decay,
                                                             std::vector<TokenId> end_ids)
    : decay_(decay), end_ids_(std::move(end_ids)) {
  std::ranges::sort(end_ids_);
  end_ids_.erase(std::unique(end_ids_.begin(), end_ids_.end()), end_ids_.end());
}

void ExponentialDecayLengthPenalty::apply(std::span<float> scores, const SequenceView& sequence) {
  if (sequence.generated() <= decay_.start) {
    return;
  }
  // In double: the difference of two int64 may not fit in one.
  const double n_beyond =
      static_cast<double>(sequence.generated()) - static_cast<double>(decay_.start);
  const auto gain = static_cast<float>(std::pow(decay_.factor, n_beyond) - 1.0);
  for (const TokenId id : end_ids_) {
    float& score = scores[static_cast<size_t>(id)];
    score += std::abs(score) * gain;
  }
}

std::unique_ptr<LogitsProcessor> ExponentialDecayLengthPenalty::clone() const {
  return std::make_unique<ExponentialDecayLengthPenalty>(*this);
}

}  // namespace logitlab
