// The settings of one generation, with the names, defaults and meanings of transformers' generate.
// Every field is optional: unset means "not given here". src/sampling/generation_fields.h is the
// one table of names, ranges, defaults and help.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

struct GenerationConfig {
  // Choice of the token.
  std::optional<bool> do_sample;      // false: arg-max; true: draw. Default false
  std::optional<double> temperature;  // > 0; scores are divided by it. Default 1.0
  std::optional<int64_t> top_k;       // >= 0; 0 = off. Default 50, as in transformers
  std::optional<double> top_p;        // >= 0; >= 1 = off. Default 1.0
  std::optional<double> min_p;        // [0, 1]. Default: unset
  std::optional<uint64_t> seed;       // of the draws. Default 0

  // Length.
  std::optional<int64_t> max_new_tokens;  // >= 1
  std::optional<int64_t> min_new_tokens;  // >= 0; end tokens are banned before
  std::optional<int64_t> max_length;      // prompt included; max_new_tokens wins over it

  // Ids. An empty list: none.
  std::optional<std::vector<TokenId>> eos_token_id;
  std::optional<TokenId> pad_token_id;
  std::optional<TokenId> bos_token_id;

  bool operator==(const GenerationConfig& other) const = default;
};

}  // namespace logitlab
