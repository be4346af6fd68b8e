// What base/file's sources share.
#pragma once

#include <cstddef>
#include <filesystem>

#include "base/error.h"

namespace logitlab {

// Opens for reading and requires a regular file; returns its size. `*fd` is the caller's to close
// whatever the result, unless it is -1.
[[nodiscard]] Result<size_t> open_regular(const std::filesystem::path& path, int* fd);

}  // namespace logitlab
