// The target model at full size with random weights, filled on the device, to time the kernels.
#pragma once

#include <cstdint>
#include <string>

#include <cuda_runtime.h>

#include "backend/cuda/layout.h"
#include "tiny_models.h"

namespace logitlab::cuda {

__device__ inline float hash_uniform(uint64_t index, uint64_t seed) {
  uint64_t x = (index + seed * 0x9E3779B97F4A7C15ULL) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 29)) * 0x94D049BB133111EBULL;
  x ^= x >> 32;
  return static_cast<float>(static_cast<uint32_t>(x)) * (2.0F / 4294967296.0F) - 1.0F;
}

template <typename T>
__global__ void fill_kernel(T* out, int64_t n, float low, float high, uint64_t seed) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += step) {
    const float value = low + (high - low) * 0.5F * (hash_uniform(i, seed) + 1.0F);
    out[i] = static_cast<T>(value);
  }
}

// Nemotron-3-Nano-30B-A3B with random weights: 63 GB.
class FullModel {
 public:
  FullModel() {
    const std::string pattern = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
    model.hidden_size = kHidden;
    model.vocab_size = 131072;
    model.norm_eps = 1e-5F;
    model.embedding = matrix(model.vocab_size, kHidden);
    model.head = matrix(model.vocab_size, kHidden);
    model.kv.n_kv_heads = 2;
    model.kv.head_dim = 128;
    int n_mamba = 0;
    for (const char kind : pattern) {
      Layer layer;
      layer.norm = floats(kHidden, 0.9F, 1.1F);
      if (kind == 'M') {
        layer.kind = LayerKind::kMamba;
        layer.mamba = mamba();
        layer.mamba.state_layer = n_mamba++;
      } else if (kind == '*') {
        layer.kind = LayerKind::kAttention;
        layer.attention = attention();
      } else {
        layer.kind = LayerKind::kMoe;
        layer.moe = moe();
      }
      model.layers.push_back(layer);
    }
    require(cudaDeviceSynchronize(), "fill");
  }

  ModelView model;

 private:
  static constexpr int kHidden = 2688;
  static constexpr float kLimit = 0.035F;  // uniform: a deviation of 0.02

  template <typename T>
  T* fill(int64_t n, float low, float high) {
    T* const out = arrays_.make<T>(n);
    fill_kernel<<<2048, 256>>>(out, n, low, high, ++seed_);
    require(cudaGetLastError(), "fill");
    return out;
  }

  const float* floats(int64_t n, float low, float high) { return fill<float>(n, low, high); }

  Matrix matrix(int rows, int columns) {
    Matrix m;
    m.rows = rows;
    m.columns = columns;
    m.weight = fill<__nv_bfloat16>(int64_t{rows} * columns, -kLimit, kLimit);
    return m;
  }

  MambaLayer mamba() {
    MambaLayer m;
    m.n_heads = 64;
    m.head_dim = 64;
    m.state_size = 128;
    m.n_groups = 8;
    m.conv_kernel = 4;
    m.in_proj = matrix(m.projected(), kHidden);
    m.out_proj = matrix(kHidden, m.inner());
    m.conv_weight = floats(int64_t{m.conv_size()} * 4, -0.5F, 0.5F);
    m.conv_bias = floats(m.conv_size(), -0.1F, 0.1F);
    m.dt_bias = floats(m.n_heads, -5.0F, -2.0F);
    m.a = floats(m.n_heads, -8.0F, -1.0F);
    m.d = floats(m.n_heads, 0.5F, 1.5F);
    m.norm_weight = floats(m.inner(), 0.9F, 1.1F);
    m.norm_eps = 1e-5F;
    m.time_step_high = INFINITY;
    return m;
  }

  AttentionLayer attention() {
    AttentionLayer a;
    a.n_heads = 32;
    a.n_kv_heads = 2;
    a.head_dim = 128;
    a.scale = 0.08838834764F;
    a.qkv = matrix(36 * 128, kHidden);
    a.o = matrix(kHidden, 32 * 128);
    a.state_layer = model.kv.n_layers++;
    return a;
  }

  MoeLayer moe() {
    MoeLayer m;
    m.n_experts = 128;
    m.n_chosen = 6;
    m.f = 1856;
    m.w = kHidden;
    m.scale = 2.5F;
    m.router = matrix(m.n_experts, kHidden);
    m.correction = floats(m.n_experts, -0.01F, 0.01F);
    const int64_t n = int64_t{m.n_experts} * m.f * m.w;
    m.up = fill<__nv_bfloat16>(n, -kLimit, kLimit);
    m.down = fill<__nv_bfloat16>(n, -kLimit, kLimit);
    m.has_shared = true;
    m.shared.up = matrix(2 * m.f, kHidden);
    m.shared.down = matrix(kHidden, 2 * m.f);
    return m;
  }

  DeviceArrays arrays_;
  uint64_t seed_ = 0;
};

}  // namespace logitlab::cuda
