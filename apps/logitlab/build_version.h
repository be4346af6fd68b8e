// Which source and compiler made this binary.
#pragma once

#include <string_view>

namespace logitlab {

[[nodiscard]] std::string_view build_version();  // "0.1.0"
// 40 hex digits, "-dirty" behind them when the tree had changes; "unknown" outside a repository.
[[nodiscard]] std::string_view build_commit();
[[nodiscard]] std::string_view build_compiler();  // "GCC 12.2.0"
[[nodiscard]] std::string_view build_type();      // "Release"

}  // namespace logitlab
