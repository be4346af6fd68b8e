// Words about devices: no CUDA in here, so that a build without it tests them too.
#include "backend/cuda/device_text.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace logitlab::cuda {

std::string gibibytes(size_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1U << 30U));
}

bool is_compiled_for(std::string_view architectures, int major, int minor) {
  while (!architectures.empty()) {
    const size_t end = std::min(architectures.find(','), architectures.size());
    const std::string_view one = architectures.substr(0, end);
    architectures.remove_prefix(std::min(end + 1, architectures.size()));
    int number = 0;
    const auto [rest, error] = std::from_chars(one.data(), one.data() + one.size(), number);
    if (error != std::errc()) {
      continue;
    }
    const bool is_exact = rest != one.data() + one.size();
    const bool minor_fits = is_exact ? minor == number % 10 : minor >= number % 10;
    if (major == number / 10 && minor_fits) {
      return true;
    }
  }
  return false;
}

std::string architecture_list(std::string_view architectures) {
  std::string text = "sm_";
  for (const char c : architectures) {
    text += c == ',' ? std::string(", sm_") : std::string(1, c);
  }
  return text;
}

std::string version_text(int version) {
  return version == 0 ? std::string() : fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string no_driver_message(int ordinal, std::string_view runtime_version) {
  return fmt::format(
      "device cuda:{}: there is no NVIDIA driver on this machine (libcuda.so.1 is not found), want "
      "one that knows CUDA {}; use cpu",
      ordinal, runtime_version);
}

std::string old_driver_message(int ordinal, std::string_view driver_version,
                               std::string_view runtime_version) {
  return fmt::format(
      "device cuda:{}: the driver of this machine knows CUDA up to {}, this build needs {}; "
      "update the driver, or use cpu",
      ordinal, driver_version, runtime_version);
}

std::string no_such_device_message(int ordinal, std::span<const std::string> names) {
  if (names.empty()) {
    return fmt::format(
        "device cuda:{}: the driver is there and shows no device (CUDA_VISIBLE_DEVICES can hide "
        "them); use cpu",
        ordinal);
  }
  return fmt::format("device cuda:{}: this machine has {} CUDA device{}, cuda:0{} ({})", ordinal,
                     names.size(), names.size() == 1 ? "" : "s",
                     names.size() == 1 ? "" : fmt::format(" to cuda:{}", names.size() - 1),
                     fmt::join(names, ", "));
}

std::string not_compiled_message(const GpuDevice& device, std::string_view architectures) {
  return fmt::format(
      "device cuda:{}: {} has compute capability {}.{}, this build has code for {}; build with "
      "-DLOGITLAB_CUDA_ARCHITECTURES={}{}",
      device.ordinal, device.name, device.capability_major, device.capability_minor,
      architecture_list(architectures), device.capability_major, device.capability_minor);
}

}  // namespace logitlab::cuda
