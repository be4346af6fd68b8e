// Moves weights from their files to where kernels read them, in parallel and in small pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "tensor/dtype.h"

namespace logitlab {

// Where the values of a tensor go: `out` [rows, row_bytes(dtype, columns)], and as which type.
struct WeightTarget {
  const TensorEntry* entry = nullptr;
  DType dtype = DType::kF32;
  std::byte* out = nullptr;
};

// What a reading came to.
struct WeightTraffic {
  size_t bytes = 0;  // of the files
  double seconds = 0;
  int n_files = 0;
};

// The values of rows [first, first + n_rows) as `dtype`. kDataLoss: the file cannot be read.
[[nodiscard]] Status read_rows(const Checkpoint& checkpoint, const TensorEntry& entry,
                               int64_t first, int64_t n_rows, DType dtype, std::byte* out,
                               std::vector<std::byte>* scratch);

// Fills every target. Behind the readers the pages of the files go back to the system; of a file
// that is in `releases` (by file index) all of them. Memory besides the targets: some MiB a thread.
// kDataLoss names the file and the byte.
[[nodiscard]] Result<WeightTraffic> read_weights(const Checkpoint& checkpoint,
                                                 std::span<const WeightTarget> targets,
                                                 const std::vector<bool>& releases,
                                                 ThreadPool& threads, ProgressSink& progress);

// Reads tensors of the mapping once, so that the first forward finds them in memory.
[[nodiscard]] WeightTraffic touch_weights(const Checkpoint& checkpoint,
                                          std::span<const TensorEntry* const> entries,
                                          ThreadPool& threads, ProgressSink& progress);

}  // namespace logitlab
