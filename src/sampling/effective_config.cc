#include "sampling/effective_config.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

bool is_unset(const FieldValue& value) {
  return std::holds_alternative<std::monostate>(value);
}

// The value of a numeric field; none when it is unset or holds something else.
std::optional<double> as_number(const FieldValue& value) {
  if (const auto* number = std::get_if<double>(&value)) {
    return *number;
  }
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    return static_cast<double>(*integer);
  }
  return std::nullopt;
}

bool is_inside(const FieldRange& range, double number) {
  const bool is_low_enough =
      range.highest_is_excluded ? number < range.highest : number <= range.highest;
  const bool is_high_enough =
      range.lowest_is_excluded ? number > range.lowest : number >= range.lowest;
  return is_low_enough && is_high_enough;
}

}  // namespace

std::string_view name(Origin origin) {
  switch (origin) {
    case Origin::kGiven:
      return "given";
    case Origin::kModel:
      return "model";
    case Origin::kDefault:
      return "default";
    case Origin::kUnset:
      return "unset";
  }
  return "";
}

Origin EffectiveConfig::origin(std::string_view field_name) const {
  const auto fields = generation_fields();
  for (size_t i = 0; i < origins.size() && i < fields.size(); ++i) {
    if (fields[i].name == field_name) {
      return origins[i];
    }
  }
  return Origin::kUnset;
}

EffectiveConfig merge_generation_config(const GenerationConfig& call,
                                        const GenerationConfig& model_defaults) {
  EffectiveConfig effective;
  for (const GenerationField& field : generation_fields()) {
    Origin origin = Origin::kGiven;
    FieldValue value = get_field(call, field);
    if (is_unset(value)) {
      origin = Origin::kModel;
      value = get_field(model_defaults, field);
    }
    if (is_unset(value)) {
      origin = Origin::kDefault;
      value = field.fallback;
    }
    if (is_unset(value)) {
      origin = Origin::kUnset;
    }
    set_field_value(&effective.config, field, value);
    effective.origins.push_back(origin);
  }
  return effective;
}

Status validate_generation_config(const GenerationConfig& effective) {
  const bool is_sampling = effective.do_sample.value_or(false);
  for (const GenerationField& field : generation_fields()) {
    if (!field.range || (field.only_when_sampling && !is_sampling)) {
      continue;
    }
    const FieldValue value = get_field(effective, field);
    const std::optional<double> number = as_number(value);
    if (number && !is_inside(*field.range, *number)) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} found, want {}{}{}", field.name,
                  value_text(value), range_text(field), field.range->advice.empty() ? "" : "; ",
                  field.range->advice);
    }
  }
  return {};
}

std::vector<std::string> generation_warnings(const EffectiveConfig& effective, int64_t vocab_size) {
  std::vector<std::string> warnings;
  const GenerationConfig& config = effective.config;
  for (const GenerationField& field : generation_fields()) {
    const bool is_inert = !config.do_sample.value_or(false) && field.only_when_sampling;
    const FieldValue value = get_field(config, field);
    if (is_inert && effective.origin(field.name) == Origin::kGiven && value != field.off &&
        value != field.fallback) {
      warnings.push_back(
          fmt::format("{}={} has no effect: do_sample is false, so the most likely token is always "
                      "taken",
                      field.name, value_text(value)));
    }
  }
  if (config.max_new_tokens && config.max_length) {
    warnings.push_back(fmt::format("max_new_tokens={} wins over max_length={}",
                                   *config.max_new_tokens, *config.max_length));
  }
  if (config.max_new_tokens && config.min_new_tokens &&
      *config.min_new_tokens > *config.max_new_tokens) {
    warnings.push_back(
        fmt::format("min_new_tokens={} is above max_new_tokens={}: no end token can ever be chosen",
                    *config.min_new_tokens, *config.max_new_tokens));
  }
  for (const TokenId id : config.eos_token_id.value_or(std::vector<TokenId>{})) {
    if (id < 0 || id >= vocab_size) {
      warnings.push_back(
          fmt::format("eos_token_id={} is outside the vocabulary of {} tokens and never occurs", id,
                      vocab_size));
    }
  }
  return warnings;
}

Result<Lengths> resolve_lengths(const GenerationConfig& effective, int64_t prompt_length,
                                std::optional<int64_t> max_position_embeddings) {
  Lengths lengths;
  lengths.min_new_tokens = std::max<int64_t>(effective.min_new_tokens.value_or(0), 0);
  if (effective.max_new_tokens) {
    if (*effective.max_new_tokens < 1) {
      return fail(ErrorCode::kInvalidArgument, "max_new_tokens: {} found, want >= 1",
                  *effective.max_new_tokens);
    }
    lengths.max_new_tokens = *effective.max_new_tokens;
    return lengths;
  }
  if (effective.max_length) {
    if (*effective.max_length <= prompt_length) {
      return fail(ErrorCode::kInvalidArgument,
                  "max_length: {} found, want more than the {} tokens of the prompt, which it "
                  "counts; set max_new_tokens to count new tokens alone",
                  *effective.max_length, prompt_length);
    }
    lengths.max_new_tokens = *effective.max_length - prompt_length;
    return lengths;
  }
  lengths.is_default = true;
  lengths.max_new_tokens = kDefaultNewTokens;
  if (max_position_embeddings) {
    if (*max_position_embeddings <= prompt_length) {
      return fail(ErrorCode::kInvalidArgument,
                  "prompt: {} tokens found, want fewer than the {} positions of the model; set "
                  "max_new_tokens to go beyond them all the same",
                  prompt_length, *max_position_embeddings);
    }
    lengths.max_new_tokens = std::min(kDefaultNewTokens, *max_position_embeddings - prompt_length);
  }
  return lengths;
}

}  // namespace logitlab
