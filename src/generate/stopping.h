// When a sequence ends.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/error.h"
#include "generate/generator.h"
#include "logitlab/generation_config.h"

namespace logitlab {

// Built once per sequence; immutable. The criteria are asked after a token was appended, so at
// least one token is always generated; an end token in the prompt ends nothing.
class StoppingCriteria {
 public:
  // `config` after merge_generation_config. kInvalidArgument: no room for one token
  // (resolve_lengths).
  [[nodiscard]] static Result<StoppingCriteria> make(
      const GenerationConfig& config, int64_t prompt_length,
      std::optional<int64_t> max_position_embeddings);

  // `generated`: number of tokens so far, `id` the newest. An end token wins over the length.
  [[nodiscard]] std::optional<StopReason> check(TokenId id, int64_t generated) const;

  [[nodiscard]] int64_t max_new_tokens() const { return max_new_tokens_; }

 private:
  std::vector<TokenId> eos_;
  int64_t max_new_tokens_ = 0;
};

}  // namespace logitlab
