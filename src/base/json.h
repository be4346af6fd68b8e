// JSON values. Parsing foreign text goes through parse_json alone: it bounds depth and size,
// accepts what Python's json writes (Infinity, -Infinity, NaN as bare tokens) only when asked, and
// never throws. Key order is kept.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/error.h"

namespace logitlab {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  int max_depth = 64;
  // Python writes non-finite numbers as bare words, which is not JSON. They become doubles.
  bool allow_python_numbers = false;
};

// Parses `text`. `where` names the file or field in messages. kInvalidArgument with line and
// column, what was found and what was wanted.
[[nodiscard]] Result<Json> parse_json(std::string_view text, std::string_view where,
                                      const JsonLimits& limits = {});

// Serialises; bytes that are not UTF-8 become U+FFFD. indent < 0: one line.
[[nodiscard]] std::string dump_json(const Json& value, int indent = -1);

// The value as a message quotes it: one printable line (see printable()) of about `max_bytes` bytes
// at most, with "..." where it was cut.
[[nodiscard]] std::string quoted_json(const Json& value, size_t max_bytes = 60);

}  // namespace logitlab
