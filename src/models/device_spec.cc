#include "models/device_spec.h"

#include <array>
#include <utility>

#include "base/check.h"
#include "models/batch.h"

namespace logitlab {

DeviceLinear device_linear(std::span<const Linear> parts) {
  DeviceLinear linear;
  for (const Linear& part : parts) {
    linear.weights.push_back(part.weight);
    linear.biases.push_back(part.bias);
  }
  return linear;
}

DeviceAttention device_attention(const Attention& attention, bool has_rope) {
  const std::array<Linear, 3> qkv = {attention.q, attention.k, attention.v};
  DeviceAttention device;
  device.qkv = device_linear(qkv);
  device.o = device_linear({&attention.o, 1});
  device.q_norm = attention.q_norm.weight;
  device.k_norm = attention.k_norm.weight;
  device.qk_norm_eps = attention.q_norm.eps;
  device.shape = attention.shape;
  device.window = attention.window;
  device.has_rope = has_rope;
  return device;
}

DeviceMlp device_mlp(const GatedMlp& mlp) {
  DeviceMlp device;
  device.gate = device_linear({&mlp.gate, 1});
  device.up = device_linear({&mlp.up, 1});
  device.down = device_linear({&mlp.down, 1});
  device.activation = Activation::kSilu;
  return device;
}

DeviceMlp device_mlp(const Mlp& mlp) {
  DeviceMlp device;
  device.up = device_linear({&mlp.up, 1});
  device.down = device_linear({&mlp.down, 1});
  device.activation = mlp.activation;
  return device;
}

DeviceMixture device_mixture(const MixtureOfExperts& mixture) {
  DeviceMixture device;
  device.router = device_linear({&mixture.router, 1});
  device.correction = mixture.correction;
  device.up = mixture.up;
  device.down = mixture.down;
  if (mixture.has_latent) {
    device.latent_in = device_linear({&mixture.latent_in, 1});
    device.latent_out = device_linear({&mixture.latent_out, 1});
  }
  device.has_shared = mixture.has_shared;
  if (mixture.has_shared) {
    device.shared = device_mlp(mixture.shared);
  }
  device.n_chosen = mixture.routing.n_chosen;
  device.n_groups = mixture.routing.n_groups;
  device.kept_groups = mixture.routing.kept_groups;
  device.normalises = mixture.routing.normalises;
  device.scale = mixture.routing.scale;
  device.activation = mixture.activation;
  return device;
}

DeviceMamba device_mamba(const Mamba2& mamba) {
  DeviceMamba device;
  device.in_proj = device_linear({&mamba.in_proj, 1});
  device.out_proj = device_linear({&mamba.out_proj, 1});
  device.weights = mamba.weights;
  device.shape = mamba.shape;
  return device;
}

DeviceModelSpec device_frame(const ModelConfig& config, const Tensor& embedding, const Linear& head,
                             bool is_tied, const RmsNorm& final_norm) {
  DeviceModelSpec spec;
  spec.hidden_size = config.hidden_size;
  spec.vocab_size = config.vocab_size;
  spec.norm_eps = config.rms_norm_eps;
  spec.embedding = embedding;
  spec.head = head.weight;
  spec.is_tied = is_tied;
  spec.head_bias = head.bias;
  spec.final_norm = final_norm.weight;
  return spec;
}

void set_rope(const Rope& rope, DeviceModelSpec* spec) {
  spec->inv_freq.assign(rope.inv_freq().begin(), rope.inv_freq().end());
  spec->rope_layout = rope.layout();
  spec->rope_attention_factor = rope.attention_factor();
}

Result<std::unique_ptr<DeviceModel>> load_on_device(const DeviceModelSpec& spec,
                                                    const LoadOptions& options, WeightStore* store,
                                                    ExecContext& context) {
  DeviceLoadOptions device_options;
  device_options.threads = &context.threads;
  device_options.progress = options.progress;
  device_options.will_need = [store](const std::byte* data, size_t bytes) {
    store->will_need(data, bytes);
  };
  device_options.release = [store](const std::byte* data, size_t bytes) {
    store->release(data, bytes);
  };
  device_options.prepare = [store, &context] { return store->finish_load(context); };
  ASSIGN_OR_RETURN(std::unique_ptr<DeviceModel> device,
                   context.backend.make_device_model(spec, device_options));
  store->drop_matrices();
  store->release_file_cache();
  return device;
}

Result<Logits> forward_on_device(const DeviceModel& device, int64_t vocab_size,
                                 std::span<const SequenceChunk> batch) {
  RETURN_IF_ERROR(check_batch(batch, vocab_size));
  std::vector<DeviceChunk> chunks;
  Logits logits;
  logits.vocab_size = vocab_size;
  for (const SequenceChunk& chunk : batch) {
    CHECK(chunk.state->device() != nullptr) << "a state in host memory, a model on a device";
    RETURN_IF_ERROR(chunk.state->reserve(static_cast<int64_t>(chunk.ids.size())));
    const bool wants_all = chunk.logit_rows == LogitRows::kAll;
    const bool wants_none = chunk.logit_rows == LogitRows::kNone;
    chunks.push_back({chunk.state->device(), chunk.ids, !wants_all, wants_none});
    logits.rows += wants_none ? 0 : wants_all ? static_cast<int64_t>(chunk.ids.size()) : 1;
  }
  logits.values.resize(static_cast<size_t>(logits.rows * vocab_size));
  RETURN_IF_ERROR(device.forward(chunks, logits.values.data()));
  return logits;
}

StateCost device_state_cost(const StateCost& host) {
  return {host.fixed_bytes,
          host.position_bytes / sizeof(float) * static_cast<size_t>(kDeviceKvBytes)};
}

}  // namespace logitlab
