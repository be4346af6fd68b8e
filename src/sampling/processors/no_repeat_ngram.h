#pragma once

#include <cstdint>

#include "sampling/logits_processor.h"

namespace logitlab {

// Removes every token that would complete a group of n tokens that stands in prompt or answer
// already; n = 1 removes every token met so far. Cost: the length of the sequence, times n for
// repetitive ones.
class NoRepeatNgram final : public LogitsProcessor {
 public:
  explicit NoRepeatNgram(int64_t ngram_size);  // >= 1

  [[nodiscard]] std::string_view name() const override { return "no_repeat_ngram_size"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  int64_t ngram_size_;
};

// The same for groups that stand in the prompt.
class EncoderNoRepeatNgram final : public LogitsProcessor {
 public:
  explicit EncoderNoRepeatNgram(int64_t ngram_size);  // >= 1

  [[nodiscard]] std::string_view name() const override { return "encoder_no_repeat_ngram_size"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  int64_t ngram_size_;
};

}  // namespace logitlab
