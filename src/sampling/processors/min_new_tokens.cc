#include "sampling/processors/min_new_tokens.h"

#include <limits>
#include <utility>

namespace logitlab {

MinNewTokens::MinNewTokens(int64_t min_new_tokens, std::vector<TokenId> end_ids)
    : min_new_tokens_(min_new_tokens), end_ids_(std::move(end_ids)) {}

void MinNewTokens::apply(std::span<float> scores, const SequenceView& sequence) {
  if (sequence.generated() >= min_new_tokens_) {
    return;
  }
  for (const TokenId id : end_ids_) {
    if (id >= 0 && static_cast<size_t>(id) < scores.size()) {
      scores[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
    }
  }
}

std::unique_ptr<LogitsProcessor> MinNewTokens::clone() const {
  return std::make_unique<MinNewTokens>(*this);
}

}  // namespace logitlab
