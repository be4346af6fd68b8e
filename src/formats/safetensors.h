// safetensors: one file, or shards with an index. Untrusted bytes in, a checked Checkpoint out.
// Everything is checked against the file's length before memory is taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/checkpoint.h"

namespace logitlab {

// The reference's limit on the JSON header.
inline constexpr size_t kMaxSafetensorsHeaderBytes = 100'000'000;

// `model.safetensors` of the folder, else all shards of `model.safetensors.index.json`. Only the
// tensors in the index's weight_map count. kNotFound (no weights; missing shards are named),
// kDataLoss (truncated, overlaps, holes, contradictions), kInvalidArgument (not safetensors),
// kUnsupported (a dtype or a rank that Tensor cannot hold).
[[nodiscard]] Result<Checkpoint> open_safetensors(const std::filesystem::path& folder);

// One file by its path. Errors as above.
[[nodiscard]] Result<Checkpoint> open_safetensors_file(const std::filesystem::path& path);

// The tensors of a file that is in memory; their data points into `file`. Sorted by offset. `where`
// names the file in messages.
[[nodiscard]] Result<std::vector<TensorEntry>> parse_safetensors(std::span<const std::byte> file,
                                                                 std::string_view where,
                                                                 int file_index = 0);

// `model.safetensors.index.json`.
struct SafetensorsIndex {
  // Tensor name -> file name (a plain name in the same folder), sorted by tensor name.
  std::vector<std::pair<std::string, std::string>> weight_map;
  std::vector<std::string> file_names;  // distinct, sorted
  std::optional<int64_t> total_size;    // what the writer says the tensors take, in bytes
};
[[nodiscard]] Result<SafetensorsIndex> parse_safetensors_index(std::string_view text,
                                                               std::string_view where);

// parse_safetensors_index on a file of at most 64 MiB.
[[nodiscard]] Result<SafetensorsIndex> read_safetensors_index(const std::filesystem::path& path);

}  // namespace logitlab
