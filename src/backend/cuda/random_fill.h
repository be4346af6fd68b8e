// Weights that nobody stored.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

namespace logitlab::cuda {

// Fills n BF16 values (n a multiple of 8, below 2^32; `out` on 16 bytes) with matrix number
// `number` of DeviceModelSpec's formula.
[[nodiscard]] cudaError_t fill_random(void* out, int64_t n, uint32_t number, cudaStream_t stream);

}  // namespace logitlab::cuda
