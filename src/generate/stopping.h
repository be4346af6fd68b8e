// When a sequence ends.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "generate/generator.h"
#include "generate/stop_strings.h"
#include "logitlab/generation_config.h"

namespace logitlab {

struct Stop {
  StopReason reason = StopReason::kLength;
  std::string text;  // the stop string
};

// One per prompt; immutable. The criteria are asked after a token was chosen, so at least one token
// is always generated; an end token in the prompt ends nothing.
class StoppingCriteria {
 public:
  // `config` after merge_generation_config; `start`: monotonic_seconds() from which max_time
  // counts; `texts`: null without stop strings.
  StoppingCriteria(const GenerationConfig& config, int64_t max_new_tokens, double start,
                   std::shared_ptr<const StopTexts> texts);

  // `earlier`: prompt and generated ids before `id`, the newest; `generated`: number of generated
  // tokens, `id` among them. An end token wins over a stop string, that over the length, that over
  // the time.
  [[nodiscard]] std::optional<Stop> check(std::span<const TokenId> earlier, TokenId id,
                                          int64_t generated) const;
  [[nodiscard]] bool is_end_token(TokenId id) const;

  [[nodiscard]] int64_t max_new_tokens() const { return max_new_tokens_; }

 private:
  TokenIds eos_;
  int64_t max_new_tokens_;
  double start_;
  std::optional<double> max_time_;
  std::shared_ptr<const StopTexts> texts_;
};

}  // namespace logitlab
