#include "settings_options.h"

#include <algorithm>
#include <cctype>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

// Given again, such a flag adds to what was given before.
bool is_repeatable(const GenerationField& field) {
  return std::holds_alternative<std::optional<std::vector<std::string>> GenerationConfig::*>(
      field.member);
}

bool is_boolean(const GenerationField& field) {
  return std::holds_alternative<std::optional<bool> GenerationConfig::*>(field.member);
}

std::string help_of(const GenerationField& field) {
  std::string help(field.help);
  if (!help.empty() && help.back() != '.') {
    help += '.';
  }
  if (is_repeatable(field)) {
    help += " May be given several times.";
  }
  const std::string range = range_text(field);
  if (!range.empty()) {
    help += fmt::format(" Range: {}.", range);
  }
  if (!std::holds_alternative<std::monostate>(field.fallback)) {
    help += fmt::format(" Default: the model's own, else {}.", value_text(field.fallback));
  }
  return help;
}

std::string group_title(FieldGroup group) {
  std::string title(name(group));
  if (!title.empty()) {
    title.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(title.front())));
  }
  return title;
}

std::string type_word(const GenerationField& field) {
  std::string word;
  for (const char c : type_name(field)) {
    word += c == ' ' ? '-' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return word;
}

}  // namespace

void SettingsOptions::declare(CLI::App& app) {
  for (const GenerationField& field : generation_fields()) {
    Given& given = given_.emplace_back(Given{std::string(field.name), {}});
    std::string flag = given.name;
    std::replace(flag.begin(), flag.end(), '_', '-');
    // The spelling of transformers is understood as well.
    const std::string spellings =
        flag == given.name ? "--" + flag : fmt::format("--{},--{}", flag, given.name);
    CLI::Option* option = nullptr;
    if (is_boolean(field)) {
      option = app.add_flag_callback(
          spellings, [&given] { given.words = {"true"}; }, help_of(field));
      app.add_flag_callback(
             "--no-" + flag, [&given] { given.words = {"false"}; },
             fmt::format("{} = false.", field.name))
          ->group(group_title(field.group))
          ->excludes(option);
    } else {
      option = app.add_option_function<std::string>(
          spellings, [&given](const std::string& text) { given.words.push_back(text); },
          help_of(field));
      option->type_name(type_word(field));
      if (is_repeatable(field)) {
        option->trigger_on_parse()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      }
    }
    option->group(group_title(field.group));
  }
}

Result<GenerationConfig> SettingsOptions::config() const {
  GenerationConfig config;
  for (const Given& given : given_) {
    std::vector<std::string> stop_strings;
    for (const std::string& word : given.words) {
      RETURN_IF_ERROR(set_field(&config, given.name, word));
      const GenerationField* field = find_generation_field(given.name);
      if (field != nullptr && is_repeatable(*field)) {
        const FieldValue value = get_field(config, *field);
        if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
          stop_strings.insert(stop_strings.end(), texts->begin(), texts->end());
        }
        set_field_value(&config, *field, stop_strings);
      }
    }
  }
  return config;
}

Json json_of(const EffectiveConfig& effective) {
  const Json values = to_json(effective.config);
  Json out = Json::object();
  for (const auto& item : values.items()) {
    out[item.key()] = {{"value", item.value()},
                       {"origin", std::string(name(effective.origin(item.key())))}};
  }
  return out;
}

}  // namespace logitlab
