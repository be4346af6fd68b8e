// Log lines go to stderr through one sink. The step does not log; prompts and outputs are never
// logged above debug.
#pragma once

#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace logitlab {

enum class LogLevel { kError, kWarn, kInfo, kDebug };

// Lines above this level are dropped. Default kWarn.
void set_log_level(LogLevel level);
[[nodiscard]] LogLevel log_level();

void log_line(LogLevel level, std::string_view message);

template <typename... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (level <= log_level()) {
    log_line(level, fmt::format(format, std::forward<Args>(args)...));
  }
}

}  // namespace logitlab
