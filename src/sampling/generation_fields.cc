#include "sampling/generation_fields.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/edit_distance.h"

namespace logitlab {
namespace {

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

TypeWords words_of(const GenerationField& field) {
  return std::visit(
      [](auto member) { return type_words(typename MemberValue<decltype(member)>::Type{}); },
      field.member);
}

}  // namespace

std::string_view name(FieldGroup group) {
  switch (group) {
    case FieldGroup::kChoice:
      return "choice of the token";
    case FieldGroup::kPenalties:
      return "penalties and bans";
    case FieldGroup::kLength:
      return "length and stopping";
    case FieldGroup::kSearch:
      return "search";
    case FieldGroup::kIds:
      return "token ids";
  }
  return "";
}

const GenerationField* find_generation_field(std::string_view name) {
  const auto fields = generation_fields();
  const auto found = std::ranges::find(fields, name, &GenerationField::name);
  return found == fields.end() ? nullptr : &*found;
}

std::string_view type_name(const GenerationField& field) {
  return words_of(field).name;
}

std::string range_text(const GenerationField& field) {
  if (!field.range) {
    return "";
  }
  if (std::isinf(field.range->highest)) {
    return fmt::format("{} {}", field.range->lowest_is_excluded ? ">" : ">=", field.range->lowest);
  }
  return fmt::format("{}{} to {}{}", field.range->lowest_is_excluded ? "above " : "",
                     field.range->lowest, field.range->highest_is_excluded ? "below " : "",
                     field.range->highest);
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
                  words_of(*field).wanted);
    }
    set_field_value(config, *field, field->off);
    return {};
  }
  return std::visit(
      [&](auto member) -> Status {
        typename MemberValue<decltype(member)>::Type value{};
        if (!parse_value(text, &value)) {
          return fail(ErrorCode::kInvalidArgument, "{}: \"{}\" found, want {}", field_name, text,
                      words_of(*field).wanted);
        }
        config->*member = std::move(value);
        return {};
      },
      field->member);
}

}  // namespace logitlab
