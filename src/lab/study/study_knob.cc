#include "lab/study/study_knob.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <type_traits>
#include <variant>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/edit_distance.h"
#include "lab/study/study_keys.h"

namespace logitlab {
namespace {

struct OtherKnob {
  std::string_view name;
  int64_t lowest;
  int64_t highest;
};
constexpr std::string_view kThinking = "thinking";
constexpr std::array kOthers = {OtherKnob{"threads", 1, kMostThreads},
                                OtherKnob{"prefill_chunk", 1, kMostPrefillChunk},
                                OtherKnob{"neighbours", 0, kMostNeighbours}};

const OtherKnob* find_other(std::string_view name) {
  const auto* found = std::find_if(kOthers.begin(), kOthers.end(),
                                   [name](const OtherKnob& other) { return other.name == name; });
  return found == kOthers.end() ? nullptr : found;
}

bool is_allowed(std::string_view name, KnobPlace place) {
  const std::vector<std::string_view> names = knob_names(place);
  return std::find(names.begin(), names.end(), name) != names.end();
}

Result<Knob> make_other(std::string_view name, const Json& value) {
  Knob knob;
  knob.name = std::string(name);
  if (value.is_null()) {
    knob.text = "default";
    return knob;
  }
  if (name == kThinking) {
    if (!value.is_boolean()) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} found, want true or false", name,
                  quoted_json(value));
    }
    knob.number = value.get<bool>() ? 1 : 0;
    knob.text = *knob.number == 1 ? "true" : "false";
    return knob;
  }
  const OtherKnob* other = find_other(name);
  int64_t number = 0;
  if (!read_value(value, &number) || number < other->lowest || number > other->highest) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} found, want a whole number from {} to {}",
                name, quoted_json(value), other->lowest, other->highest);
  }
  knob.number = number;
  knob.text = fmt::format("{}", number);
  return knob;
}

Result<Knob> make_field(const GenerationField& field, const GenerationConfig& config) {
  Knob knob;
  knob.name = std::string(field.name);
  knob.field = &field;
  knob.value = get_field(config, field);
  knob.text =
      std::holds_alternative<std::monostate>(knob.value) ? "default" : value_text(knob.value);
  return knob;
}

// The seed of a run is the study's business.
Error seed_error(std::string_view where_to) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("seed: every run has its own; want {}", where_to)};
}

}  // namespace

Error unknown_name(std::string_view wrong, const std::vector<std::string_view>& names,
                   std::string_view what) {
  constexpr size_t kLongest = 64;  // the distance takes time and room by length
  std::string_view nearest;
  size_t nearest_distance = std::min<size_t>(3, wrong.size() / 2 + 1);
  if (wrong.size() <= kLongest) {
    for (const std::string_view name : names) {
      const size_t distance = edit_distance(name, wrong);
      if (distance < nearest_distance) {
        nearest = name;
        nearest_distance = distance;
      }
    }
  }
  const std::string quoted = quoted_json(std::string(wrong));
  return {ErrorCode::kInvalidArgument,
          nearest.empty()
              ? fmt::format("{}: {}; want one of {}", quoted, what, fmt::join(names, ", "))
              : fmt::format("{}: {}; did you mean {}?", quoted, what, nearest)};
}

std::vector<std::string_view> knob_names(KnobPlace place) {
  std::vector<std::string_view> names;
  if (place != KnobPlace::kExecution) {
    for (const GenerationField& field : generation_fields()) {
      if (field.name != "seed") {
        names.push_back(field.name);
      }
    }
  }
  if (place == KnobPlace::kAnywhere) {
    names.push_back(kThinking);
  }
  if (place != KnobPlace::kSettings) {
    for (const OtherKnob& other : kOthers) {
      names.push_back(other.name);
    }
  }
  return names;
}

Result<Knob> read_knob(std::string_view name, const Json& value, KnobPlace place) {
  if (name == "seed") {
    return tl::unexpected(seed_error("`seeds: {base: 7}` beside the settings"));
  }
  if (!is_allowed(name, place)) {
    return tl::unexpected(unknown_name(name, knob_names(place)));
  }
  const GenerationField* field = find_generation_field(name);
  if (field == nullptr) {
    return make_other(name, value);
  }
  GenerationConfig config;
  if (value == Json("none") && !std::holds_alternative<std::monostate>(field->off)) {
    set_field_value(&config, *field, field->off);
    return make_field(*field, config);
  }
  Json object = Json::object();
  object[std::string(name)] = value;
  auto parsed = generation_config_from_json(object, "", UnknownKeys::kRefuse);
  if (!parsed) {
    // It was given no place to name.
    constexpr size_t kEmptyPlace = 2;
    return fail(ErrorCode::kInvalidArgument, "{}", parsed.error().message.substr(kEmptyPlace));
  }
  return make_field(*field, parsed->config);
}

Result<Knob> parse_knob(std::string_view name, std::string_view word) {
  if (name == "seed") {
    return tl::unexpected(seed_error("base=7"));
  }
  if (!is_allowed(name, KnobPlace::kAnywhere)) {
    return tl::unexpected(unknown_name(name, knob_names(KnobPlace::kAnywhere)));
  }
  if (const GenerationField* field = find_generation_field(name)) {
    GenerationConfig config;
    if (word != "default") {
      RETURN_IF_ERROR(set_field(&config, name, word));
    }
    return make_field(*field, config);
  }
  if (word == "default") {
    return make_other(name, Json());
  }
  bool flag = false;
  if (name == kThinking && parse_value(word, &flag)) {
    return make_other(name, flag);
  }
  int64_t number = 0;
  return make_other(name, parse_value(word, &number) ? Json(number) : Json(std::string(word)));
}

bool has_single_values(std::string_view name) {
  const GenerationField* field = find_generation_field(name);
  if (field == nullptr) {
    return true;
  }
  return std::visit(
      [](auto member) {
        using T = typename std::decay_t<decltype(GenerationConfig{}.*member)>::value_type;
        return std::is_arithmetic_v<T> || std::is_enum_v<T>;
      },
      field->member);
}

void apply_knob(const Knob& knob, StudySetting* setting) {
  if (knob.field != nullptr) {
    set_field_value(&setting->config, *knob.field, knob.value);
  } else if (knob.name == kThinking) {
    setting->enable_thinking.reset();
    if (knob.number) {
      setting->enable_thinking = *knob.number != 0;
    }
  } else if (knob.name == "threads") {
    setting->execution.threads.reset();
    if (knob.number) {
      setting->execution.threads = static_cast<int>(*knob.number);
    }
  } else if (knob.name == "prefill_chunk") {
    setting->execution.prefill_chunk = knob.number;
  } else {
    setting->execution.neighbours = knob.number.value_or(0);
  }
}

}  // namespace logitlab
