// Backend::mamba2 of the cpu backend.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

namespace logitlab {

// Rows of a span that are left for the last chunk, or are all of it, and are fewer than this go
// through the recurrence one by one; more are a chunk of matrix products.
inline constexpr int64_t kLeastChunkRows = 16;

void cpu_mamba2(ThreadPool& threads, const CpuKernels& kernels, const Mamba2Weights& weights,
                const Mamba2Shape& shape, std::span<const Mamba2Span> spans, float* projected,
                float* out);

}  // namespace logitlab
