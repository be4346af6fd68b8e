// One sequence on its way, token by token: what every strategy that chooses one token at a time
// shares.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "generate/generator.h"
#include "generate/stopping.h"
#include "generate/thinking.h"
#include "sampling/logits_processor.h"
#include "sampling/sampler.h"

namespace logitlab {

// The draw of `draw`, or without one the arg-max. scores: [vocab_size], processed. Errors as
// sample.
[[nodiscard]] Result<TokenId> choose_token(std::span<const float> scores,
                                           const std::optional<Draw>& draw);

// The draw of one step under `config`; none under greedy decoding.
[[nodiscard]] std::optional<Draw> draw_of(const GenerationConfig& config, uint32_t sequence_index,
                                          int64_t step);

// Copyable: a copy goes its own way.
class SequenceRun {
 public:
  // `prompt_index`: among the prompts of the call.
  SequenceRun(int64_t prompt_index, std::span<const TokenId> prompt,
              const std::optional<ThinkingIds>& thinking);

  // Takes the chosen token. True when it stands inside the model's thinking.
  bool push(TokenId id, const StoppingCriteria& stopping);
  void cancel();  // unless it has ended

  [[nodiscard]] SequenceView view() const { return {ids_, prompt_length_}; }
  [[nodiscard]] std::span<const TokenId> ids() const { return ids_; }  // prompt and generated
  [[nodiscard]] std::span<const TokenId> generated() const {
    return std::span(ids_).subspan(static_cast<size_t>(prompt_length_));
  }
  // Tokens generated so far, that is the number of the next step.
  [[nodiscard]] int64_t step() const { return static_cast<int64_t>(ids_.size()) - prompt_length_; }
  [[nodiscard]] bool has_ended() const { return stop_.has_value(); }
  // Requires has_ended() (CHECK).
  [[nodiscard]] SequenceResult result() const;

 private:
  int64_t prompt_index_;
  int64_t prompt_length_;
  std::vector<TokenId> ids_;
  ThinkingCounter thinking_;
  std::optional<Stop> stop_;
};

}  // namespace logitlab
