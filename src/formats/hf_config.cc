#include "formats/hf_config.h"

#include <limits>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/checkpoint.h"

namespace logitlab {
namespace {

constexpr std::string_view kFloatTag = "__float__";

// Objects keep their keys in a list, so building one of n keys takes n^2 / 2 comparisons. This is
// the most of them that one file may ask for: one object of about 20000 keys.
constexpr uint64_t kMaxKeyComparisons = 200'000'000;

uint64_t key_comparisons(std::string_view text) {
  uint64_t total = 0;
  std::vector<uint64_t> n_keys;  // of the open objects and arrays
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      n_keys.push_back(0);
    } else if ((c == '}' || c == ']') && !n_keys.empty()) {
      n_keys.pop_back();
    } else if (c == ':' && !n_keys.empty()) {
      total += n_keys.back()++;
    }
  }
  return total;
}

// {"__float__": "Infinity"} is how transformers writes a number that JSON has no word for. Depth is
// bounded by the parse.
void untag_floats(Json* value) {
  if (value->is_object() && value->size() == 1 && value->begin().key() == kFloatTag &&
      value->begin().value().is_string()) {
    const std::string word = value->begin().value().get<std::string>();
    if (word == "Infinity") {
      *value = std::numeric_limits<double>::infinity();
    } else if (word == "-Infinity") {
      *value = -std::numeric_limits<double>::infinity();
    } else if (word == "NaN") {
      *value = std::numeric_limits<double>::quiet_NaN();
    }
    return;
  }
  if (value->is_structured()) {
    for (Json& child : *value) {
      untag_floats(&child);
    }
  }
}

std::string found_text(const Json& value) {
  if (value.is_object()) {
    return fmt::format("an object of {} keys", value.size());
  }
  if (value.is_array()) {
    return fmt::format("a list of {}", value.size());
  }
  return quoted_json(value);
}

tl::unexpected<Error> wrong_kind(std::string_view where, std::string_view key, const Json& found,
                                 std::string_view wanted) {
  return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want {}", where, key, found_text(found),
              wanted);
}

// The value of a key; nullptr when it is absent or null.
Result<const Json*> look_up(const Json& object, std::string_view key, std::string_view where) {
  if (!object.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "{}: found {}, want an object", where,
                found_text(object));
  }
  const auto at = object.find(std::string(key));
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

// An integer of JSON that fits int64.
std::optional<int64_t> as_int(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return number <= static_cast<uint64_t>(INT64_MAX)
               ? std::optional<int64_t>(static_cast<int64_t>(number))
               : std::nullopt;
  }
  return value.is_number_integer() ? std::optional<int64_t>(value.get<int64_t>()) : std::nullopt;
}

std::optional<double> as_float(const Json& value) {
  return value.is_number() ? std::optional<double>(value.get<double>()) : std::nullopt;
}

std::optional<bool> as_bool(const Json& value) {
  return value.is_boolean() ? std::optional<bool>(value.get<bool>()) : std::nullopt;
}

std::optional<std::string> as_string(const Json& value) {
  return value.is_string() ? std::optional<std::string>(value.get<std::string>()) : std::nullopt;
}

template <typename T>
Result<std::optional<T>> get_scalar(const Json& object, std::string_view key,
                                    std::string_view where, std::optional<T> (*as)(const Json&),
                                    std::string_view wanted) {
  ASSIGN_OR_RETURN(const Json* value, look_up(object, key, where));
  if (value == nullptr) {
    return std::optional<T>();
  }
  auto converted = as(*value);
  if (!converted) {
    return wrong_kind(where, key, *value, wanted);
  }
  return converted;
}

template <typename T>
Result<std::optional<std::vector<T>>> get_list(const Json& object, std::string_view key,
                                               std::string_view where,
                                               std::optional<T> (*as)(const Json&),
                                               std::string_view wanted) {
  ASSIGN_OR_RETURN(const Json* value, look_up(object, key, where));
  if (value == nullptr) {
    return std::optional<std::vector<T>>();
  }
  std::vector<T> list;
  if (!value->is_array()) {
    auto converted = as(*value);
    if (!converted) {
      return wrong_kind(where, key, *value, wanted);
    }
    list.push_back(std::move(*converted));
    return std::optional<std::vector<T>>(std::move(list));
  }
  for (const Json& element : *value) {
    auto converted = as(element);
    if (!converted) {
      return wrong_kind(where, fmt::format("{}[{}]", key, list.size()), element, wanted);
    }
    list.push_back(std::move(*converted));
  }
  return std::optional<std::vector<T>>(std::move(list));
}

}  // namespace

Result<Json> parse_config(std::string_view text, std::string_view where) {
  if (key_comparisons(text) > kMaxKeyComparisons) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: an object has more keys than is sane, want at most about 20000", where);
  }
  ASSIGN_OR_RETURN(Json value, parse_json(text, where, {.allow_python_numbers = true}));
  if (!value.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "{}: found {}, want an object", where,
                found_text(value));
  }
  untag_floats(&value);
  if (!value.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "{}: found a tagged number, want an object", where);
  }
  return value;
}

Result<Json> read_json_object(const std::filesystem::path& path, size_t max_bytes) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, max_bytes));
  return parse_config(text, path.string());
}

Result<Json> read_config(const std::filesystem::path& folder) {
  return read_json_object(folder / "config.json", kMaxConfigBytes);
}

Result<Json> read_generation_config(const std::filesystem::path& folder) {
  auto config = read_json_object(folder / "generation_config.json", kMaxConfigBytes);
  if (!config && config.error().code == ErrorCode::kNotFound) {
    return Json::object();
  }
  return config;
}

Result<std::optional<int64_t>> get_int(const Json& object, std::string_view key,
                                       std::string_view where) {
  return get_scalar<int64_t>(object, key, where, as_int, "an integer of 64 bits");
}

Result<std::optional<double>> get_float(const Json& object, std::string_view key,
                                        std::string_view where) {
  return get_scalar<double>(object, key, where, as_float, "a number");
}

Result<std::optional<bool>> get_bool(const Json& object, std::string_view key,
                                     std::string_view where) {
  return get_scalar<bool>(object, key, where, as_bool, "true or false");
}

Result<std::optional<std::string>> get_string(const Json& object, std::string_view key,
                                              std::string_view where) {
  return get_scalar<std::string>(object, key, where, as_string, "a string");
}

Result<std::optional<std::vector<int64_t>>> get_int_list(const Json& object, std::string_view key,
                                                         std::string_view where) {
  return get_list<int64_t>(object, key, where, as_int, "an integer or a list of integers");
}

Result<std::optional<std::vector<double>>> get_float_list(const Json& object, std::string_view key,
                                                          std::string_view where) {
  return get_list<double>(object, key, where, as_float, "a number or a list of numbers");
}

Result<std::optional<std::vector<std::string>>> get_string_list(const Json& object,
                                                                std::string_view key,
                                                                std::string_view where) {
  return get_list<std::string>(object, key, where, as_string, "a string or a list of strings");
}

Result<const Json*> get_object(const Json& object, std::string_view key, std::string_view where) {
  ASSIGN_OR_RETURN(const Json* value, look_up(object, key, where));
  if (value != nullptr && !value->is_object()) {
    return wrong_kind(where, key, *value, "an object");
  }
  return value;
}

Result<int64_t> require_int(const Json& object, std::string_view key, std::string_view where,
                            int64_t low, int64_t high) {
  ASSIGN_OR_RETURN(const auto value, get_int(object, key, where));
  if (!value) {
    return fail(ErrorCode::kInvalidArgument, "{}: no {}, want an integer from {} to {}", where, key,
                low, high);
  }
  if (*value < low || *value > high) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want {} to {}", where, key, *value, low,
                high);
  }
  return *value;
}

}  // namespace logitlab
