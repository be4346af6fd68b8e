#pragma once

#include <vector>

#include "logitlab/generation_config.h"
#include "sampling/logits_processor.h"

namespace logitlab {

// Adds a bias to the last token of a sequence. A sequence of one token always counts; a longer one
// when the tokens before its last have just been generated and the text is at least as long as the
// whole sequence (so one of two tokens does not act after a text of one token, as in transformers).
// Biases of sequences that end in the same token are summed in float32, then added to its score.
class SequenceBiasProcessor final : public LogitsProcessor {
 public:
  // Sequences: not empty, ids >= 0. Of equal sequences the last one's bias holds.
  explicit SequenceBiasProcessor(const std::vector<SequenceBias>& biases);

  [[nodiscard]] std::string_view name() const override { return "sequence_bias"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  std::vector<SequenceBias> biases_;  // those of one token first
  std::vector<float> sums_;           // [vocab_size], all 0 between calls
  std::vector<TokenId> touched_;
};

// Removes the last token of each sequence under the same rule. Sequences that are an end token
// alone do not count.
class BadWords final : public LogitsProcessor {
 public:
  BadWords(const std::vector<TokenIds>& bad_words_ids, const TokenIds& end_ids);

  [[nodiscard]] std::string_view name() const override { return "bad_words_ids"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  SequenceBiasProcessor bans_;
};

}  // namespace logitlab
