// The CUDA devices of this machine, and errors of the runtime as ours.
#pragma once

#include <string_view>

#include <cuda_runtime.h>

#include "backend/gpu.h"
#include "base/error.h"

namespace logitlab::cuda {

// kResourceExhausted for a lack of memory, else kUnavailable; `what` says what was being done.
[[nodiscard]] Status status_of(cudaError_t error, std::string_view what);

// Device `ordinal`, open in the calling thread. kUnavailable: no driver, a driver older than the
// runtime, no device, an ordinal that is not there, a capability that this build has no code for.
[[nodiscard]] Result<GpuDevice> open_device(int ordinal);

}  // namespace logitlab::cuda

// Returns from the enclosing function with the runtime's error, if there is one.
#define CUDA_OR_RETURN(call, what) RETURN_IF_ERROR(::logitlab::cuda::status_of((call), (what)))
