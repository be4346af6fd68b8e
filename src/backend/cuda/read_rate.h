// How fast a device reads its own memory: the ceiling of decoding.
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

namespace logitlab::cuda {

// Bytes per second of reading `bytes` at `data` (device memory, on 16 bytes; much more than the
// cache) with bulk copies into shared memory; the median of `repeats` (at least 1). Waits for the
// device.
[[nodiscard]] cudaError_t read_rate(const std::byte* data, size_t bytes, int repeats,
                                    double* bytes_per_second);

}  // namespace logitlab::cuda
