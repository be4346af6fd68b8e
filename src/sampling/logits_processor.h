// One stage between the model's logits and the choice of a token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "logitlab/types.h"

namespace logitlab {

struct SequenceView {
  std::span<const TokenId> ids;  // prompt and generated tokens
  int64_t prompt_length = 0;     // <= ids.size()

  [[nodiscard]] int64_t generated() const {
    return static_cast<int64_t>(ids.size()) - prompt_length;
  }
};

// One instance per sequence; one thread at a time. apply() allocates nothing after its first call.
class LogitsProcessor {
 public:
  virtual ~LogitsProcessor() = default;

  // As in transformers' settings: "temperature", "top_k".
  [[nodiscard]] virtual std::string_view name() const = 0;

  // scores: [vocab_size] float32, changed in place; a removed token becomes -inf. Arithmetic is
  // float32 as in torch: a setting is a double that is rounded once, after what is derived from it.
  virtual void apply(std::span<float> scores, const SequenceView& sequence) = 0;

  // For processors with memory: a token was chosen; the last n chosen tokens are taken back.
  virtual void accept(TokenId /*id*/) {}
  virtual void rollback(int64_t /*n*/) {}

  // An independent copy, memory included.
  [[nodiscard]] virtual std::unique_ptr<LogitsProcessor> clone() const = 0;
};

}  // namespace logitlab
