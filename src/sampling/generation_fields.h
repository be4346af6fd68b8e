// The one table of the settings of generation: name, type, range, default, help. Flags of the
// command line, JSON, --help and docs all come from it; a new setting is a member of
// GenerationConfig and one entry in generation_fields.cc.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "logitlab/generation_config.h"
#include "sampling/field_values.h"

namespace logitlab {

// Where a setting lives in GenerationConfig; the alternative that is held is its type.
using FieldMember = std::variant<
    std::optional<bool> GenerationConfig::*, std::optional<int64_t> GenerationConfig::*,
    std::optional<uint64_t> GenerationConfig::*, std::optional<double> GenerationConfig::*,
    std::optional<TokenId> GenerationConfig::*, std::optional<TokenIds> GenerationConfig::*,
    std::optional<std::vector<std::string>> GenerationConfig::*,
    std::optional<std::vector<TokenIds>> GenerationConfig::*,
    std::optional<std::vector<SequenceBias>> GenerationConfig::*,
    std::optional<std::vector<TokenBias>> GenerationConfig::*,
    std::optional<ExponentialDecay> GenerationConfig::*,
    std::optional<EarlyStopping> GenerationConfig::*, std::optional<Semantics> GenerationConfig::*,
    std::optional<LogitsDtype> GenerationConfig::*>;

enum class FieldGroup { kChoice, kPenalties, kLength, kSearch, kIds };
// "choice of the token", "penalties and bans", "length and stopping", "search", "token ids":
// headings of --help.
[[nodiscard]] std::string_view name(FieldGroup group);

// Accepted numbers; checked by validate_generation_config, not when a value is read.
struct FieldRange {
  double lowest;
  bool lowest_is_excluded = false;
  double highest = std::numeric_limits<double>::infinity();
  bool highest_is_excluded = false;
  std::string_view advice = "";  // ends the message: what the user may have meant
};

struct GenerationField {
  std::string_view name;  // as in transformers, and as the flag with '-' for '_'
  FieldMember member;
  FieldGroup group;
  std::optional<FieldRange> range;  // none: any value of the type
  FieldValue fallback;              // used when neither the call nor the model sets it
  // What the word "none" means: the value that turns the setting off. monostate: it has none.
  FieldValue off;
  std::string_view help;  // what it does and what to try, one or two sentences
  // Acts in the draw alone; greedy decoding and beam search without do_sample never look at it.
  bool only_when_sampling = false;
};

// All settings, in the order of --help. Static data.
[[nodiscard]] std::span<const GenerationField> generation_fields();
// Null when there is none of that name.
[[nodiscard]] const GenerationField* find_generation_field(std::string_view name);

// "boolean", "integer", "token ids", "true|false|never".
[[nodiscard]] std::string_view type_name(const GenerationField& field);
// "> 0", "0 to 1", ">= 0"; empty when every value of the type is accepted.
[[nodiscard]] std::string range_text(const GenerationField& field);
[[nodiscard]] FieldValue get_field(const GenerationConfig& config, const GenerationField& field);
// `value` holds the field's type, or monostate to unset it; anything else is a bug.
void set_field_value(GenerationConfig* config, const GenerationField& field,
                     const FieldValue& value);

// Sets a field from a word of the command line: "0.7", "true", "1,2" (token ids), or "none" for the
// value that turns it off (as the keyword None does in transformers). Whole numbers are accepted
// where transformers insists on a float; "2.0" for an integer, nan and inf are not.
// kInvalidArgument: unknown name (with the nearest known one), value of another type.
[[nodiscard]] Status set_field(GenerationConfig* config, std::string_view field_name,
                               std::string_view text);

// The error for a name that is no setting: the nearest known name, or all of them.
[[nodiscard]] Error unknown_field_error(std::string_view where, std::string_view field_name);

enum class UnknownKeys {
  kRefuse,  // what a person wrote
  kIgnore,  // generation_config.json, which holds much that is not a setting
};

struct ParsedConfig {
  GenerationConfig config;
  // With kIgnore: settings of transformers that would act there and that are not in the table, with
  // their values ("repetition_penalty=1.05"). Book-keeping keys and neutral values are left out.
  std::vector<std::string> ignored;
};

// Reads an object of settings. null leaves a field unset. Integers are accepted where a number is
// wanted; booleans, strings and non-finite numbers are not. `where` names the source in messages.
// kInvalidArgument.
[[nodiscard]] Result<ParsedConfig> generation_config_from_json(const Json& json,
                                                               std::string_view where,
                                                               UnknownKeys unknown_keys);

// The fields that are set, in table order. generation_config_from_json reads it back unchanged.
[[nodiscard]] Json to_json(const GenerationConfig& config);

}  // namespace logitlab
