#include "base/env.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sched.h>
#include <sstream>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace logitlab {
namespace {

// The number after "<key>:" of a /proc table in kB, as bytes.
size_t proc_kilobytes(const char* path, std::string_view key) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    if (line.size() > key.size() && line.compare(0, key.size(), key) == 0 &&
        line[key.size()] == ':') {
      return static_cast<size_t>(std::strtoull(line.c_str() + key.size() + 1, nullptr, 10)) * 1024;
    }
  }
  return 0;
}

// Content of a cgroup v2 file as a number; nullopt for "max" or no such file.
std::optional<size_t> cgroup_number(const char* path) {
  std::ifstream in(path);
  std::string word;
  if (!(in >> word) || word == "max") {
    return std::nullopt;
  }
  return static_cast<size_t>(std::strtoull(word.c_str(), nullptr, 10));
}

// The number after `key` in a cgroup v2 table.
size_t cgroup_statistic(const char* path, std::string_view key) {
  std::ifstream in(path);
  std::string word;
  size_t value = 0;
  while (in >> word >> value) {
    if (word == key) {
      return value;
    }
  }
  return 0;
}

}  // namespace

std::optional<std::string> env_var(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  if (value == nullptr || *value == '\0') {
    return std::nullopt;
  }
  return std::string(value);
}

std::filesystem::path logitlab_home() {
  if (auto home = env_var("LOGITLAB_HOME")) {
    return *home;
  }
  if (auto home = env_var("HOME")) {
    return std::filesystem::path(*home) / ".cache" / "logitlab";
  }
  return "/tmp/logitlab";
}

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

MemoryReading read_memory() {
  MemoryReading reading;
  reading.resident_bytes = proc_kilobytes("/proc/self/status", "VmRSS");
  reading.resident_file_bytes = proc_kilobytes("/proc/self/status", "RssFile");
  reading.peak_resident_bytes = proc_kilobytes("/proc/self/status", "VmHWM");
  reading.available_bytes = proc_kilobytes("/proc/meminfo", "MemAvailable");
  reading.total_bytes = proc_kilobytes("/proc/meminfo", "MemTotal");
  if (const auto limit = cgroup_number("/sys/fs/cgroup/memory.max")) {
    reading.total_bytes = std::min(reading.total_bytes, *limit);
    // A container is charged for the page cache that it filled; the kernel drops that first, so it
    // is as available as it is outside of containers.
    const size_t cache = cgroup_statistic("/sys/fs/cgroup/memory.stat", "active_file") +
                         cgroup_statistic("/sys/fs/cgroup/memory.stat", "inactive_file");
    const size_t charged = cgroup_number("/sys/fs/cgroup/memory.current").value_or(0);
    const size_t used = charged - std::min(charged, cache);
    reading.available_bytes = std::min(reading.available_bytes, *limit > used ? *limit - used : 0);
  }
  return reading;
}

int available_processors() {
  int count = 1;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    count = std::max(1, CPU_COUNT(&set));
  }
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (in >> quota >> period && quota != "max" && period > 0) {
    const double share = std::strtod(quota.c_str(), nullptr) / period;
    count = std::clamp(static_cast<int>(std::ceil(share)), 1, count);
  }
  return count;
}

std::string cpu_model_name() {
  std::ifstream in("/proc/cpuinfo");
  std::string line;
  while (std::getline(in, line)) {
    if (line.rfind("model name", 0) == 0) {
      const size_t colon = line.find(':');
      if (colon != std::string::npos && colon + 2 < line.size()) {
        return line.substr(colon + 2);
      }
    }
  }
  return "unknown";
}

bool stdout_is_terminal() {
  return ::isatty(STDOUT_FILENO) == 1;
}
bool stderr_is_terminal() {
  return ::isatty(STDERR_FILENO) == 1;
}
bool stdin_is_terminal() {
  return ::isatty(STDIN_FILENO) == 1;
}

int terminal_columns() {
  constexpr int kNarrowest = 20;
  for (const int fd : {STDERR_FILENO, STDOUT_FILENO}) {
    winsize size{};
    if (::isatty(fd) == 1 && ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
      return std::max<int>(kNarrowest, size.ws_col);
    }
  }
  if (const auto columns = env_var("COLUMNS")) {
    const int value = std::atoi(columns->c_str());
    if (value > 0) {
      return std::max(kNarrowest, value);
    }
  }
  return 80;
}

}  // namespace logitlab
