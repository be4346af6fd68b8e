// Values that crates/text hands out, as C++ values.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "logitlab_text.h"

namespace logitlab {

// Takes ownership.
[[nodiscard]] std::string take_string(LogitlabTextString value);

// Takes the message. kInvalidArgument or kInternal; "where: line N: "
// stands in front.
[[nodiscard]] tl::unexpected<Error> take_error(int32_t status, LogitlabTextError error,
                                               std::string_view where);

[[nodiscard]] inline const uint8_t* rust_bytes(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

}  // namespace logitlab
