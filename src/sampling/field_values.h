// The types that a setting can have: how each is named, read and written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "logitlab/generation_config.h"

namespace logitlab {

// A setting's value; monostate: unset.
using FieldValue =
    std::variant<std::monostate, bool, int64_t, uint64_t, double, TokenId, TokenIds,
                 std::vector<std::string>, std::vector<TokenIds>, std::vector<SequenceBias>,
                 std::vector<TokenBias>, ExponentialDecay, EarlyStopping, Semantics, LogitsDtype>;

// What a type is called ("integer") and what it wants ("a whole number"); the value is a tag.
struct TypeWords {
  std::string_view name;
  std::string_view wanted;
};
[[nodiscard]] TypeWords type_words(bool tag);
[[nodiscard]] TypeWords type_words(int64_t tag);
[[nodiscard]] TypeWords type_words(uint64_t tag);
[[nodiscard]] TypeWords type_words(double tag);
[[nodiscard]] TypeWords type_words(TokenId tag);
[[nodiscard]] TypeWords type_words(const TokenIds& tag);
[[nodiscard]] TypeWords type_words(const std::vector<std::string>& tag);
[[nodiscard]] TypeWords type_words(const std::vector<TokenIds>& tag);
[[nodiscard]] TypeWords type_words(const std::vector<SequenceBias>& tag);
[[nodiscard]] TypeWords type_words(const std::vector<TokenBias>& tag);
[[nodiscard]] TypeWords type_words(const ExponentialDecay& tag);
[[nodiscard]] TypeWords type_words(EarlyStopping tag);
[[nodiscard]] TypeWords type_words(Semantics tag);
[[nodiscard]] TypeWords type_words(LogitsDtype tag);

// From a word of the command line: 0.7, true, 1,2; lists of lists and pairs as JSON. False: not
// one. `value` is empty before.
[[nodiscard]] bool parse_value(std::string_view text, bool* value);
[[nodiscard]] bool parse_value(std::string_view text, int64_t* value);
[[nodiscard]] bool parse_value(std::string_view text, uint64_t* value);
[[nodiscard]] bool parse_value(std::string_view text, double* value);
[[nodiscard]] bool parse_value(std::string_view text, TokenId* value);
[[nodiscard]] bool parse_value(std::string_view text, TokenIds* value);
[[nodiscard]] bool parse_value(std::string_view text, std::vector<std::string>* value);
[[nodiscard]] bool parse_value(std::string_view text, std::vector<TokenIds>* value);
[[nodiscard]] bool parse_value(std::string_view text, std::vector<SequenceBias>* value);
[[nodiscard]] bool parse_value(std::string_view text, std::vector<TokenBias>* value);
[[nodiscard]] bool parse_value(std::string_view text, ExponentialDecay* value);
[[nodiscard]] bool parse_value(std::string_view text, EarlyStopping* value);
[[nodiscard]] bool parse_value(std::string_view text, Semantics* value);
[[nodiscard]] bool parse_value(std::string_view text, LogitsDtype* value);

// From JSON. Whole numbers are accepted where a number is wanted; other types are not mixed. False:
// not one. `value` is empty before.
[[nodiscard]] bool read_value(const Json& json, bool* value);
[[nodiscard]] bool read_value(const Json& json, int64_t* value);
[[nodiscard]] bool read_value(const Json& json, uint64_t* value);
[[nodiscard]] bool read_value(const Json& json, double* value);
[[nodiscard]] bool read_value(const Json& json, TokenId* value);
[[nodiscard]] bool read_value(const Json& json, TokenIds* value);
[[nodiscard]] bool read_value(const Json& json, std::vector<std::string>* value);
[[nodiscard]] bool read_value(const Json& json, std::vector<TokenIds>* value);
[[nodiscard]] bool read_value(const Json& json, std::vector<SequenceBias>* value);
[[nodiscard]] bool read_value(const Json& json, std::vector<TokenBias>* value);
[[nodiscard]] bool read_value(const Json& json, ExponentialDecay* value);
[[nodiscard]] bool read_value(const Json& json, EarlyStopping* value);
[[nodiscard]] bool read_value(const Json& json, Semantics* value);
[[nodiscard]] bool read_value(const Json& json, LogitsDtype* value);

// To JSON; read_value() gives the same value back.
[[nodiscard]] Json json_value(bool value);
[[nodiscard]] Json json_value(int64_t value);
[[nodiscard]] Json json_value(uint64_t value);
[[nodiscard]] Json json_value(double value);
[[nodiscard]] Json json_value(TokenId value);
[[nodiscard]] Json json_value(const TokenIds& value);
[[nodiscard]] Json json_value(const std::vector<std::string>& value);
[[nodiscard]] Json json_value(const std::vector<TokenIds>& value);
[[nodiscard]] Json json_value(const std::vector<SequenceBias>& value);
[[nodiscard]] Json json_value(const std::vector<TokenBias>& value);
[[nodiscard]] Json json_value(const ExponentialDecay& value);
[[nodiscard]] Json json_value(EarlyStopping value);
[[nodiscard]] Json json_value(Semantics value);
[[nodiscard]] Json json_value(LogitsDtype value);

// What parse_value accepts, as short as it goes: "0.7", "true", "1,2", "never"; "none" when unset
// or an empty list.
[[nodiscard]] std::string value_text(const FieldValue& value);
// null when unset.
[[nodiscard]] Json field_json(const FieldValue& value);

[[nodiscard]] std::string_view name(EarlyStopping value);  // "false", "true", "never"
[[nodiscard]] std::string_view name(Semantics value);      // "transformers", "vllm", "llama.cpp"
[[nodiscard]] std::string_view name(LogitsDtype value);    // "float32", "bfloat16", "float16"

}  // namespace logitlab
