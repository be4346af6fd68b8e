// The settings of a run as people read them: which hold, where each comes from, which act.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"
#include "logitlab/trace.h"
#include "sampling/effective_config.h"
#include "terminal.h"

namespace logitlab {

// One paragraph for standard error: the settings that were given and those that act, and the stop
// ids, each with its origin. `quoted` names a token: "'</s>'".
[[nodiscard]] std::string ledger_lines(const Terminal& terminal,
                                       const std::vector<LedgerEntry>& ledger,
                                       const std::vector<TracedStopId>& stop_ids,
                                       const std::function<std::string(TokenId)>& quoted);
// Every setting in a table.
[[nodiscard]] std::string ledger_table(const Terminal& terminal,
                                       const std::vector<LedgerEntry>& ledger);
// {"temperature": {"value": 0.7, "origin": "given", "acts": true, "why": ""}, ...} for every
// setting that has a value.
[[nodiscard]] Json ledger_json(const EffectiveConfig& effective,
                               const std::vector<LedgerEntry>& ledger);

}  // namespace logitlab
