// Tiny random models in device memory with host copies, for the checks of the kernels.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "backend/cuda/layout.h"
#include "prefill_reference.h"

namespace logitlab::cuda {

inline void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    std::exit(2);
  }
}

// Owns device memory.
class DeviceArrays {
 public:
  DeviceArrays() = default;
  DeviceArrays(const DeviceArrays&) = delete;
  DeviceArrays& operator=(const DeviceArrays&) = delete;
  ~DeviceArrays() {
    for (void* pointer : pointers_) {
      cudaFree(pointer);
    }
  }

  template <typename T>
  T* make(int64_t n) {
    void* pointer = nullptr;
    require(cudaMalloc(&pointer, std::max<size_t>(1, static_cast<size_t>(n) * sizeof(T))),
            "malloc");
    pointers_.push_back(pointer);
    return static_cast<T*>(pointer);
  }

  template <typename T>
  T* upload(const std::vector<T>& values) {
    T* const pointer = make<T>(static_cast<int64_t>(values.size()));
    require(cudaMemcpy(pointer, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
            "upload");
    return pointer;
  }

 private:
  std::vector<void*> pointers_;
};

template <typename T>
std::vector<T> download(const T* device, int64_t n) {
  std::vector<T> values(static_cast<size_t>(n));
  require(cudaMemcpy(values.data(), device, values.size() * sizeof(T), cudaMemcpyDeviceToHost),
          "download");
  return values;
}

// Makes random tensors and keeps their host copies.
class TinyModels {
 public:
  explicit TinyModels(uint64_t seed) : random_(seed) {}

  ModelView model;
  reference::Mirror mirror;

  float uniform(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(random_);
  }

  const float* floats(int64_t n, float low, float high) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) {
      value = uniform(low, high);
    }
    return keep(values);
  }

  const __nv_bfloat16* weights(int64_t n, float limit) {
    std::vector<__nv_bfloat16> values(static_cast<size_t>(n));
    for (__nv_bfloat16& value : values) {
      value = __float2bfloat16_rn(uniform(-limit, limit));
    }
    return keep(values);
  }

  // Rows of variance gain^2 / columns: outputs are gain times as large as inputs.
  Matrix matrix(int rows, int columns, bool has_bias, float gain = 1) {
    Matrix m;
    m.rows = rows;
    m.columns = columns;
    m.weight = weights(int64_t{rows} * columns, gain * std::sqrt(3.0F / columns));
    m.bias = has_bias ? floats(rows, -0.3F, 0.3F) : nullptr;
    return m;
  }

  MlpLayer mlp(int f, Gate gate, bool has_bias) {
    const int d = model.hidden_size;
    MlpLayer layer;
    layer.gate = gate;
    layer.up = matrix(gate == Gate::kSiluMul ? 2 * f : f, d, has_bias);
    layer.down = matrix(d, f, has_bias);
    return layer;
  }

  Layer& add(LayerKind kind) {
    Layer layer;
    layer.kind = kind;
    layer.norm = floats(model.hidden_size, 0.8F, 1.2F);
    model.layers.push_back(layer);
    return model.layers.back();
  }

  void begin(int d, int vocab) {
    model = {};
    model.hidden_size = d;
    model.vocab_size = vocab;
    model.norm_eps = 1e-5F;
    model.embedding.rows = vocab;
    model.embedding.columns = d;
    model.embedding.weight = weights(int64_t{vocab} * d, 1.7F);
  }

  void set_rope(int rotary_dim, bool interleaved, float attention_factor) {
    std::vector<float> inv_freq;
    for (int i = 0; i < rotary_dim; i += 2) {
      inv_freq.push_back(std::pow(1e4F, -static_cast<float>(i) / static_cast<float>(rotary_dim)));
    }
    model.rope = {keep(inv_freq), rotary_dim, interleaved, attention_factor};
  }

  // head_dim, n_kv_heads: the same in all attention layers of a model.
  void add_attention(int n_heads, int n_kv_heads, int head_dim, int window, bool has_rope,
                     bool has_norms, bool has_bias) {
    AttentionLayer a;
    a.n_heads = n_heads;
    a.n_kv_heads = n_kv_heads;
    a.head_dim = head_dim;
    a.window = window;
    a.has_rope = has_rope;
    a.scale = 1.5F / std::sqrt(static_cast<float>(head_dim));
    a.qkv = matrix((n_heads + 2 * n_kv_heads) * head_dim, model.hidden_size, has_bias);
    a.o = matrix(model.hidden_size, n_heads * head_dim, has_bias);
    a.qk_norm_eps = 1e-6F;
    if (has_norms) {
      a.q_norm = floats(head_dim, 0.5F, 1.5F);
      a.k_norm = floats(head_dim, 0.5F, 1.5F);
    }
    a.state_layer = model.kv.n_layers++;
    model.kv.n_kv_heads = n_kv_heads;
    model.kv.head_dim = head_dim;
    add(LayerKind::kAttention).attention = a;
  }

  void add_mamba(int n_heads, int head_dim, int state_size, int n_groups, int conv_kernel,
                 bool has_bias, float step_low, float step_high) {
    MambaLayer m;
    m.n_heads = n_heads;
    m.head_dim = head_dim;
    m.state_size = state_size;
    m.n_groups = n_groups;
    m.conv_kernel = conv_kernel;
    m.in_proj = matrix(m.projected(), model.hidden_size, has_bias);
    m.out_proj = matrix(model.hidden_size, m.inner(), has_bias);
    m.conv_weight = floats(int64_t{m.conv_size()} * conv_kernel, -0.6F, 0.6F);
    m.conv_bias = has_bias ? floats(m.conv_size(), -0.3F, 0.3F) : nullptr;
    m.dt_bias = floats(n_heads, -4.0F, 1.0F);
    m.a = floats(n_heads, -3.0F, -0.02F);
    m.d = floats(n_heads, -1.0F, 1.0F);
    m.norm_weight = floats(m.inner(), 0.8F, 1.2F);
    m.norm_eps = 1e-5F;
    m.time_step_low = step_low;
    m.time_step_high = step_high;
    for (const Layer& layer : model.layers) {
      m.state_layer += layer.kind == LayerKind::kMamba ? 1 : 0;
    }
    add(LayerKind::kMamba).mamba = m;
  }

  // is_fixed: corrections decide the choice, so that no rounding before it can change it.
  void add_moe(int n_experts, int n_chosen, int n_groups, int kept_groups, int f, int latent,
               Gate gate, bool normalises, bool is_fixed) {
    const int d = model.hidden_size;
    MoeLayer m;
    m.n_experts = n_experts;
    m.n_chosen = n_chosen;
    m.n_groups = n_groups;
    m.kept_groups = kept_groups;
    m.f = f;
    m.has_latent = latent > 0;
    m.w = m.has_latent ? latent : d;
    m.gate = gate;
    m.normalises = normalises;
    m.scale = 1.7F;
    m.router = matrix(n_experts, d, false);
    if (is_fixed) {
      std::vector<float> values;
      for (int e = 0; e < n_experts; ++e) {
        values.push_back(static_cast<float>(e * 7 % n_experts) * 1.5F);
      }
      m.correction = keep(values);
    } else {
      m.correction = floats(n_experts, -0.2F, 0.2F);
    }
    m.up = weights(int64_t{n_experts} * f * m.w, std::sqrt(3.0F / m.w));
    m.down = weights(int64_t{n_experts} * f * m.w, std::sqrt(3.0F / f));
    if (m.has_latent) {
      m.latent_in = matrix(latent, d, true);
      m.latent_out = matrix(d, latent, true);
    }
    add(LayerKind::kMoe).moe = m;
  }

  void share(int f, Gate gate, bool has_bias) {
    MoeLayer& m = model.layers.back().moe;
    m.has_shared = true;
    m.shared = mlp(f, gate, has_bias);
  }

  void add_mlp(int f, Gate gate, bool has_bias) {
    const MlpLayer layer = mlp(f, gate, has_bias);
    add(LayerKind::kMlp).mlp = layer;
  }

 private:
  template <typename T>
  const T* keep(const std::vector<T>& values) {
    const T* const device = arrays_.upload(values);
    mirror.keep(device, values);
    return device;
  }

  std::mt19937_64 random_;
  DeviceArrays arrays_;
};

// Sizes of the states of all layers.
struct StateSizes {
  int64_t conv = 0;
  int64_t ssm = 0;

  explicit StateSizes(const ModelView& model) {
    for (const Layer& layer : model.layers) {
      if (layer.kind == LayerKind::kMamba) {
        conv += int64_t{layer.mamba.conv_kernel - 1} * layer.mamba.conv_size();
        ssm += int64_t{layer.mamba.inner()} * layer.mamba.state_size;
      }
    }
  }
};

// A sequence with room for n positions: zero states, pages of NaN in random order.
class DeviceSequence {
 public:
  DeviceSequence(ModelView* model, int n_positions) : sizes(*model) {
    n_pages = (n_positions + kPagePositions - 1) / kPagePositions;
    sequence.conv = arrays_.make<float>(sizes.conv);
    sequence.ssm = arrays_.make<float>(sizes.ssm);
    require(cudaMemset(sequence.conv, 0, sizes.conv * sizeof(float)), "memset");
    require(cudaMemset(sequence.ssm, 0, sizes.ssm * sizeof(float)), "memset");
    const int64_t n = n_pages * model->kv.page_elements();
    model->kv.pages = arrays_.make<__nv_bfloat16>(n);
    pages = model->kv.pages;
    require(cudaMemset(pages, 0xff, n * sizeof(__nv_bfloat16)), "memset");
    table.resize(n_pages);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937_64(7));
    sequence.page_table = arrays_.upload(table);
  }

  Sequence sequence;
  StateSizes sizes;
  std::vector<int> table;
  int n_pages = 0;
  __nv_bfloat16* pages = nullptr;

 private:
  DeviceArrays arrays_;
};

}  // namespace logitlab::cuda
