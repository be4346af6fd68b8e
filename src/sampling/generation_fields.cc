#include "sampling/generation_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/check.h"
#include "base/edit_distance.h"

namespace logitlab {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<GenerationField> make_fields() {
  using Config = GenerationConfig;
  return {
      // Choice of the token.
      {.name = "do_sample",
       .member = &Config::do_sample,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = false,
       .off = false,
       .help =
           "false: always the most likely token (greedy). true: draw a token at random with its "
           "probability. The settings of the draw below act only with true"},
      {.name = "temperature",
       .member = &Config::temperature,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0,
                           .lowest_is_excluded = true,
                           .highest = kInfinity,
                           .only_when_sampling = true,
                           .advice = "for the most likely token at every step set do_sample to "
                                     "false"},
       .fallback = 1.0,
       .off = 1.0,
       .help = "Divides the logits before the draw: below 1 favours likely tokens, above 1 evens "
               "them out. 0.2 is careful, 0.7 usual, 1.5 wild"},
      {.name = "top_k",
       .member = &Config::top_k,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0,
                           .highest = kInfinity,
                           .only_when_sampling = true,
                           .advice = "0 turns the filter off"},
       .fallback = int64_t{50},
       .off = int64_t{0},
       .help = "Draws among the k most likely tokens; all that tie with the k-th stay. 0 is off. "
               "The default of 50 acts unless you change it"},
      {.name = "top_p",
       .member = &Config::top_p,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0,
                           .highest = kInfinity,
                           .only_when_sampling = true,
                           .advice = "1 turns the filter off"},
       .fallback = 1.0,
       .off = 1.0,
       .help = "Draws among the fewest tokens whose probabilities add up to p. 1 or more is off; "
               "0 keeps one token; 0.9 is usual"},
      {.name = "min_p",
       .member = &Config::min_p,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0,
                           .highest = 1,
                           .only_when_sampling = true,
                           .advice = "0 turns the filter off"},
       .fallback = {},
       .off = 0.0,
       .help = "Drops tokens less likely than this share of the most likely one, so the filter is "
               "narrow when the model is sure. 0.05 to 0.1 is usual"},
      {.name = "seed",
       .member = &Config::seed,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = uint64_t{0},
       .off = {},
       .help = "Names the random draws: the same seed and settings give the same text again"},
      {.name = "max_new_tokens",
       .member = &Config::max_new_tokens,
       .group = FieldGroup::kLength,
       .range = FieldRange{.lowest = 1, .highest = kInfinity},
       .fallback = {},
       .off = {},
       .help = "Stops after this many tokens beyond the prompt. 20 when no limit is set at all"},
      {.name = "min_new_tokens",
       .member = &Config::min_new_tokens,
       .group = FieldGroup::kLength,
       .range = FieldRange{.lowest = 0, .highest = kInfinity},
       .fallback = {},
       .off = int64_t{0},
       .help = "Forbids the end tokens until this many tokens are generated"},
      {.name = "max_length",
       .member = &Config::max_length,
       .group = FieldGroup::kLength,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Limit of prompt and new tokens together. max_new_tokens wins over it"},
      {.name = "eos_token_id",
       .member = &Config::eos_token_id,
       .group = FieldGroup::kIds,
       .range = {},
       .fallback = {},
       .off = std::vector<TokenId>{},
       .help = "End tokens: generation stops after any of them. One id or several, as 2,7; none "
               "runs to the limit"},
      {.name = "pad_token_id",
       .member = &Config::pad_token_id,
       .group = FieldGroup::kIds,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Fills the shorter rows of a batch; has no effect on a single sequence"},
      {.name = "bos_token_id",
       .member = &Config::bos_token_id,
       .group = FieldGroup::kIds,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "The token that begins a text"},
  };
}

std::string list_names() {
  std::string names;
  for (const GenerationField& field : generation_fields()) {
    fmt::format_to(std::back_inserter(names), "{}{}", names.empty() ? "" : ", ", field.name);
  }
  return names;
}

// A member pointer's optional, so that a visitor can name its value type.
template <typename Member>
struct MemberValue;
template <typename T>
struct MemberValue<std::optional<T> GenerationConfig::*> {
  using Type = T;
};

template <typename T>
bool parse_number(std::string_view text, T* value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return code == std::errc() && end == text.data() + text.size();
}

bool parse_value(std::string_view text, bool* value) {
  *value = text == "true" || text == "1";
  return *value || text == "false" || text == "0";
}
bool parse_value(std::string_view text, int64_t* value) {
  return parse_number(text, value);
}
bool parse_value(std::string_view text, uint64_t* value) {
  return parse_number(text, value);
}
bool parse_value(std::string_view text, TokenId* value) {
  return parse_number(text, value);
}
bool parse_value(std::string_view text, double* value) {
  return parse_number(text, value) && std::isfinite(*value);
}
bool parse_value(std::string_view text, std::vector<TokenId>* values) {
  while (true) {
    const size_t comma = text.find(',');
    TokenId id = 0;
    if (!parse_number(text.substr(0, comma), &id)) {
      return false;
    }
    values->push_back(id);
    if (comma == std::string_view::npos) {
      return true;
    }
    text.remove_prefix(comma + 1);
  }
}

// What set_field accepts, for messages.
std::string_view wanted_text(const GenerationField& field) {
  struct Wanted {
    std::string_view operator()(std::optional<bool> GenerationConfig::*) { return "true or false"; }
    std::string_view operator()(std::optional<int64_t> GenerationConfig::*) {
      return "a whole number";
    }
    std::string_view operator()(std::optional<uint64_t> GenerationConfig::*) {
      return "a whole number from 0 to 18446744073709551615";
    }
    std::string_view operator()(std::optional<double> GenerationConfig::*) {
      return "a finite number";
    }
    std::string_view operator()(std::optional<TokenId> GenerationConfig::*) { return "a token id"; }
    std::string_view operator()(std::optional<std::vector<TokenId>> GenerationConfig::*) {
      return "token ids, as 2 or 2,7";
    }
  };
  return std::visit(Wanted{}, field.member);
}

}  // namespace

std::string_view name(FieldGroup group) {
  switch (group) {
    case FieldGroup::kChoice:
      return "choice of the token";
    case FieldGroup::kLength:
      return "length";
    case FieldGroup::kIds:
      return "token ids";
  }
  return "";
}

std::span<const GenerationField> generation_fields() {
  static const std::vector<GenerationField> fields = make_fields();
  return fields;
}

const GenerationField* find_generation_field(std::string_view name) {
  const auto fields = generation_fields();
  const auto found = std::ranges::find(fields, name, &GenerationField::name);
  return found == fields.end() ? nullptr : &*found;
}

std::string_view type_name(const GenerationField& field) {
  struct TypeName {
    std::string_view operator()(std::optional<bool> GenerationConfig::*) { return "boolean"; }
    std::string_view operator()(std::optional<int64_t> GenerationConfig::*) { return "integer"; }
    std::string_view operator()(std::optional<uint64_t> GenerationConfig::*) { return "integer"; }
    std::string_view operator()(std::optional<double> GenerationConfig::*) { return "number"; }
    std::string_view operator()(std::optional<TokenId> GenerationConfig::*) { return "token id"; }
    std::string_view operator()(std::optional<std::vector<TokenId>> GenerationConfig::*) {
      return "token ids";
    }
  };
  return std::visit(TypeName{}, field.member);
}

std::string range_text(const GenerationField& field) {
  if (!field.range) {
    return "";
  }
  if (std::isinf(field.range->highest)) {
    return fmt::format("{} {}", field.range->lowest_is_excluded ? ">" : ">=", field.range->lowest);
  }
  return fmt::format("{}{} to {}", field.range->lowest_is_excluded ? "above " : "",
                     field.range->lowest, field.range->highest);
}

std::string value_text(const FieldValue& value) {
  return std::visit(
      [](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return "none";
        } else if constexpr (std::is_same_v<T, std::vector<TokenId>>) {
          return held.empty() ? "none" : fmt::format("{}", fmt::join(held, ","));
        } else {
          return fmt::format("{}", held);
        }
      },
      value);
}

FieldValue get_field(const GenerationConfig& config, const GenerationField& field) {
  return std::visit(
      [&config](auto member) -> FieldValue {
        const auto& value = config.*member;
        return value ? FieldValue(*value) : FieldValue();
      },
      field.member);
}

void set_field_value(GenerationConfig* config, const GenerationField& field,
                     const FieldValue& value) {
  std::visit(
      [&](auto member) {
        using T = typename MemberValue<decltype(member)>::Type;
        if (std::holds_alternative<std::monostate>(value)) {
          (config->*member).reset();
          return;
        }
        const T* held = std::get_if<T>(&value);
        CHECK(held != nullptr) << field.name << ": alternative " << value.index();
        config->*member = *held;
      },
      field.member);
}

Error unknown_field_error(std::string_view where, std::string_view field_name) {
  const GenerationField* nearest = nullptr;
  // Two slips at most: beyond that a guess is noise.
  size_t nearest_distance = 3;
  for (const GenerationField& field : generation_fields()) {
    const size_t distance = edit_distance(field.name, field_name);
    if (distance < nearest_distance) {
      nearest = &field;
      nearest_distance = distance;
    }
  }
  const std::string place = where.empty() ? "" : fmt::format("{}: ", where);
  if (nearest != nullptr) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}{}: no setting has this name; did you mean {}?", place, field_name,
                        nearest->name)};
  }
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}{}: no setting has this name; the settings are {}", place, field_name,
                      list_names())};
}

Status set_field(GenerationConfig* config, std::string_view field_name, std::string_view text) {
  const GenerationField* field = find_generation_field(field_name);
  if (field == nullptr) {
    return tl::unexpected(unknown_field_error("", field_name));
  }
  if (text == "none") {
    if (std::holds_alternative<std::monostate>(field->off)) {
      return fail(ErrorCode::kInvalidArgument, "{}: \"none\" found, want {}", field_name,
                  wanted_text(*field));
    }
    set_field_value(config, *field, field->off);
    return {};
  }
  return std::visit(
      [&](auto member) -> Status {
        typename MemberValue<decltype(member)>::Type value{};
        if (!parse_value(text, &value)) {
          return fail(ErrorCode::kInvalidArgument, "{}: \"{}\" found, want {}", field_name, text,
                      wanted_text(*field));
        }
        config->*member = std::move(value);
        return {};
      },
      field->member);
}

}  // namespace logitlab
