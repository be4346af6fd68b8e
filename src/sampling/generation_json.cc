#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

struct TransformersSetting {
  std::string_view name;
  // The value that does nothing, as JSON; empty: any value but null acts.
  std::string_view neutral;
};

// Settings that act in transformers on a single sequence and have no entry in the field table.
constexpr std::array kOtherSettings = {
    TransformersSetting{"bad_words_ids", ""},
    TransformersSetting{"begin_suppress_tokens", ""},
    TransformersSetting{"encoder_no_repeat_ngram_size", "0"},
    TransformersSetting{"encoder_repetition_penalty", "1.0"},
    TransformersSetting{"epsilon_cutoff", "0.0"},
    TransformersSetting{"eta_cutoff", "0.0"},
    TransformersSetting{"exponential_decay_length_penalty", ""},
    TransformersSetting{"forced_bos_token_id", ""},
    TransformersSetting{"forced_eos_token_id", ""},
    TransformersSetting{"guidance_scale", "1.0"},
    TransformersSetting{"max_time", ""},
    TransformersSetting{"min_length", "0"},
    TransformersSetting{"no_repeat_ngram_size", "0"},
    TransformersSetting{"num_beams", "1"},
    TransformersSetting{"num_return_sequences", "1"},
    TransformersSetting{"remove_invalid_values", "false"},
    TransformersSetting{"renormalize_logits", "false"},
    TransformersSetting{"repetition_penalty", "1.0"},
    TransformersSetting{"sequence_bias", ""},
    TransformersSetting{"stop_strings", ""},
    TransformersSetting{"suppress_tokens", ""},
    TransformersSetting{"top_h", ""},
    TransformersSetting{"typical_p", "1.0"},
    TransformersSetting{"watermarking_config", ""},
};

bool would_act(std::string_view key, const Json& value) {
  for (const TransformersSetting& setting : kOtherSettings) {
    if (setting.name == key) {
      return setting.neutral.empty() ||
             value != Json::parse(setting.neutral, nullptr, /*allow_exceptions=*/false);
    }
  }
  return false;
}

bool read_value(const Json& json, bool* value) {
  if (!json.is_boolean()) {
    return false;
  }
  *value = json.get<bool>();
  return true;
}

bool read_value(const Json& json, uint64_t* value) {
  if (!json.is_number_unsigned()) {
    return false;
  }
  *value = json.get<uint64_t>();
  return true;
}

bool read_value(const Json& json, int64_t* value) {
  if (!json.is_number_integer() ||
      (json.is_number_unsigned() &&
       json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))) {
    return false;
  }
  *value = json.get<int64_t>();
  return true;
}

bool read_value(const Json& json, TokenId* value) {
  int64_t wide = 0;
  if (!read_value(json, &wide) || wide < std::numeric_limits<TokenId>::min() ||
      wide > std::numeric_limits<TokenId>::max()) {
    return false;
  }
  *value = static_cast<TokenId>(wide);
  return true;
}

bool read_value(const Json& json, double* value) {
  if (!json.is_number()) {
    return false;
  }
  *value = json.get<double>();
  return std::isfinite(*value);
}

bool read_value(const Json& json, std::vector<TokenId>* values) {
  if (!json.is_array()) {
    return read_value(json, &values->emplace_back());
  }
  for (const Json& element : json) {
    if (!read_value(element, &values->emplace_back())) {
      return false;
    }
  }
  return true;
}

template <typename T>
constexpr std::string_view wanted() {
  if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<T, double>) {
    return "a finite number";
  } else if constexpr (std::is_same_v<T, TokenId>) {
    return "a token id";
  } else if constexpr (std::is_same_v<T, std::vector<TokenId>>) {
    return "a token id or a list of them";
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    return "a whole number from 0 to 18446744073709551615";
  } else {
    return "a whole number";
  }
}

Status read_field(const Json& json, std::string_view where, const GenerationField& field,
                  GenerationConfig* config) {
  return std::visit(
      [&](auto member) -> Status {
        using T = typename std::decay_t<decltype(config->*member)>::value_type;
        if (json.is_null()) {
          (config->*member).reset();
          return {};
        }
        T value{};
        if (!read_value(json, &value)) {
          return fail(ErrorCode::kInvalidArgument, "{}: {}: {} found, want {}", where, field.name,
                      dump_json(json).substr(0, 80), wanted<T>());
        }
        config->*member = std::move(value);
        return {};
      },
      field.member);
}

}  // namespace

Result<ParsedConfig> generation_config_from_json(const Json& json, std::string_view where,
                                                 UnknownKeys unknown_keys) {
  if (!json.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} found, want an object of settings", where,
                json.type_name());
  }
  ParsedConfig parsed;
  for (const auto& [key, value] : json.items()) {
    const GenerationField* field = find_generation_field(key);
    if (field != nullptr) {
      RETURN_IF_ERROR(read_field(value, where, *field, &parsed.config));
    } else if (unknown_keys == UnknownKeys::kRefuse) {
      return tl::unexpected(unknown_field_error(where, key));
    } else if (!value.is_null() && would_act(key, value)) {
      parsed.ignored.push_back(fmt::format("{}={}", key, dump_json(value).substr(0, 80)));
    }
  }
  return parsed;
}

Json to_json(const GenerationConfig& config) {
  Json json = Json::object();
  for (const GenerationField& field : generation_fields()) {
    std::visit(
        [&](const auto& value) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(value)>, std::monostate>) {
            json[std::string(field.name)] = value;
          }
        },
        get_field(config, field));
  }
  return json;
}

}  // namespace logitlab
