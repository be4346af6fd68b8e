#include "sampling/effective_config.h"

#include <algorithm>
#include <limits>
#include <variant>

#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

bool is_unset(const FieldValue& value) {
  return std::holds_alternative<std::monostate>(value);
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

int64_t min_length_in_columns(const GenerationConfig& effective, int64_t prompt_length) {
  if (!effective.min_new_tokens) {
    return std::max<int64_t>(effective.min_length.value_or(0), 0);
  }
  // Without the overflow that a huge number would bring.
  const int64_t room = std::numeric_limits<int64_t>::max() - prompt_length;
  return std::max<int64_t>(std::min(*effective.min_new_tokens, room) + prompt_length, 0);
}

Result<Lengths> resolve_lengths(const GenerationConfig& effective, int64_t prompt_length,
                                std::optional<int64_t> max_position_embeddings) {
  Lengths lengths;
  lengths.min_length = min_length_in_columns(effective, prompt_length);
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
