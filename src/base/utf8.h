// UTF-8 as Unicode 15 defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/error.h"

namespace logitlab {

// Offset of the first byte that is not part of a valid sequence; text.size() when all is valid.
[[nodiscard]] size_t first_invalid_utf8(std::string_view text);

// kInvalidArgument naming `where`, the byte and its offset.
[[nodiscard]] Status require_utf8(std::string_view text, std::string_view where);

// Every maximal invalid part becomes one U+FFFD (Unicode's recommended practice; also Python's).
[[nodiscard]] std::string replace_invalid_utf8(std::string_view text);

// Appends the code point (a scalar value) as UTF-8.
void append_utf8(std::string* out, char32_t code_point);

// Columns that a terminal needs for `text`: combining marks 0, wide East Asian and emoji 2.
[[nodiscard]] size_t display_width(std::string_view text);

// `text` as one printable line: control characters and line breaks as escapes (\n, \t, \x1b),
// invalid bytes as \xHH. For terminals and messages: untrusted text must not move the cursor.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace logitlab
