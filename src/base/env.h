// The process's surroundings: environment, clock, memory, CPU. Only base/ asks the system for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace logitlab {

// Value of an environment variable; nullopt when unset or empty.
[[nodiscard]] std::optional<std::string> env_var(const char* name);

// $LOGITLAB_HOME, else $HOME/.cache/logitlab (else /tmp/logitlab when there is no home).
[[nodiscard]] std::filesystem::path logitlab_home();

// Seconds of a clock that only goes forward.
[[nodiscard]] double monotonic_seconds();

struct MemoryReading {
  size_t resident_bytes = 0;       // of this process now
  size_t resident_file_bytes = 0;  // of which pages of files: programs and mapped weights
  size_t peak_resident_bytes = 0;  // of this process since its start
  // What the system could give without swapping: free memory, and page cache that it would drop
  // for us, that of mapped files included.
  size_t available_bytes = 0;
  size_t total_bytes = 0;
};
// Zeros where the system does not say. A container's limit (cgroup v2) caps total and available.
[[nodiscard]] MemoryReading read_memory();

// Processors that this process may run on (affinity and cgroup quota respected), at least 1.
[[nodiscard]] int available_processors();

// "AMD EPYC ..." from the system, or "unknown".
[[nodiscard]] std::string cpu_model_name();

[[nodiscard]] bool stdout_is_terminal();
[[nodiscard]] bool stderr_is_terminal();
[[nodiscard]] bool stdin_is_terminal();
// Columns of the terminal on stderr or stdout; $COLUMNS; else 80. Never less than 20.
[[nodiscard]] int terminal_columns();

}  // namespace logitlab
