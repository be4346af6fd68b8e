// What is said about CUDA devices. No CUDA in here, so that every build tests it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "backend/gpu.h"

namespace logitlab::cuda {

// "58.83 GiB"
[[nodiscard]] std::string gibibytes(size_t bytes);

// Whether code compiled for `architectures` ("90a,110") runs on capability major.minor: the same
// major and no newer minor; with a letter exactly that one.
[[nodiscard]] bool is_compiled_for(std::string_view architectures, int major, int minor);
// "sm_90a, sm_110"
[[nodiscard]] std::string architecture_list(std::string_view architectures);
// "13.0" of 13000; empty for 0.
[[nodiscard]] std::string version_text(int version);

[[nodiscard]] std::string no_driver_message(int ordinal, std::string_view runtime_version);
[[nodiscard]] std::string old_driver_message(int ordinal, std::string_view driver_version,
                                             std::string_view runtime_version);
// `names`: of the devices that there are.
[[nodiscard]] std::string no_such_device_message(int ordinal, std::span<const std::string> names);
[[nodiscard]] std::string not_compiled_message(const GpuDevice& device,
                                               std::string_view architectures);

}  // namespace logitlab::cuda
