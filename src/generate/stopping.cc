#include "generate/stopping.h"

#include <algorithm>

#include "sampling/effective_config.h"

namespace logitlab {

Result<StoppingCriteria> StoppingCriteria::make(const GenerationConfig& config,
                                                int64_t prompt_length,
                                                std::optional<int64_t> max_position_embeddings) {
  ASSIGN_OR_RETURN(const Lengths lengths,
                   resolve_lengths(config, prompt_length, max_position_embeddings));
  StoppingCriteria criteria;
  criteria.max_new_tokens_ = lengths.max_new_tokens;
  criteria.eos_ = config.eos_token_id.value_or(std::vector<TokenId>{});
  return criteria;
}

std::optional<StopReason> StoppingCriteria::check(TokenId id, int64_t generated) const {
  if (std::find(eos_.begin(), eos_.end(), id) != eos_.end()) {
    return StopReason::kEos;
  }
  if (generated >= max_new_tokens_) {
    return StopReason::kLength;
  }
  return std::nullopt;
}

}  // namespace logitlab
