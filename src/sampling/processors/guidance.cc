#include "sampling/processors/guidance.h"

#include "base/check.h"
#include "sampling/selection.h"

namespace logitlab {

Guidance::Guidance(double scale, GuidanceSource* source)
    : scale_(static_cast<float>(scale)), source_(source) {
  CHECK(source != nullptr);
}

void Guidance::apply(std::span<float> scores, const SequenceView& sequence) {
  const std::span<const float> logits = source_->unguided_logits(sequence);
  if (logits.empty()) {
    return;
  }
  CHECK(logits.size() == scores.size()) << logits.size() << " and " << scores.size();
  unguided_.assign(logits.begin(), logits.end());
  log_softmax_float32(unguided_);
  log_softmax_float32(scores);
  for (size_t i = 0; i < scores.size(); ++i) {
    scores[i] = scale_ * (scores[i] - unguided_[i]) + unguided_[i];
  }
}

std::unique_ptr<LogitsProcessor> Guidance::clone() const {
  return std::make_unique<Guidance>(*this);
}

}  // namespace logitlab
