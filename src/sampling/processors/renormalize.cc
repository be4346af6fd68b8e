#include "sampling/processors/renormalize.h"

#include "sampling/selection.h"

namespace logitlab {

void Renormalize::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  log_softmax_float32(scores);
}

std::unique_ptr<LogitsProcessor> Renormalize::clone() const {
  return std::make_unique<Renormalize>(*this);
}

}  // namespace logitlab
