// Base64 (RFC 4648, with padding), for rows of numbers inside JSON.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace logitlab {

[[nodiscard]] std::string encode_base64(std::span<const std::byte> bytes);

// kInvalidArgument naming `where`: a character outside the alphabet, a length that is not a
// multiple of four, bits after the end.
[[nodiscard]] Result<std::vector<std::byte>> decode_base64(std::string_view text,
                                                           std::string_view where);

}  // namespace logitlab
