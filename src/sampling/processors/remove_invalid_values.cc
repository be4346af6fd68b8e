#include "sampling/processors/remove_invalid_values.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace logitlab {

void RemoveInvalidValues::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  for (float& score : scores) {
    score = std::isnan(score) ? 0.0F
                              : std::clamp(score, std::numeric_limits<float>::lowest(),
                                           std::numeric_limits<float>::max());
  }
}

std::unique_ptr<LogitsProcessor> RemoveInvalidValues::clone() const {
  return std::make_unique<RemoveInvalidValues>(*this);
}

}  // namespace logitlab
