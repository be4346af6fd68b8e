#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Removes these tokens at every step. Ids outside the vocabulary are skipped.
class SuppressTokens final : public LogitsProcessor {
 public:
  explicit SuppressTokens(std::vector<TokenId> ids);

  [[nodiscard]] std::string_view name() const override { return "suppress_tokens"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  std::vector<TokenId> ids_;
};

// Removes these tokens when the sequence is `begin_length` long: at the first free choice.
class BeginSuppressTokens final : public LogitsProcessor {
 public:
  BeginSuppressTokens(std::vector<TokenId> ids, int64_t begin_length);

  [[nodiscard]] std::string_view name() const override { return "begin_suppress_tokens"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  std::vector<TokenId> ids_;
  int64_t begin_length_;
};

}  // namespace logitlab
