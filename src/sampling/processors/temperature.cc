#include "sampling/processors/temperature.h"

namespace logitlab {

Temperature::Temperature(double temperature) : temperature_(static_cast<float>(temperature)) {}

void Temperature::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  // A division, not a product with the reciprocal: torch on the CPU divides, and the two differ in
  // the last bit.
  for (float& score : scores) {
    score /= temperature_;
  }
}

std::unique_ptr<LogitsProcessor> Temperature::clone() const {
  return std::make_unique<Temperature>(*this);
}

}  // namespace logitlab
