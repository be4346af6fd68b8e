// What a set of settings says that would mislead.
#include <utility>

#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

using Config = GenerationConfig;
using Warnings = std::vector<std::string>;

bool is_given(const EffectiveConfig& effective, std::string_view field_name) {
  return effective.origin(field_name) == Origin::kGiven;
}

// Settings given for a mode that never looks at them.
void warn_of_modes(const EffectiveConfig& effective, Warnings* warnings) {
  const Config& c = effective.config;
  for (const GenerationField& field : generation_fields()) {
    const bool is_inert = !c.do_sample.value_or(false) && field.only_when_sampling;
    const FieldValue value = get_field(c, field);
    if (is_inert && is_given(effective, field.name) && value != field.off &&
        value != field.fallback) {
      const bool has_beams = c.num_beams.value_or(1) > 1;
      warnings->push_back(fmt::format(
          "{}={} has no effect: do_sample is false, so {}", field.name, value_text(value),
          has_beams ? "beam search draws nothing" : "the most likely token is always taken"));
    }
  }
  for (const std::string_view name : {"early_stopping", "length_penalty"}) {
    const GenerationField& field = *find_generation_field(name);
    const FieldValue value = get_field(c, field);
    if (c.num_beams.value_or(1) == 1 && is_given(effective, name) && value != field.fallback) {
      warnings->push_back(
          fmt::format("{}={} has no effect: num_beams is 1, and it belongs to beam "
                      "search",
                      name, value_text(value)));
    }
  }
  if (is_given(effective, "negative_prompt_ids") && !c.negative_prompt_ids->empty() &&
      c.guidance_scale.value_or(1.0) == 1.0) {
    warnings->push_back(
        "negative_prompt_ids has no effect: guidance_scale is 1, so there is no "
        "guidance");
  }
}

void warn_of_lengths(const EffectiveConfig& effective, Warnings* warnings) {
  const Config& c = effective.config;
  if (c.max_new_tokens && c.max_length) {
    warnings->push_back(
        fmt::format("max_new_tokens={} wins over max_length={}", *c.max_new_tokens, *c.max_length));
  }
  if (c.min_new_tokens && c.min_length.value_or(0) > 0) {
    warnings->push_back(
        fmt::format("min_new_tokens={} wins over min_length={}", *c.min_new_tokens, *c.min_length));
  }
  if (c.max_new_tokens && c.min_new_tokens && *c.min_new_tokens > *c.max_new_tokens) {
    warnings->push_back(
        fmt::format("min_new_tokens={} is above max_new_tokens={}: no end token can ever be chosen",
                    *c.min_new_tokens, *c.max_new_tokens));
  }
  if (c.max_length && !c.max_new_tokens && !c.min_new_tokens &&
      c.min_length.value_or(0) > *c.max_length) {
    warnings->push_back(
        fmt::format("min_length={} is above max_length={}: no end token can ever be chosen",
                    *c.min_length, *c.max_length));
  }
  if (!c.eos_token_id || c.eos_token_id->empty()) {
    for (const auto& [name, value] :
         {std::pair{"min_new_tokens", c.min_new_tokens}, std::pair{"min_length", c.min_length}}) {
      if (value.value_or(0) > 0 && is_given(effective, name)) {
        warnings->push_back(
            fmt::format("{}={} has no effect: there is no end token to forbid", name, *value));
      }
    }
  }
  for (const auto& [name, value] :
       {std::pair{"min_length", c.min_length},
        std::pair{"no_repeat_ngram_size", c.no_repeat_ngram_size},
        std::pair{"encoder_no_repeat_ngram_size", c.encoder_no_repeat_ngram_size}}) {
    if (value.value_or(0) < 0) {
      warnings->push_back(fmt::format("{}={} has no effect: it is below 0", name, *value));
    }
  }
}

// Values that transformers takes for "off" without a word, and a default that acts unasked.
void warn_of_filters(const EffectiveConfig& effective, Warnings* warnings) {
  const Config& c = effective.config;
  if (!c.do_sample.value_or(false)) {
    return;
  }
  for (const auto& [name, value] :
       {std::pair{"top_p", c.top_p}, std::pair{"typical_p", c.typical_p}}) {
    if (is_given(effective, name) && value.value_or(1.0) > 1.0) {
      warnings->push_back(fmt::format("{}={} turns the filter off: it acts below 1", name, *value));
    }
  }
  for (const auto& [name, value] :
       {std::pair{"epsilon_cutoff", c.epsilon_cutoff}, std::pair{"eta_cutoff", c.eta_cutoff}}) {
    const double number = value.value_or(0.0);
    if (is_given(effective, name) && number != 0.0 && (number < 0.0 || number >= 1.0)) {
      warnings->push_back(
          fmt::format("{}={} turns the filter off: it acts between 0 and 1", name, number));
    }
  }
  const bool has_own_filter = (is_given(effective, "top_p") && c.top_p.value_or(1.0) < 1.0) ||
                              (is_given(effective, "min_p") && c.min_p.value_or(0.0) > 0.0);
  if (has_own_filter && effective.origin("top_k") == Origin::kDefault) {
    warnings->push_back(fmt::format(
        "top_k={} acts as well: it is the default, as in transformers; top_k=0 turns it off",
        *c.top_k));
  }
}

void warn_of_ids(const EffectiveConfig& effective, int64_t vocab_size, Warnings* warnings) {
  const Config& c = effective.config;
  for (const auto& [name, ids] : {std::pair{"eos_token_id", &c.eos_token_id},
                                  std::pair{"suppress_tokens", &c.suppress_tokens},
                                  std::pair{"begin_suppress_tokens", &c.begin_suppress_tokens}}) {
    for (const TokenId id : ids->value_or(TokenIds{})) {
      if (id < 0 || id >= vocab_size) {
        warnings->push_back(fmt::format(
            "{}={} is outside the vocabulary of {} tokens and never occurs", name, id, vocab_size));
      }
    }
  }
  if (is_given(effective, "pad_token_id") && *c.pad_token_id < 0) {
    warnings->push_back(
        fmt::format("pad_token_id={} is below 0, so it cannot fill a row", *c.pad_token_id));
  }
}

}  // namespace

std::vector<std::string> generation_warnings(const EffectiveConfig& effective, int64_t vocab_size) {
  Warnings warnings;
  warn_of_modes(effective, &warnings);
  warn_of_lengths(effective, &warnings);
  warn_of_filters(effective, &warnings);
  warn_of_ids(effective, vocab_size, &warnings);
  return warnings;
}

}  // namespace logitlab
