// Models that run on a device as a whole: from the layers of nn/ to what a device takes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/device_model.h"
#include "base/error.h"
#include "models/model.h"
#include "models/weight_store.h"
#include "nn/layers.h"
#include "nn/mamba2.h"
#include "nn/moe.h"
#include "nn/rope.h"

namespace logitlab {

[[nodiscard]] DeviceLinear device_linear(std::span<const Linear> parts);
[[nodiscard]] DeviceAttention device_attention(const Attention& attention, bool has_rope);
[[nodiscard]] DeviceMlp device_mlp(const GatedMlp& mlp);
[[nodiscard]] DeviceMlp device_mlp(const Mlp& mlp);
[[nodiscard]] DeviceMixture device_mixture(const MixtureOfExperts& mixture);
[[nodiscard]] DeviceMamba device_mamba(const Mamba2& mamba);

// Embedding, norm and head; layers and RoPE are the caller's.
[[nodiscard]] DeviceModelSpec device_frame(const ModelConfig& config, const Tensor& embedding,
                                           const Linear& head, bool is_tied,
                                           const RmsNorm& final_norm);
void set_rope(const Rope& rope, DeviceModelSpec* spec);

// Brings the model to the device of `context`, in place of WeightStore::finish_load: the matrices
// are read while they are copied, and what they took of host memory is given back. Errors as
// Backend::make_device_model, and those of reading.
[[nodiscard]] Result<std::unique_ptr<DeviceModel>> load_on_device(const DeviceModelSpec& spec,
                                                                  const LoadOptions& options,
                                                                  WeightStore* store,
                                                                  ExecContext& context);

// Model::forward of a model that lies on `device`.
[[nodiscard]] Result<Logits> forward_on_device(const DeviceModel& device, int64_t vocab_size,
                                               std::span<const SequenceChunk> batch);

// What `host` costs becomes on a device that runs whole models: keys and values of two bytes.
[[nodiscard]] StateCost device_state_cost(const StateCost& host);

}  // namespace logitlab
