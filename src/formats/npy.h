// NumPy's .npy files, version 1.0, C order: how `logitlab logits --out x.npy` hands numbers over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace logitlab {

// values.size() must be the product of `shape` (CHECK). Written through a temporary file.
[[nodiscard]] Status write_npy(const std::filesystem::path& path, std::span<const float> values,
                               std::span<const int64_t> shape);
[[nodiscard]] Status write_npy(const std::filesystem::path& path, std::span<const int32_t> values,
                               std::span<const int64_t> shape);
[[nodiscard]] Status write_npy(const std::filesystem::path& path, std::span<const int64_t> values,
                               std::span<const int64_t> shape);

struct NpyFloats {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
// Reads little-endian float32 in C order. kInvalidArgument (another type, another order, not .npy),
// kDataLoss (the length does not fit the shape). `parse_npy` reads a file that is in memory.
[[nodiscard]] Result<NpyFloats> read_npy(const std::filesystem::path& path);
[[nodiscard]] Result<NpyFloats> parse_npy(std::span<const std::byte> file, std::string_view where);

}  // namespace logitlab
