#include "sampling/field_values.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace logitlab {
namespace {

template <typename T>
bool parse_number(std::string_view text, T* value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return code == std::errc() && end == text.data() + text.size();
}

// Composite values are written as JSON on the command line too.
template <typename T>
bool parse_as_json(std::string_view text, T* value) {
  const auto json = parse_json(text, "value");
  return json.has_value() && read_value(*json, value);
}

template <typename T, typename Range>
bool read_word(const Json& json, const Range& known, T* value) {
  if (!json.is_string()) {
    return false;
  }
  for (const T candidate : known) {
    if (json.get<std::string>() == name(candidate)) {
      *value = candidate;
      return true;
    }
  }
  return false;
}

constexpr std::array kSemantics = {Semantics::kTransformers, Semantics::kVllm,
                                   Semantics::kLlamaCpp};
constexpr std::array kLogitsDtypes = {LogitsDtype::kFloat32, LogitsDtype::kBfloat16,
                                      LogitsDtype::kFloat16};

// "1,2"; the ids of one biased sequence as a key.
bool parse_ids_text(std::string_view text, TokenIds* ids) {
  while (true) {
    const size_t comma = text.find(',');
    std::string_view word = text.substr(0, comma);
    while (!word.empty() && word.front() == ' ') {
      word.remove_prefix(1);
    }
    if (!parse_number(word, &ids->emplace_back())) {
      return false;
    }
    if (comma == std::string_view::npos) {
      return true;
    }
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

std::string_view name(EarlyStopping value) {
  switch (value) {
    case EarlyStopping::kFalse:
      return "false";
    case EarlyStopping::kTrue:
      return "true";
    case EarlyStopping::kNever:
      return "never";
  }
  return "";
}

std::string_view name(Semantics value) {
  switch (value) {
    case Semantics::kTransformers:
      return "transformers";
    case Semantics::kVllm:
      return "vllm";
    case Semantics::kLlamaCpp:
      return "llama.cpp";
  }
  return "";
}

std::string_view name(LogitsDtype value) {
  switch (value) {
    case LogitsDtype::kFloat32:
      return "float32";
    case LogitsDtype::kBfloat16:
      return "bfloat16";
    case LogitsDtype::kFloat16:
      return "float16";
  }
  return "";
}

// ------------------------------------------------------------------------------------ bool

TypeWords type_words(bool /*tag*/) {
  return {"boolean", "true or false"};
}
bool parse_value(std::string_view text, bool* value) {
  *value = text == "true" || text == "1";
  return *value || text == "false" || text == "0";
}
bool read_value(const Json& json, bool* value) {
  if (!json.is_boolean()) {
    return false;
  }
  *value = json.get<bool>();
  return true;
}
Json json_value(bool value) {
  return value;
}

// --------------------------------------------------------------------------------- numbers

TypeWords type_words(int64_t /*tag*/) {
  return {"integer", "a whole number"};
}
bool parse_value(std::string_view text, int64_t* value) {
  return parse_number(text, value);
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
Json json_value(int64_t value) {
  return value;
}

TypeWords type_words(uint64_t /*tag*/) {
  return {"integer", "a whole number from 0 to 18446744073709551615"};
}
bool parse_value(std::string_view text, uint64_t* value) {
  return parse_number(text, value);
}
bool read_value(const Json& json, uint64_t* value) {
  if (!json.is_number_unsigned()) {
    return false;
  }
  *value = json.get<uint64_t>();
  return true;
}
Json json_value(uint64_t value) {
  return value;
}

TypeWords type_words(double /*tag*/) {
  return {"number", "a finite number"};
}
bool parse_value(std::string_view text, double* value) {
  return parse_number(text, value) && std::isfinite(*value);
}
bool read_value(const Json& json, double* value) {
  if (!json.is_number()) {
    return false;
  }
  *value = json.get<double>();
  return std::isfinite(*value);
}
Json json_value(double value) {
  return value;
}

// ------------------------------------------------------------------------------------- ids

TypeWords type_words(TokenId /*tag*/) {
  return {"token id", "a token id"};
}
bool parse_value(std::string_view text, TokenId* value) {
  return parse_number(text, value);
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
Json json_value(TokenId value) {
  return value;
}

TypeWords type_words(const TokenIds& /*tag*/) {
  return {"token ids", "token ids, as 2 or 2,7"};
}
bool parse_value(std::string_view text, TokenIds* value) {
  return text.starts_with('[') ? parse_as_json(text, value) : parse_ids_text(text, value);
}
bool read_value(const Json& json, TokenIds* value) {
  if (!json.is_array()) {
    return read_value(json, &value->emplace_back());
  }
  for (const Json& element : json) {
    if (!read_value(element, &value->emplace_back())) {
      return false;
    }
  }
  return true;
}
Json json_value(const TokenIds& value) {
  return value;
}

TypeWords type_words(const std::vector<TokenIds>& /*tag*/) {
  return {"lists of token ids", "lists of token ids, as [[5],[7,8]]"};
}
bool parse_value(std::string_view text, std::vector<TokenIds>* value) {
  return parse_as_json(text, value);
}
bool read_value(const Json& json, std::vector<TokenIds>* value) {
  if (!json.is_array()) {
    return false;
  }
  for (const Json& element : json) {
    if (!element.is_array() || !read_value(element, &value->emplace_back())) {
      return false;
    }
  }
  return true;
}
Json json_value(const std::vector<TokenIds>& value) {
  return value;
}

// ----------------------------------------------------------------------------------- texts

TypeWords type_words(const std::vector<std::string>& /*tag*/) {
  return {"texts", "a text, or several as [\"one\",\"two\"]"};
}
bool parse_value(std::string_view text, std::vector<std::string>* value) {
  if (text.starts_with("[\"") && parse_as_json(text, value)) {
    return true;
  }
  // assign() also drops what a list left behind that turned out to be none.
  value->assign(1, std::string(text));
  return true;
}
bool read_value(const Json& json, std::vector<std::string>* value) {
  if (json.is_string()) {
    value->push_back(json.get<std::string>());
    return true;
  }
  if (!json.is_array()) {
    return false;
  }
  for (const Json& element : json) {
    if (!element.is_string()) {
      return false;
    }
    value->push_back(element.get<std::string>());
  }
  return true;
}
Json json_value(const std::vector<std::string>& value) {
  return value;
}

// ---------------------------------------------------------------------------------- biases

TypeWords type_words(const std::vector<SequenceBias>& /*tag*/) {
  return {"biased sequences",
          "pairs of token ids above 0 and a bias, as [[[5],2.5],[[7,8],-1.0]], or an object, as "
          "{\"5\":2.5,\"7,8\":-1.0}, where the id 0 is accepted too"};
}
bool parse_value(std::string_view text, std::vector<SequenceBias>* value) {
  return parse_as_json(text, value);
}
bool read_value(const Json& json, std::vector<SequenceBias>* value) {
  if (json.is_object()) {
    for (const auto& [key, bias] : json.items()) {
      SequenceBias& entry = value->emplace_back();
      if (!parse_ids_text(key, &entry.ids) || !read_value(bias, &entry.bias)) {
        return false;
      }
    }
    return true;
  }
  if (!json.is_array()) {
    return false;
  }
  for (const Json& pair : json) {
    SequenceBias& entry = value->emplace_back();
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_array() ||
        !read_value(pair[0], &entry.ids) || !read_value(pair[1], &entry.bias)) {
      return false;
    }
    for (const TokenId id : entry.ids) {
      if (id <= 0) {
        return false;
      }
    }
  }
  return true;
}
Json json_value(const std::vector<SequenceBias>& value) {
  // The form of an object reads every id back.
  Json out = Json::object();
  for (const SequenceBias& entry : value) {
    out[fmt::format("{}", fmt::join(entry.ids, ","))] = entry.bias;
  }
  return out;
}

TypeWords type_words(const std::vector<TokenBias>& /*tag*/) {
  return {"biased tokens",
          "token ids with a bias, as 50256:-100,11:5 or {\"50256\":-100,\"11\":5}"};
}
bool parse_value(std::string_view text, std::vector<TokenBias>* value) {
  if (text.starts_with('{') || text.starts_with('[')) {
    return parse_as_json(text, value);
  }
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view pair = text.substr(0, comma);
    const size_t colon = pair.find(':');
    TokenBias& entry = value->emplace_back();
    if (colon == std::string_view::npos || !parse_number(pair.substr(0, colon), &entry.id) ||
        !parse_value(pair.substr(colon + 1), &entry.bias)) {
      return false;
    }
    if (comma == std::string_view::npos) {
      return true;
    }
    text.remove_prefix(comma + 1);
  }
}
bool read_value(const Json& json, std::vector<TokenBias>* value) {
  if (!json.is_object()) {
    return false;
  }
  for (const auto& [key, bias] : json.items()) {
    TokenBias& entry = value->emplace_back();
    if (!parse_number(std::string_view(key), &entry.id) || !read_value(bias, &entry.bias)) {
      return false;
    }
  }
  return true;
}
Json json_value(const std::vector<TokenBias>& value) {
  Json out = Json::object();
  for (const TokenBias& entry : value) {
    out[fmt::format("{}", entry.id)] = entry.bias;
  }
  return out;
}

TypeWords type_words(const ExponentialDecay& /*tag*/) {
  return {"start,factor", "a number of tokens and a factor, as 30,1.05"};
}
bool parse_value(std::string_view text, ExponentialDecay* value) {
  if (text.starts_with('[')) {
    return parse_as_json(text, value);
  }
  const size_t comma = text.find(',');
  return comma != std::string_view::npos && parse_number(text.substr(0, comma), &value->start) &&
         parse_value(text.substr(comma + 1), &value->factor);
}
bool read_value(const Json& json, ExponentialDecay* value) {
  return json.is_array() && json.size() == 2 && read_value(json[0], &value->start) &&
         read_value(json[1], &value->factor);
}
Json json_value(const ExponentialDecay& value) {
  return Json::array({value.start, value.factor});
}

// ----------------------------------------------------------------------------------- words

TypeWords type_words(EarlyStopping /*tag*/) {
  return {"true|false|never", "true, false or \"never\""};
}
bool parse_value(std::string_view text, EarlyStopping* value) {
  bool is_true = false;
  return read_value(parse_value(text, &is_true) ? Json(is_true) : Json(std::string(text)), value);
}
bool read_value(const Json& json, EarlyStopping* value) {
  if (json.is_boolean()) {
    *value = json.get<bool>() ? EarlyStopping::kTrue : EarlyStopping::kFalse;
    return true;
  }
  // transformers lets the numbers 1 and 0 pass and then finds that neither is true.
  if (json.is_number() && (json == Json(1) || json == Json(0))) {
    *value = EarlyStopping::kFalse;
    return true;
  }
  *value = EarlyStopping::kNever;
  return json.is_string() && json.get<std::string>() == name(EarlyStopping::kNever);
}
Json json_value(EarlyStopping value) {
  return value == EarlyStopping::kNever ? Json(std::string(name(value)))
                                        : Json(value == EarlyStopping::kTrue);
}

TypeWords type_words(Semantics /*tag*/) {
  return {"transformers|vllm|llama.cpp", "transformers, vllm or llama.cpp"};
}
bool parse_value(std::string_view text, Semantics* value) {
  return read_value(std::string(text), value);
}
bool read_value(const Json& json, Semantics* value) {
  return read_word(json, kSemantics, value);
}
Json json_value(Semantics value) {
  return std::string(name(value));
}

TypeWords type_words(LogitsDtype /*tag*/) {
  return {"float32|bfloat16|float16", "float32, bfloat16 or float16"};
}
bool parse_value(std::string_view text, LogitsDtype* value) {
  return read_value(std::string(text), value);
}
bool read_value(const Json& json, LogitsDtype* value) {
  return read_word(json, kLogitsDtypes, value);
}
Json json_value(LogitsDtype value) {
  return std::string(name(value));
}

// --------------------------------------------------------------------------------- any type

Json field_json(const FieldValue& value) {
  return std::visit(
      [](const auto& held) -> Json {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return nullptr;
        } else {
          return json_value(held);
        }
      },
      value);
}

std::string value_text(const FieldValue& value) {
  return std::visit(
      [](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return "none";
        } else if constexpr (std::is_same_v<T, TokenIds>) {
          return held.empty() ? "none" : fmt::format("{}", fmt::join(held, ","));
        } else if constexpr (std::is_arithmetic_v<T>) {
          return fmt::format("{}", held);
        } else if constexpr (std::is_enum_v<T>) {
          return std::string(name(held));
        } else {
          return dump_json(json_value(held));
        }
      },
      value);
}

}  // namespace logitlab
