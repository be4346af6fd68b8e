#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// After a prompt of one token: only this token, with the score 0.
class ForcedBos final : public LogitsProcessor {
 public:
  explicit ForcedBos(TokenId id);  // inside the vocabulary

  [[nodiscard]] std::string_view name() const override { return "forced_bos_token_id"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  TokenId id_;
};

// When one more token reaches max_length (columns, prompt included): only these tokens, each with
// the score 0.
class ForcedEos final : public LogitsProcessor {
 public:
  ForcedEos(std::vector<TokenId> ids, int64_t max_length);  // inside the vocabulary

  [[nodiscard]] std::string_view name() const override { return "forced_eos_token_id"; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  std::vector<TokenId> ids_;
  int64_t max_length_;
};

}  // namespace logitlab
