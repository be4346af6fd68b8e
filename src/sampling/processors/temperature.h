#pragma once

#include "sampling/logits_processor.h"

namespace logitlab {

// Divides every score by the temperature, which is rounded to float32 first.
class Temperature final : public LogitsProcessor {
 public:
  explicit Temperature(double temperature);  // > 0

  [[nodiscard]] std::string_view name() const override { return "temperature"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float temperature_;
};

}  // namespace logitlab
