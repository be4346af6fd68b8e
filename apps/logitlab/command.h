// What one subcommand is. A new one is a file cmd_<name>.cc and one line in commands.cc.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "terminal.h"

namespace CLI {
class App;
}  // namespace CLI

namespace logitlab {

// What a command runs with, besides its own flags.
struct Invocation {
  Terminal& terminal;
  bool json = false;  // one JSON document on standard output instead of text
};

// The work, after the flags were read. The value is the exit code: 0, 1 where a comparison that
// was asked for found a difference, 130 for a run that the user stopped.
using Action = std::function<Result<int>(Invocation&)>;

struct Example {
  std::string_view command;  // without "logitlab "
  std::string_view meaning;
};

struct Command {
  std::string_view name;
  std::string_view summary;          // one line, no full stop
  std::string_view description;      // paragraphs for --help, separated by empty lines
  std::vector<Example> examples;     // at least one
  Action (*declare)(CLI::App& app);  // adds the flags; the action owns what they fill
};

// All commands, in the order of --help. Static data.
[[nodiscard]] const std::vector<Command>& commands();
// Null when there is none of that name.
[[nodiscard]] const Command* find_command(std::string_view name);

[[nodiscard]] Command bench_command();
[[nodiscard]] Command chat_command();
[[nodiscard]] Command compare_command();
[[nodiscard]] Command explain_command();
[[nodiscard]] Command export_command();
[[nodiscard]] Command report_command();
[[nodiscard]] Command runs_command();
[[nodiscard]] Command show_command();
[[nodiscard]] Command doctor_command();
[[nodiscard]] Command first_contact_command();
[[nodiscard]] Command generate_command();
[[nodiscard]] Command inspect_command();
[[nodiscard]] Command logits_command();
[[nodiscard]] Command process_command();
[[nodiscard]] Command studies_command();
[[nodiscard]] Command study_command();
[[nodiscard]] Command template_command();
[[nodiscard]] Command tokenize_command();
[[nodiscard]] Command tree_command();
[[nodiscard]] Command verify_command();
[[nodiscard]] Command whatif_command();

}  // namespace logitlab
