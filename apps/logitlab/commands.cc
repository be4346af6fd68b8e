#include "command.h"

namespace logitlab {

const std::vector<Command>& commands() {
  static const std::vector<Command> kCommands = {
      first_contact_command(), generate_command(), chat_command(),    tokenize_command(),
      template_command(),      logits_command(),   process_command(), inspect_command(),
      tree_command(),          whatif_command(),   study_command(),   studies_command(),
      report_command(),        runs_command(),     show_command(),    compare_command(),
      explain_command(),       verify_command(),   export_command(),  doctor_command(),
      bench_command(),
  };
  return kCommands;
}

const Command* find_command(std::string_view name) {
  for (const Command& command : commands()) {
    if (command.name == name) {
      return &command;
    }
  }
  return nullptr;
}

}  // namespace logitlab
