// Embedding rows and RMS norms: one block per row.
#include "backend/cuda/prefill_mma.cuh"
#include "backend/cuda/prefill_ops.h"

namespace logitlab::cuda::chunk {
namespace {

constexpr int kThreads = 256;

// residual[r, :] = table[ids[r], :]. Grid: one block per row.
__global__ void __launch_bounds__(kThreads)
    embed_kernel(const __nv_bfloat16* table, const int* ids, int d, float* residual) {
  const __nv_bfloat16* const from = table + static_cast<int64_t>(ids[blockIdx.x]) * d;
  float* const to = residual + static_cast<int64_t>(blockIdx.x) * d;
  for (int i = threadIdx.x; i < d; i += kThreads) {
    to[i] = __bfloat162float(from[i]);
  }
}

__device__ float sum_of_block(float value, float* partial) {
  value = sum_of_warp(value);
  if (threadIdx.x % 32 == 0) {
    partial[threadIdx.x / 32] = value;
  }
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) {
    sum += partial[i];
  }
  return sum;
}

// See norm_rows. d: a multiple of 8. Grid: one block per row.
__global__ void __launch_bounds__(kThreads)
    norm_kernel(const float* x, const float* weight, float eps, int d, __nv_bfloat16* high,
                __nv_bfloat16* low) {
  __shared__ float partial[kThreads / 32];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * d;
  const float4* const from = reinterpret_cast<const float4*>(x + first);
  const float4* const gain = reinterpret_cast<const float4*>(weight);
  float squares = 0;
  for (int i = threadIdx.x; i < d / 4; i += kThreads) {
    const float4 v = from[i];
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float scale = 1.0F / sqrtf(sum_of_block(squares, partial) / static_cast<float>(d) + eps);
  for (int i = threadIdx.x; i < d / 4; i += kThreads) {
    const float4 v = from[i];
    const float4 g = gain[i];
    const float y[4] = {g.x * (v.x * scale), g.y * (v.y * scale), g.z * (v.z * scale),
                        g.w * (v.w * scale)};
    reinterpret_cast<uint2*>(high + first)[i] = {pack(y[0], y[1]), pack(y[2], y[3])};
    if (low != nullptr) {
      float rest[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        rest[j] = y[j] - __bfloat162float(__float2bfloat16_rn(y[j]));
      }
      reinterpret_cast<uint2*>(low + first)[i] = {pack(rest[0], rest[1]), pack(rest[2], rest[3])};
    }
  }
}

}  // namespace

cudaError_t embed(const __nv_bfloat16* table, const int* ids, int rows, int d, float* residual,
                  cudaStream_t stream) {
  embed_kernel<<<rows, kThreads, 0, stream>>>(table, ids, d, residual);
  return cudaGetLastError();
}

cudaError_t norm_rows(const float* x, const float* weight, float eps, int rows, int d,
                      __nv_bfloat16* high, __nv_bfloat16* low, cudaStream_t stream) {
  norm_kernel<<<rows, kThreads, 0, stream>>>(x, weight, eps, d, high, low);
  return cudaGetLastError();
}

}  // namespace logitlab::cuda::chunk
