#pragma once

#include <cstdint>
#include <vector>

#include "logitlab/generation_config.h"
#include "sampling/logits_processor.h"
#include "sampling/row_edits.h"

namespace logitlab {

// As the OpenAI API defines them: score[j] - count[j] * frequency_penalty - (count[j] > 0) *
// presence_penalty, where count[j] is how often the answer holds j; the prompt does not count.
// With a window (llama.cpp): the last `window` tokens of prompt and answer count instead.
// Expected cost: the number of tokens that count, not the vocabulary.
class FrequencyPenalty final : public LogitsProcessor {
 public:
  static constexpr int64_t kAnswer = -1;
  explicit FrequencyPenalty(double penalty, int64_t window = kAnswer);

  [[nodiscard]] std::string_view name() const override { return "frequency_penalty"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float penalty_;
  int64_t window_;
  std::vector<int32_t> counts_;  // [vocab_size], all 0 between calls
};

class PresencePenalty final : public LogitsProcessor {
 public:
  static constexpr int64_t kAnswer = -1;
  explicit PresencePenalty(double penalty, int64_t window = kAnswer);

  [[nodiscard]] std::string_view name() const override { return "presence_penalty"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float penalty_;
  int64_t window_;
  SeenTokens seen_;
};

// Adds a bias to single tokens at every step.
class LogitBias final : public LogitsProcessor {
 public:
  explicit LogitBias(std::vector<TokenBias> biases);  // ids inside the vocabulary, each once

  [[nodiscard]] std::string_view name() const override { return "logit_bias"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  std::vector<TokenBias> biases_;
};

}  // namespace logitlab
