// Brings weights to the device.
#pragma once

#include <span>

#include <cuda_runtime.h>

#include "backend/cuda/model_view.h"
#include "backend/device_model.h"
#include "base/error.h"

namespace logitlab::cuda {

// Fills all targets, through two pinned buffers: while one is on its way the other is filled by all
// threads. Generated ones are made on the device. Returns when all of it is there.
// kResourceExhausted: no pinned memory.
[[nodiscard]] Status upload_weights(std::span<const Upload> uploads,
                                    const DeviceLoadOptions& options, cudaStream_t stream);

}  // namespace logitlab::cuda
