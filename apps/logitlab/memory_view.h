// The memory ledger for people and for programs.
#pragma once

#include <string>

#include "base/json.h"
#include "engine/memory_ledger.h"
#include "terminal.h"

namespace logitlab {

// "memory: weights 93.8 MiB mapped; state 0 B + keys and values 1.5 MiB; scratch 30.1 MiB; peak
// 140.2 MiB; page cache of the files 93.8 MiB, stays; available 22.6 GiB, after loading 22.5 GiB"
// of a loaded model, on one line.
[[nodiscard]] std::string memory_line(const MemoryLedger& ledger);

// The line for standard error, broken to the width of a terminal and whole elsewhere; without the
// last line break.
[[nodiscard]] std::string memory_note(const Terminal& terminal, const MemoryLedger& ledger);

// Every figure of a loaded model in bytes; null for what the system does not say.
[[nodiscard]] Json memory_json(const MemoryLedger& ledger);

// The same of a plan: what has not happened is left out.
[[nodiscard]] Json memory_plan_json(const MemoryLedger& ledger);

}  // namespace logitlab
