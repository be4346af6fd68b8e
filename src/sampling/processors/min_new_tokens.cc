#include "sampling/processors/min_new_tokens.h"

#include <utility>

#include "sampling/row_edits.h"

namespace logitlab {

MinNewTokens::MinNewTokens(int64_t min_new_tokens, std::vector<TokenId> end_ids)
    : min_new_tokens_(min_new_tokens), end_ids_(std::move(end_ids)) {}

void MinNewTokens::apply(std::span<float> scores, const SequenceView& sequence) {
  if (sequence.generated() < min_new_tokens_) {
    ban_tokens(scores, end_ids_);
  }
}

std::unique_ptr<LogitsProcessor> MinNewTokens::clone() const {
  return std::make_unique<MinNewTokens>(*this);
}

}  // namespace logitlab
