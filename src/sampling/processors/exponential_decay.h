#pragma once

#include <cstdint>
#include <vector>

#include "logitlab/generation_config.h"
#include "sampling/logits_processor.h"

namespace logitlab {

// Once more than `start` tokens are generated, every end token gains |score| * (factor^n - 1),
// where n counts the tokens beyond `start`. As in transformers the power is taken in double and the
// rest in float32, so an end token at -inf becomes NaN.
class ExponentialDecayLengthPenalty final : public LogitsProcessor {
 public:
  // end_ids: inside the vocabulary.
  ExponentialDecayLengthPenalty(const ExponentialDecay& decay, std::vector<TokenId> end_ids);

  [[nodiscard]] std::string_view name() const override {
    return "exponential_decay_length_penalty";
  }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  ExponentialDecay decay_;
  std::vector<TokenId> end_ids_;  // each once
};

}  // namespace logitlab
