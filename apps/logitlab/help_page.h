// The pages that --help prints, wrapped to the terminal.
#pragma once

#include <string>

#include "command.h"
#include "terminal.h"

namespace logitlab {

// Of the program: its commands.
[[nodiscard]] std::string overview_page(const Terminal& terminal);
// Of one command whose flags are declared on `app`.
[[nodiscard]] std::string command_page(const Terminal& terminal, const Command& command,
                                       const CLI::App& app);

}  // namespace logitlab
