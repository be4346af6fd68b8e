#pragma once

#include <cstdint>

#include "sampling/logits_processor.h"
#include "sampling/row_edits.h"

namespace logitlab {

// For every distinct token of prompt and answer: a score below 0 is multiplied by the penalty,
// another divided by it, in float32. The last `window` tokens alone count when one is given.
// Expected cost: the length of the sequence, not the vocabulary.
class RepetitionPenalty final : public LogitsProcessor {
 public:
  static constexpr int64_t kWholeSequence = -1;
  explicit RepetitionPenalty(double penalty, int64_t window = kWholeSequence);  // > 0

  [[nodiscard]] std::string_view name() const override { return "repetition_penalty"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float penalty_;
  int64_t window_;
  SeenTokens seen_;
};

// The same with 1 / penalty over the tokens of the prompt: above 1 it favours them.
class EncoderRepetitionPenalty final : public LogitsProcessor {
 public:
  explicit EncoderRepetitionPenalty(double penalty);  // > 0

  [[nodiscard]] std::string_view name() const override { return "encoder_repetition_penalty"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float penalty_;
  SeenTokens seen_;
};

}  // namespace logitlab
