#pragma once

#include <vector>

#include "sampling/logits_processor.h"
#include "sampling/processor_chain.h"

namespace logitlab {

// Classifier-free guidance: c, u = log_softmax of the scores and of the unguided logits;
// the result is scale * (c - u) + u, in float32. When the source has no logits the scores stay.
class Guidance final : public LogitsProcessor {
 public:
  Guidance(double scale, GuidanceSource* source);  // not null; must outlive this

  [[nodiscard]] std::string_view name() const override { return "guidance_scale"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float scale_;
  GuidanceSource* source_;
  std::vector<float> unguided_;
};

}  // namespace logitlab
