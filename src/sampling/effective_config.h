// From what the caller gave and what the model says to the settings that hold: precedence, checks,
// lengths. The rules are those of transformers' generate.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "logitlab/generation_config.h"

namespace logitlab {

enum class Origin { kGiven, kModel, kDefault, kUnset };
// "given", "model", "default", "unset".
[[nodiscard]] std::string_view name(Origin origin);

struct EffectiveConfig {
  GenerationConfig config;
  std::vector<Origin> origins;  // one per generation_fields() entry, in its order

  // Origin::kUnset for an unknown name.
  [[nodiscard]] Origin origin(std::string_view field_name) const;
};

// Every field from the first source that sets it: `call`, `model_defaults`, the table's fallback.
// Lengths that nobody set stay unset: resolve_lengths knows what that means. Merging an effective
// config again over anything does not change it, but for fields that are still unset.
[[nodiscard]] EffectiveConfig merge_generation_config(const GenerationConfig& call,
                                                      const GenerationConfig& model_defaults);

// Refuses values outside the ranges of the table, those of the sampling filters only when do_sample
// is true, malformed lists, and settings that contradict each other, as transformers does.
// kInvalidArgument: name, found, wanted, what to do.
[[nodiscard]] Status validate_generation_config(const GenerationConfig& effective);

// What is accepted but would mislead: settings given for a mode that never looks at them, two
// limits of which one loses, a minimum above the maximum, values that turn a setting off unawares,
// ids outside the vocabulary, a default filter that acts beside those that were given. One sentence
// each. A thinking budget on a model that does not think is the caller's to see.
[[nodiscard]] std::vector<std::string> generation_warnings(const EffectiveConfig& effective,
                                                           int64_t vocab_size);

// New tokens when neither max_new_tokens nor max_length is set.
inline constexpr int64_t kDefaultNewTokens = 20;

// Columns, prompt included, before which no end token may come: min_new_tokens, when set, wins over
// min_length. >= 0.
[[nodiscard]] int64_t min_length_in_columns(const GenerationConfig& effective,
                                            int64_t prompt_length);

struct Lengths {
  int64_t max_new_tokens = 0;  // >= 1
  int64_t min_new_tokens = 0;  // >= 0
  int64_t min_length = 0;      // min_length_in_columns
  bool is_default = false;     // nobody set a limit
};

// max_new_tokens wins over max_length, which counts the prompt; with neither, kDefaultNewTokens but
// no more than max_position_embeddings in all (when known). kInvalidArgument: no room for one
// token.
[[nodiscard]] Result<Lengths> resolve_lengths(const GenerationConfig& effective,
                                              int64_t prompt_length,
                                              std::optional<int64_t> max_position_embeddings);

}  // namespace logitlab
