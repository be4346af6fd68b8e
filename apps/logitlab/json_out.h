// JSON documents on standard output: one a command.
#pragma once

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "terminal.h"

namespace logitlab {

// Indented for people, with arrays and short objects of plain values on one line; bytes that are
// not UTF-8 become U+FFFD, numbers that are not finite become null. Ends with a line break.
void print_json(Terminal* terminal, const Json& document);

// {"code": "not_found", "message": ...}
[[nodiscard]] Json json_of(const Error& error);

}  // namespace logitlab
