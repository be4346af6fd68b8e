#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Bans the end tokens until `min_new_tokens` tokens are generated. Only the ids: other reasons to
// stop can still end the run earlier. Ids outside the vocabulary never occur and are skipped.
class MinNewTokens final : public LogitsProcessor {
 public:
  MinNewTokens(int64_t min_new_tokens, std::vector<TokenId> end_ids);

  [[nodiscard]] std::string_view name() const override { return "min_new_tokens"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  int64_t min_new_tokens_;
  std::vector<TokenId> end_ids_;
};

}  // namespace logitlab
