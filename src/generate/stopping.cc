#include "generate/stopping.h"

#include <algorithm>
#include <utility>

#include "base/env.h"

namespace logitlab {

StoppingCriteria::StoppingCriteria(const GenerationConfig& config, int64_t max_new_tokens,
                                   double start, std::shared_ptr<const StopTexts> texts)
    : eos_(config.eos_token_id.value_or(TokenIds{})),
      max_new_tokens_(max_new_tokens),
      start_(start),
      max_time_(config.max_time),
      texts_(std::move(texts)) {}

bool StoppingCriteria::is_end_token(TokenId id) const {
  return std::find(eos_.begin(), eos_.end(), id) != eos_.end();
}

std::optional<Stop> StoppingCriteria::check(std::span<const TokenId> earlier, TokenId id,
                                            int64_t generated) const {
  if (is_end_token(id)) {
    return Stop{StopReason::kEos, ""};
  }
  if (texts_ != nullptr) {
    if (const std::optional<size_t> found = texts_->match(earlier, id)) {
      return Stop{StopReason::kStopString, texts_->string(*found)};
    }
  }
  if (generated >= max_new_tokens_) {
    return Stop{StopReason::kLength, ""};
  }
  if (max_time_ && monotonic_seconds() - start_ > *max_time_) {
    return Stop{StopReason::kTime, ""};
  }
  return std::nullopt;
}

}  // namespace logitlab
