// The settings of one generation, with the names, defaults and meanings of transformers' generate.
// Every field is optional: unset means "not given here". src/sampling/generation_fields.h is the
// one table of names, ranges, defaults and help.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

// Beam search: stop as soon as there are num_beams finished hypotheses (kTrue), when a better one
// is unlikely (kFalse), or when a better one is impossible (kNever).
enum class EarlyStopping { kFalse, kTrue, kNever };

// Whose rules hold where engines differ: ties at k, place of the temperature, window of the
// penalties, the token that crosses p.
enum class Semantics { kTransformers, kVllm, kLlamaCpp };

// Precision that the logits are rounded to before anything else sees them.
enum class LogitsDtype { kFloat32, kBfloat16, kFloat16 };

// Added to the score of the last id of `ids` when the ids before it have just been generated.
struct SequenceBias {
  std::vector<TokenId> ids;  // not empty
  double bias = 0;
  bool operator==(const SequenceBias& other) const = default;
};

// Added to the score of one token at every step.
struct TokenBias {
  TokenId id = 0;
  double bias = 0;
  bool operator==(const TokenBias& other) const = default;
};

// From `start` generated tokens on, the end tokens gain |score| * (factor^(tokens beyond) - 1).
struct ExponentialDecay {
  int64_t start = 0;
  double factor = 1;
  bool operator==(const ExponentialDecay& other) const = default;
};

using TokenIds = std::vector<TokenId>;

struct GenerationConfig {
  // Choice of the token.
  std::optional<bool> do_sample;            // false: arg-max; true: draw. Default false
  std::optional<double> temperature;        // > 0; scores are divided by it. Default 1.0
  std::optional<double> top_h;              // (0, 1]. Default: unset
  std::optional<int64_t> top_k;             // >= 0; 0 = off. Default 50, as in transformers
  std::optional<double> top_p;              // >= 0; >= 1 = off. Default 1.0
  std::optional<double> min_p;              // [0, 1]. Default: unset
  std::optional<double> typical_p;          // > 0; >= 1 = off. Default 1.0
  std::optional<double> epsilon_cutoff;     // (0, 1) acts, all else is off. Default 0
  std::optional<double> eta_cutoff;         // (0, 1) acts, all else is off. Default 0
  std::optional<uint64_t> seed;             // of the draws. Default 0
  std::optional<Semantics> semantics;       // Default transformers
  std::optional<LogitsDtype> logits_dtype;  // Default float32

  // Penalties, bans and biases.
  std::optional<double> repetition_penalty;             // > 0. Default 1.0
  std::optional<double> encoder_repetition_penalty;     // > 0. Default 1.0
  std::optional<double> presence_penalty;               // [-2, 2]. Default 0
  std::optional<double> frequency_penalty;              // [-2, 2]. Default 0
  std::optional<int64_t> no_repeat_ngram_size;          // <= 0 = off. Default 0
  std::optional<int64_t> encoder_no_repeat_ngram_size;  // <= 0 = off. Default 0
  std::optional<std::vector<TokenIds>> bad_words_ids;
  std::optional<std::vector<SequenceBias>> sequence_bias;
  std::optional<std::vector<TokenBias>> logit_bias;  // each -100 to 100
  std::optional<TokenIds> suppress_tokens;
  std::optional<TokenIds> begin_suppress_tokens;
  std::optional<TokenId> forced_bos_token_id;
  std::optional<TokenIds> forced_eos_token_id;
  std::optional<ExponentialDecay> exponential_decay_length_penalty;
  std::optional<double> guidance_scale;         // 1 = off
  std::optional<TokenIds> negative_prompt_ids;  // of the guidance
  std::optional<bool> remove_invalid_values;    // Default false
  std::optional<bool> renormalize_logits;       // Default: unset

  // Length and stopping.
  std::optional<int64_t> max_new_tokens;  // >= 1
  std::optional<int64_t> min_new_tokens;  // >= 0; end tokens are banned before
  std::optional<int64_t> max_length;      // prompt included; max_new_tokens wins over it
  std::optional<int64_t> min_length;      // prompt included; min_new_tokens wins over it. Default 0
  std::optional<double> max_time;         // seconds
  std::optional<std::vector<std::string>> stop_strings;
  std::optional<int64_t> thinking_budget;  // >= 0; tokens of thinking before it is closed

  // Search.
  std::optional<int64_t> num_beams;             // >= 1. Default 1
  std::optional<int64_t> num_return_sequences;  // >= 1. Default 1
  std::optional<EarlyStopping> early_stopping;  // Default false
  std::optional<double> length_penalty;         // Default 1.0

  // Ids. An empty list: none.
  std::optional<TokenIds> eos_token_id;
  std::optional<TokenId> pad_token_id;
  std::optional<TokenId> bos_token_id;

  bool operator==(const GenerationConfig& other) const = default;
};

}  // namespace logitlab
