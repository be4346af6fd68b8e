// Where two runs part, as a person reads it and as JSON: what explain and verify share.
#pragma once

#include <array>
#include <string>

#include "base/json.h"
#include "lab/measures/divergence.h"
#include "terminal.h"

namespace logitlab {

// Both tokens as each run saw them, the gap, the draws, the settings that differ. `runs`: what the
// two are called. Prints nothing of a divergence without a step at which both chose.
void print_divergence(Terminal* terminal, const Divergence& divergence,
                      const std::array<std::string, 2>& runs);
[[nodiscard]] Json json_of(const Divergence& divergence);

}  // namespace logitlab
