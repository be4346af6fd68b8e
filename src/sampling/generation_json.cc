#include <array>
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
                      quoted_json(json), type_words(value).wanted);
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
      parsed.ignored.push_back(fmt::format("{}={}", key, quoted_json(value)));
    }
  }
  return parsed;
}

Json to_json(const GenerationConfig& config) {
  Json json = Json::object();
  for (const GenerationField& field : generation_fields()) {
    const FieldValue value = get_field(config, field);
    if (!std::holds_alternative<std::monostate>(value)) {
      json[std::string(field.name)] = field_json(value);
    }
  }
  return json;
}

}  // namespace logitlab
