#include "help_page.h"

#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "text_layout.h"

namespace logitlab {
namespace {

// Below this a flag stands on a line of its own, above its meaning.
constexpr int kTwoColumns = 64;

std::string heading(const Terminal& terminal, std::string_view text) {
  return fmt::format("\n{}\n", terminal.paint(Style::kHeading, text));
}

// "-m, --model MODEL"; spellings with '_' are accepted and not shown.
std::string flag_text(const CLI::Option& option) {
  if (option.get_positional()) {
    return option.get_name(true);
  }
  std::string names;
  const auto add = [&names](const std::string& name) {
    names += names.empty() ? name : ", " + name;
  };
  for (const std::string& name : option.get_snames()) {
    add("-" + name);
  }
  for (const std::string& name : option.get_lnames()) {
    if (name.find('_') == std::string::npos) {
      add("--" + name);
    }
  }
  // CLI11 appends what a check accepts (":INT in [0 - 9]"); the description says it in words.
  const std::string type = option.get_type_name().substr(0, option.get_type_name().find(':'));
  return option.get_items_expected_max() == 0 || type.empty() ? names : names + " " + type;
}

void add_entry(const Terminal& terminal, const std::string& name, const std::string& meaning,
               size_t name_width, std::string* out) {
  const auto columns = static_cast<size_t>(terminal.columns());
  if (terminal.columns() < kTwoColumns) {
    *out += "  " + terminal.paint(Style::kAccent, name) + "\n";
    *out += wrap_with_prefix(meaning, columns, "    ", "    ");
    return;
  }
  const std::string margin(name_width + 4, ' ');
  const std::string text = wrap_with_prefix(meaning, columns, margin, margin);
  if (name.size() > name_width) {
    *out += "  " + terminal.paint(Style::kAccent, name) + "\n" + text;
    return;
  }
  *out += "  " + terminal.paint(Style::kAccent, name) +
          std::string(name_width - name.size() + 2, ' ') + text.substr(margin.size());
}

}  // namespace

std::string overview_page(const Terminal& terminal) {
  const auto columns = static_cast<size_t>(terminal.columns());
  std::string out = wrap_with_prefix(
      "logitlab: a local laboratory for how language models choose their next token", columns, "",
      "");
  out += "\n";
  out += wrap_with_prefix("Usage: logitlab COMMAND [flags]", columns, "", "  ");
  out += heading(terminal, "Commands");
  for (const Command& command : commands()) {
    add_entry(terminal, std::string(command.name), std::string(command.summary), 14, &out);
  }
  out += heading(terminal, "Everywhere");
  add_entry(terminal, "--help", "what a command does, with examples and every flag", 14, &out);
  add_entry(terminal, "--json", "one JSON document on standard output", 14, &out);
  add_entry(terminal, "--version", "version, commit and compiler of this binary", 14, &out);
  out += "\n";
  out += wrap_with_prefix(
      "Results go to standard output, progress and notes to standard error. Exit codes: 0 done, "
      "2 usage, 3 input (model, file, setting), 4 resources (memory, device, disk), 70 a bug, "
      "130 stopped by the user.",
      columns, "", "");
  out += heading(terminal, "Start here");
  out += wrap_with_prefix("logitlab first-contact", columns, "  ", "    ");
  return out;
}

std::string command_page(const Terminal& terminal, const Command& command, const CLI::App& app) {
  const auto columns = static_cast<size_t>(terminal.columns());
  std::string out = wrap_with_prefix(fmt::format("logitlab {}: {}", command.name, command.summary),
                                     columns, "", "  ");
  std::string usage = fmt::format("Usage: logitlab {} [flags]", command.name);
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      usage += fmt::format(" [{}]", option->get_name(true));
    }
  }
  out += "\n" + wrap_with_prefix(usage, columns, "", "  ") + "\n";
  out += wrap_with_prefix(command.description, columns, "", "");
  out += heading(terminal, "Examples");
  for (const Example& example : command.examples) {
    const std::string line =
        wrap_with_prefix(fmt::format("logitlab {}", example.command), columns, "  ", "        ");
    out += terminal.paint(Style::kAccent, line);
    out += terminal.paint(Style::kDim, wrap_with_prefix(example.meaning, columns, "    ", "    "));
  }
  size_t name_width = 0;
  for (const CLI::Option* option : app.get_options()) {
    name_width = std::max(name_width, flag_text(*option).size());
  }
  name_width = std::min<size_t>(name_width, 26);
  for (const std::string& group : app.get_groups()) {
    std::string entries;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_group() == group && !group.empty()) {
        add_entry(terminal, flag_text(*option), option->get_description(), name_width, &entries);
      }
    }
    if (!entries.empty()) {
      out += heading(terminal, group) + entries;
    }
  }
  return out;
}

}  // namespace logitlab
