// A whole model on one CUDA device: contract in backend/device_model.h.
#pragma once

#include <memory>

#include "backend/device_model.h"
#include "backend/gpu.h"
#include "base/error.h"

namespace logitlab::cuda {

// `device` is open (open_device).
[[nodiscard]] Result<std::unique_ptr<DeviceModel>> make_cuda_model(
    const GpuDevice& device, const DeviceModelSpec& spec, const DeviceLoadOptions& options);

}  // namespace logitlab::cuda
