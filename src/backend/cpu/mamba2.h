// Backend::mamba2 of the cpu backend.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

namespace logitlab {

// Blocks of at least as many rows are a chunk of matrix products; fewer go through the recurrence
// one by one. Measured with 64 heads of 64, state 128, one thread of an AVX-512 machine
// (backend_bench, mamba2): the recurrence does 22,800 rows/s whatever their number; chunks of 4
// rows 24,800, of 8 rows 29,800, of 16 rows 44,000, of 64 rows 43,700.
inline constexpr int64_t kLeastChunkRows = 8;

void cpu_mamba2(ThreadPool& threads, const CpuKernels& kernels, const Mamba2Weights& weights,
                const Mamba2Shape& shape, std::span<const Mamba2Span> spans, float* projected,
                float* out);

}  // namespace logitlab
