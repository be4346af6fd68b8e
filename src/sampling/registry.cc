#include "sampling/registry.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "sampling/effective_config.h"
#include "sampling/processors/cutoffs.h"
#include "sampling/processors/exponential_decay.h"
#include "sampling/processors/forced_tokens.h"
#include "sampling/processors/guidance.h"
#include "sampling/processors/min_length.h"
#include "sampling/processors/min_new_tokens.h"
#include "sampling/processors/min_p.h"
#include "sampling/processors/no_repeat_ngram.h"
#include "sampling/processors/openai_penalties.h"
#include "sampling/processors/remove_invalid_values.h"
#include "sampling/processors/renormalize.h"
#include "sampling/processors/repetition_penalty.h"
#include "sampling/processors/sequence_bias.h"
#include "sampling/processors/suppress_tokens.h"
#include "sampling/processors/temperature.h"
#include "sampling/processors/thinking_budget.h"
#include "sampling/processors/top_h.h"
#include "sampling/processors/top_k.h"
#include "sampling/processors/top_p.h"
#include "sampling/processors/typical_p.h"

namespace logitlab {
namespace {

using Config = GenerationConfig;
using Options = ChainOptions;
using Made = Result<std::unique_ptr<LogitsProcessor>>;

template <typename Processor, typename... Args>
Made made(Args&&... args) {
  return std::make_unique<Processor>(std::forward<Args>(args)...);
}

bool is_nonempty(const std::optional<TokenIds>& ids) {
  return ids && !ids->empty();
}

// transformers indexes the row with these ids, so others are errors there too.
Status check_ids(std::string_view setting, const TokenIds& ids, const Options& o) {
  for (const TokenId id : ids) {
    if (id < 0 || id >= o.vocab_size) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}: token {} found, want 0 to {}: the vocabulary has {} tokens", setting, id,
                  o.vocab_size - 1, o.vocab_size);
    }
  }
  return {};
}

// ------------------------------------------------------------------ penalties, bans and biases

bool wants_guidance(const Config& c) {
  return c.guidance_scale.value_or(1.0) != 1.0;
}
Made make_guidance(const Config& c, const Options& o) {
  if (o.guidance == nullptr) {
    return fail(ErrorCode::kInvalidArgument,
                "guidance_scale: {} found, want 1 here: guidance needs a second run of the model, "
                "and no model runs",
                *c.guidance_scale);
  }
  return made<Guidance>(*c.guidance_scale, o.guidance);
}

bool wants_sequence_bias(const Config& c) {
  return c.sequence_bias.has_value();
}
Made make_sequence_bias(const Config& c, const Options& o) {
  for (const SequenceBias& entry : *c.sequence_bias) {
    RETURN_IF_ERROR(check_ids("sequence_bias", entry.ids, o));
  }
  return made<SequenceBiasProcessor>(*c.sequence_bias);
}

bool wants_encoder_repetition(const Config& c) {
  return c.encoder_repetition_penalty.value_or(1.0) != 1.0;
}
Made make_encoder_repetition(const Config& c, const Options&) {
  return made<EncoderRepetitionPenalty>(*c.encoder_repetition_penalty);
}

bool wants_repetition(const Config& c) {
  return c.repetition_penalty.value_or(1.0) != 1.0;
}
Made make_repetition(const Config& c, const Options&) {
  return made<RepetitionPenalty>(*c.repetition_penalty);
}

bool wants_no_repeat(const Config& c) {
  return c.no_repeat_ngram_size.value_or(0) > 0;
}
Made make_no_repeat(const Config& c, const Options&) {
  return made<NoRepeatNgram>(*c.no_repeat_ngram_size);
}

bool wants_encoder_no_repeat(const Config& c) {
  return c.encoder_no_repeat_ngram_size.value_or(0) > 0;
}
Made make_encoder_no_repeat(const Config& c, const Options&) {
  return made<EncoderNoRepeatNgram>(*c.encoder_no_repeat_ngram_size);
}

bool wants_bad_words(const Config& c) {
  return c.bad_words_ids.has_value();
}
Made make_bad_words(const Config& c, const Options& o) {
  const TokenIds end_ids = c.eos_token_id.value_or(TokenIds{});
  for (const TokenIds& word : *c.bad_words_ids) {
    const bool is_dropped =
        word.size() == 1 && std::ranges::find(end_ids, word.front()) != end_ids.end();
    if (!is_dropped) {
      RETURN_IF_ERROR(check_ids("bad_words_ids", word, o));
    }
  }
  return made<BadWords>(*c.bad_words_ids, end_ids);
}

// min_new_tokens, when set, takes the place of min_length, and both stages exist.
bool wants_min_length(const Config& c) {
  return is_nonempty(c.eos_token_id) && (c.min_new_tokens || c.min_length.value_or(0) > 0);
}
Made make_min_length(const Config& c, const Options& o) {
  return made<MinLength>(min_length_in_columns(c, o.prompt_length), *c.eos_token_id);
}

bool wants_min_new_tokens(const Config& c) {
  return c.min_new_tokens.value_or(0) > 0 && is_nonempty(c.eos_token_id);
}
Made make_min_new_tokens(const Config& c, const Options&) {
  return made<MinNewTokens>(*c.min_new_tokens, *c.eos_token_id);
}

bool wants_forced_bos(const Config& c) {
  return c.forced_bos_token_id.has_value();
}
Made make_forced_bos(const Config& c, const Options& o) {
  RETURN_IF_ERROR(check_ids("forced_bos_token_id", {*c.forced_bos_token_id}, o));
  return made<ForcedBos>(*c.forced_bos_token_id);
}

bool wants_forced_eos(const Config& c) {
  return is_nonempty(c.forced_eos_token_id);
}
Made make_forced_eos(const Config& c, const Options& o) {
  RETURN_IF_ERROR(check_ids("forced_eos_token_id", *c.forced_eos_token_id, o));
  return made<ForcedEos>(*c.forced_eos_token_id,
                         o.max_length.value_or(std::numeric_limits<int64_t>::max()));
}

bool wants_remove_invalid(const Config& c) {
  return c.remove_invalid_values.value_or(false);
}
Made make_remove_invalid(const Config&, const Options&) {
  return made<RemoveInvalidValues>();
}

bool wants_exponential_decay(const Config& c) {
  return c.exponential_decay_length_penalty.has_value();
}
Made make_exponential_decay(const Config& c, const Options& o) {
  RETURN_IF_ERROR(check_ids("exponential_decay_length_penalty: eos_token_id", *c.eos_token_id, o));
  return made<ExponentialDecayLengthPenalty>(*c.exponential_decay_length_penalty, *c.eos_token_id);
}

bool wants_suppress(const Config& c) {
  return is_nonempty(c.suppress_tokens);
}
Made make_suppress(const Config& c, const Options&) {
  return made<SuppressTokens>(*c.suppress_tokens);
}

bool wants_begin_suppress(const Config& c) {
  return is_nonempty(c.begin_suppress_tokens);
}
Made make_begin_suppress(const Config& c, const Options& o) {
  // After a prompt of one token a forced bos takes the first place.
  const bool is_second = o.prompt_length <= 1 && c.forced_bos_token_id.has_value();
  return made<BeginSuppressTokens>(*c.begin_suppress_tokens, o.prompt_length + (is_second ? 1 : 0));
}

bool wants_logit_bias(const Config& c) {
  return c.logit_bias && !c.logit_bias->empty();
}
Made make_logit_bias(const Config& c, const Options& o) {
  for (const TokenBias& entry : *c.logit_bias) {
    RETURN_IF_ERROR(check_ids("logit_bias", {entry.id}, o));
  }
  return made<LogitBias>(*c.logit_bias);
}

bool wants_frequency(const Config& c) {
  return c.frequency_penalty.value_or(0.0) != 0.0;
}
Made make_frequency(const Config& c, const Options&) {
  return made<FrequencyPenalty>(*c.frequency_penalty);
}

bool wants_presence(const Config& c) {
  return c.presence_penalty.value_or(0.0) != 0.0;
}
Made make_presence(const Config& c, const Options&) {
  return made<PresencePenalty>(*c.presence_penalty);
}

bool wants_thinking_budget(const Config& c) {
  return c.thinking_budget.has_value();
}
Made make_thinking_budget(const Config& c, const Options& o) {
  const auto is_inside = [&o](TokenId id) { return id >= 0 && id < o.vocab_size; };
  if (!o.thinking || !is_inside(o.thinking->open) || !is_inside(o.thinking->close)) {
    return nullptr;
  }
  return made<ThinkingBudget>(*c.thinking_budget, *o.thinking);
}

// ----------------------------------------------------------------------------------- the draw

bool wants_temperature(const Config& c) {
  return c.temperature.value_or(1.0) != 1.0;
}
Made make_temperature(const Config& c, const Options&) {
  return made<Temperature>(*c.temperature);
}

bool wants_top_h(const Config& c) {
  return c.top_h.has_value();
}
Made make_top_h(const Config& c, const Options&) {
  return made<TopH>(*c.top_h);
}

bool wants_top_k(const Config& c) {
  return c.top_k.value_or(0) != 0;
}
Made make_top_k(const Config& c, const Options& o) {
  return made<TopK>(*c.top_k, o.min_tokens_to_keep);
}

bool wants_top_p(const Config& c) {
  return c.top_p.value_or(1.0) < 1.0;
}
Made make_top_p(const Config& c, const Options& o) {
  return made<TopP>(*c.top_p, o.min_tokens_to_keep);
}

// Also for 0, which removes nothing: so it is in transformers.
bool wants_min_p(const Config& c) {
  return c.min_p.has_value();
}
Made make_min_p(const Config& c, const Options& o) {
  return made<MinP>(*c.min_p, o.min_tokens_to_keep);
}

bool wants_typical(const Config& c) {
  return c.typical_p.value_or(1.0) < 1.0;
}
Made make_typical(const Config& c, const Options& o) {
  return made<TypicalP>(*c.typical_p, o.min_tokens_to_keep);
}

bool is_cutoff(const std::optional<double>& value) {
  return value && *value > 0.0 && *value < 1.0;
}
bool wants_epsilon(const Config& c) {
  return is_cutoff(c.epsilon_cutoff);
}
Made make_epsilon(const Config& c, const Options& o) {
  return made<EpsilonCutoff>(*c.epsilon_cutoff, o.min_tokens_to_keep);
}
bool wants_eta(const Config& c) {
  return is_cutoff(c.eta_cutoff);
}
Made make_eta(const Config& c, const Options& o) {
  return made<EtaCutoff>(*c.eta_cutoff, o.min_tokens_to_keep);
}

bool wants_renormalize(const Config& c) {
  return c.renormalize_logits.value_or(false);
}
Made make_renormalize(const Config&, const Options&) {
  return made<Renormalize>();
}

constexpr bool kAlways = false;
constexpr bool kSampling = true;
using Slot = ProcessorSlot;

constexpr std::array kRegistry = {
    ProcessorSpec{Slot::kGuidance, "guidance_scale", kAlways, wants_guidance, make_guidance},
    ProcessorSpec{Slot::kSequenceBias, "sequence_bias", kAlways, wants_sequence_bias,
                  make_sequence_bias},
    ProcessorSpec{Slot::kEncoderRepetitionPenalty, "encoder_repetition_penalty", kAlways,
                  wants_encoder_repetition, make_encoder_repetition},
    ProcessorSpec{Slot::kRepetitionPenalty, "repetition_penalty", kAlways, wants_repetition,
                  make_repetition},
    ProcessorSpec{Slot::kNoRepeatNgram, "no_repeat_ngram_size", kAlways, wants_no_repeat,
                  make_no_repeat},
    ProcessorSpec{Slot::kEncoderNoRepeatNgram, "encoder_no_repeat_ngram_size", kAlways,
                  wants_encoder_no_repeat, make_encoder_no_repeat},
    ProcessorSpec{Slot::kBadWords, "bad_words_ids", kAlways, wants_bad_words, make_bad_words},
    ProcessorSpec{Slot::kMinLength, "min_length", kAlways, wants_min_length, make_min_length},
    ProcessorSpec{Slot::kMinNewTokens, "min_new_tokens", kAlways, wants_min_new_tokens,
                  make_min_new_tokens},
    ProcessorSpec{Slot::kForcedBos, "forced_bos_token_id", kAlways, wants_forced_bos,
                  make_forced_bos},
    ProcessorSpec{Slot::kForcedEos, "forced_eos_token_id", kAlways, wants_forced_eos,
                  make_forced_eos},
    ProcessorSpec{Slot::kRemoveInvalidValues, "remove_invalid_values", kAlways,
                  wants_remove_invalid, make_remove_invalid},
    ProcessorSpec{Slot::kExponentialDecay, "exponential_decay_length_penalty", kAlways,
                  wants_exponential_decay, make_exponential_decay},
    ProcessorSpec{Slot::kSuppressTokens, "suppress_tokens", kAlways, wants_suppress, make_suppress},
    ProcessorSpec{Slot::kBeginSuppressTokens, "begin_suppress_tokens", kAlways,
                  wants_begin_suppress, make_begin_suppress},
    // transformers has none of these four; what it lacks a caller would pass as a processor, so
    // they stand where it puts those: after its own penalties, before the temperature.
    ProcessorSpec{Slot::kCallerProcessors, "logit_bias", kAlways, wants_logit_bias,
                  make_logit_bias},
    ProcessorSpec{Slot::kCallerProcessors, "frequency_penalty", kAlways, wants_frequency,
                  make_frequency},
    ProcessorSpec{Slot::kCallerProcessors, "presence_penalty", kAlways, wants_presence,
                  make_presence},
    // Last, so that no bias moves the score that it forces.
    ProcessorSpec{Slot::kCallerProcessors, "thinking_budget", kAlways, wants_thinking_budget,
                  make_thinking_budget},
    ProcessorSpec{Slot::kTemperature, "temperature", kSampling, wants_temperature,
                  make_temperature},
    ProcessorSpec{Slot::kTopH, "top_h", kSampling, wants_top_h, make_top_h},
    ProcessorSpec{Slot::kTopK, "top_k", kSampling, wants_top_k, make_top_k},
    ProcessorSpec{Slot::kTopP, "top_p", kSampling, wants_top_p, make_top_p},
    ProcessorSpec{Slot::kMinP, "min_p", kSampling, wants_min_p, make_min_p},
    ProcessorSpec{Slot::kTypical, "typical_p", kSampling, wants_typical, make_typical},
    ProcessorSpec{Slot::kEpsilonCutoff, "epsilon_cutoff", kSampling, wants_epsilon, make_epsilon},
    ProcessorSpec{Slot::kEtaCutoff, "eta_cutoff", kSampling, wants_eta, make_eta},
    ProcessorSpec{Slot::kRenormalize, "renormalize_logits", kAlways, wants_renormalize,
                  make_renormalize},
};

}  // namespace

std::span<const ProcessorSpec> processor_registry() {
  return kRegistry;
}

}  // namespace logitlab
