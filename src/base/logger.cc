#include "base/logger.h"

#include <atomic>
#include <cstdio>
#include <string>

namespace logitlab {
namespace {

// One of the two process-wide values that the project allows itself: the sink's level.
std::atomic<LogLevel> g_level{LogLevel::kWarn};  // NOLINT(*-avoid-non-const-global-variables)

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarn:
      return "warning";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "?";
}

}  // namespace

void set_log_level(LogLevel level) {
  g_level.store(level, std::memory_order_relaxed);
}
LogLevel log_level() {
  return g_level.load(std::memory_order_relaxed);
}

void log_line(LogLevel level, std::string_view message) {
  const std::string line = fmt::format("{}: {}\n", name_of(level), message);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace logitlab
