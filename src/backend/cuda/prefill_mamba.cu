// The Mamba-2 mixer of a chunk of one sequence around its scan, all in float32: convolution, time
// steps, gate and group norm.
#include <algorithm>

#include "backend/cuda/prefill_mma.cuh"
#include "backend/cuda/prefill_ops.h"

namespace logitlab::cuda::chunk {
namespace {

constexpr int kConvThreads = 128;
constexpr int kConvRows = 32;  // rows that a thread walks over
constexpr int kMaxTaps = 8;
constexpr float kLog2E = 1.44269504088896340736F;

__device__ inline float silu(float x) {
  return x / (1.0F + expf(-x));
}

// ln(1 + e^x); past 20 it is x to the last bit.
__device__ inline float softplus(float x) {
  return x > 20.0F ? x : log1pf(expf(x));
}

// One channel of the inputs x | B | C: row r >= 0 of the chunk, or r < 0 from the state, whose row
// kTaps - 1 + r is that of the token -r before the chunk.
__device__ inline float input_of(const MambaLayer& layer, const MambaRows& rows, const float* state,
                                 int row, int channel) {
  if (row >= 0) {
    return rows.projected[static_cast<int64_t>(row) * rows.ld_projected + layer.inner() + channel];
  }
  return state[static_cast<int64_t>(layer.conv_kernel - 1 + row) * layer.conv_size() + channel];
}

// Where one channel of x | B | C goes after the convolution; see MambaRows.
struct ChannelTarget {
  float* x = nullptr;              // row 0, or null: the channel is one of B | C
  __nv_bfloat16* parts = nullptr;  // row 0's high part
  int n_zeros = 0;                 // padding that follows the channel

  __device__ ChannelTarget(const MambaLayer& layer, const MambaRows& rows, int channel) {
    if (channel < layer.inner()) {
      x = rows.x + channel;
      return;
    }
    const int index = channel - layer.inner();
    const int n = index % layer.state_size;
    parts = rows.parts + index / layer.state_size * rows.padded_states + n;
    n_zeros = n + 1 == layer.state_size ? rows.padded_states - layer.state_size : 0;
  }

  __device__ void put(const MambaRows& rows, int row, float value) const {
    if (x != nullptr) {
      x[static_cast<int64_t>(row) * rows.ld_x] = value;
      return;
    }
    __nv_bfloat16* const high = parts + static_cast<int64_t>(row) * 2 * rows.ld_parts;
    __nv_bfloat16* const low = high + rows.ld_parts;
    const __nv_bfloat16 rounded = __float2bfloat16_rn(value);
    *high = rounded;
    *low = __float2bfloat16_rn(value - __bfloat162float(rounded));
    for (int i = 1; i <= n_zeros; ++i) {
      high[i] = low[i] = __float2bfloat16_rn(0.0F);
    }
  }
};

// out[r, c] = silu(bias + sum_k weight[c, k] input[r - kTaps + 1 + k, c]). A thread has one channel
// of kConvRows rows, kAhead of which are loaded before they are needed. Grid: (channels, rows).
template <int kTaps>
__global__ void __launch_bounds__(kConvThreads)
    convolve_kernel(const __grid_constant__ MambaLayer layer,
                    const __grid_constant__ MambaRows rows, const float* state) {
  constexpr int kAhead = 8;
  const int channel = static_cast<int>(blockIdx.x) * kConvThreads + static_cast<int>(threadIdx.x);
  const int first = static_cast<int>(blockIdx.y) * kConvRows;
  if (channel >= layer.conv_size()) {
    return;
  }
  float tap[kTaps];
  float input[kTaps - 1 + kAhead];
#pragma unroll
  for (int k = 0; k < kTaps; ++k) {
    tap[k] = layer.conv_weight[channel * kTaps + k];
    if (k + 1 < kTaps) {
      input[k] = input_of(layer, rows, state, first - (kTaps - 1) + k, channel);
    }
  }
  const float bias = layer.conv_bias != nullptr ? layer.conv_bias[channel] : 0.0F;
  const int end = min(first + kConvRows, rows.rows);
  const float* const source = rows.projected + layer.inner() + channel;
  const ChannelTarget target(layer, rows, channel);
  for (int row = first; row < end; row += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int from = min(row + i, end - 1);
      input[kTaps - 1 + i] = source[static_cast<int64_t>(from) * rows.ld_projected];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      float sum = bias;
#pragma unroll
      for (int k = 0; k < kTaps; ++k) {
        sum += tap[k] * input[i + k];
      }
      if (row + i < end) {
        target.put(rows, row + i, silu(sum));
      }
    }
#pragma unroll
    for (int k = 0; k + 1 < kTaps; ++k) {
      input[k] = input[kAhead + k];
    }
  }
}

// Time steps and exponents of decay of all (row, head), and the state's inputs of the last tokens.
// After convolve_kernel, which reads the old ones.
__global__ void __launch_bounds__(256)
    steps_kernel(const __grid_constant__ MambaLayer layer, const __grid_constant__ MambaRows rows,
                 float* state) {
  const int index = static_cast<int>(blockIdx.x) * 256 + static_cast<int>(threadIdx.x);
  const int n_steps = rows.rows * layer.n_heads;
  if (index < n_steps) {
    const int head = index % layer.n_heads;
    const float dt =
        rows.projected[static_cast<int64_t>(index / layer.n_heads) * rows.ld_projected +
                       layer.inner() + layer.conv_size() + head];
    const float step =
        fminf(fmaxf(softplus(dt + layer.dt_bias[head]), layer.time_step_low), layer.time_step_high);
    rows.steps[index] = {step, step * layer.a[head] * kLog2E};
    return;
  }
  const int channel = index - n_steps;
  if (channel < layer.conv_size()) {
    const int kept = layer.conv_kernel - 1;
    // Ascending: a row that is read again lies above those written so far.
    for (int k = 0; k < kept; ++k) {
      state[static_cast<int64_t>(k) * layer.conv_size() + channel] =
          input_of(layer, rows, state, rows.rows - kept + k, channel);
    }
  }
}

// out = norm_weight * q / sqrt(mean(q^2 of its group) + eps), q = y silu(z). One warp per (row,
// group), which keeps a group of up to kHeld * 128 in registers. Grid: (row, group) pairs by 8.
template <int kHeld>
__global__ void __launch_bounds__(256)
    gate_kernel(const __grid_constant__ MambaLayer layer, const __grid_constant__ MambaRows rows) {
  const int warp = static_cast<int>(blockIdx.x * 8 + threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = warp / layer.n_groups;
  if (row >= rows.rows) {
    return;
  }
  const int size = layer.inner() / layer.n_groups;
  const int first = warp % layer.n_groups * size;
  const float* const y = rows.x + static_cast<int64_t>(row) * rows.ld_x + first;
  const float* const z = rows.projected + static_cast<int64_t>(row) * rows.ld_projected + first;
  __nv_bfloat16* const out = rows.out + static_cast<int64_t>(row) * layer.inner() + first;
  float q[kHeld][4];
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = 4 * (lane + 32 * j);
    q[j][0] = q[j][1] = q[j][2] = q[j][3] = 0;
    if (i < size) {
      const float4 ys = *reinterpret_cast<const float4*>(y + i);
      const float4 zs = *reinterpret_cast<const float4*>(z + i);
      q[j][0] = ys.x * silu(zs.x);
      q[j][1] = ys.y * silu(zs.y);
      q[j][2] = ys.z * silu(zs.z);
      q[j][3] = ys.w * silu(zs.w);
    }
    squares += q[j][0] * q[j][0] + q[j][1] * q[j][1] + q[j][2] * q[j][2] + q[j][3] * q[j][3];
  }
  const float scale =
      1.0F / sqrtf(sum_of_warp(squares) / static_cast<float>(size) + layer.norm_eps);
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = 4 * (lane + 32 * j);
    if (i < size) {
      const float4 gain = *reinterpret_cast<const float4*>(layer.norm_weight + first + i);
      *reinterpret_cast<uint2*>(out + i) = {
          pack(gain.x * (q[j][0] * scale), gain.y * (q[j][1] * scale)),
          pack(gain.z * (q[j][2] * scale), gain.w * (q[j][3] * scale))};
    }
  }
}

// The same for groups of any size.
__global__ void __launch_bounds__(256) gate_any_kernel(const __grid_constant__ MambaLayer layer,
                                                       const __grid_constant__ MambaRows rows) {
  const int warp = static_cast<int>(blockIdx.x * 8 + threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = warp / layer.n_groups;
  if (row >= rows.rows) {
    return;
  }
  const int size = layer.inner() / layer.n_groups;
  const int first = warp % layer.n_groups * size;
  const float* const y = rows.x + static_cast<int64_t>(row) * rows.ld_x + first;
  const float* const z = rows.projected + static_cast<int64_t>(row) * rows.ld_projected + first;
  __nv_bfloat16* const out = rows.out + static_cast<int64_t>(row) * layer.inner() + first;
  float squares = 0;
  for (int i = lane; i < size; i += 32) {
    const float q = y[i] * silu(z[i]);
    squares += q * q;
  }
  const float scale =
      1.0F / sqrtf(sum_of_warp(squares) / static_cast<float>(size) + layer.norm_eps);
  for (int i = lane; i < size; i += 32) {
    const float q = y[i] * silu(z[i]);
    out[i] = __float2bfloat16_rn(layer.norm_weight[first + i] * (q * scale));
  }
}

template <int kTaps>
void launch_convolution(const MambaLayer& layer, const MambaRows& rows, const float* state,
                        cudaStream_t stream) {
  const dim3 grid((layer.conv_size() + kConvThreads - 1) / kConvThreads,
                  (rows.rows + kConvRows - 1) / kConvRows);
  convolve_kernel<kTaps><<<grid, kConvThreads, 0, stream>>>(layer, rows, state);
}

template <int kTaps = kMaxTaps>
void launch_convolution_of(int taps, const MambaLayer& layer, const MambaRows& rows,
                           const float* state, cudaStream_t stream) {
  if (taps == kTaps) {
    launch_convolution<kTaps>(layer, rows, state, stream);
  } else if constexpr (kTaps > 1) {
    launch_convolution_of<kTaps - 1>(taps, layer, rows, state, stream);
  }
}

}  // namespace

cudaError_t convolve(const MambaLayer& layer, const Sequence& sequence, const MambaRows& rows,
                     cudaStream_t stream) {
  if (layer.conv_kernel < 1 || layer.conv_kernel > kMaxTaps) {
    return cudaErrorNotSupported;
  }
  float* const state = sequence.conv + static_cast<int64_t>(layer.state_layer) *
                                           (layer.conv_kernel - 1) * layer.conv_size();
  launch_convolution_of(layer.conv_kernel, layer, rows, state, stream);
  const int n = rows.rows * layer.n_heads + layer.conv_size();
  steps_kernel<<<(n + 255) / 256, 256, 0, stream>>>(layer, rows, state);
  return cudaGetLastError();
}

cudaError_t gate_and_norm(const MambaLayer& layer, const MambaRows& rows, cudaStream_t stream) {
  const int warps = rows.rows * layer.n_groups;
  const int blocks = (warps + 7) / 8;
  const int size = layer.inner() / layer.n_groups;
  if (size % 4 == 0 && size <= 512) {
    gate_kernel<4><<<blocks, 256, 0, stream>>>(layer, rows);
  } else if (size % 4 == 0 && size <= 1024) {
    gate_kernel<8><<<blocks, 256, 0, stream>>>(layer, rows);
  } else {
    gate_any_kernel<<<blocks, 256, 0, stream>>>(layer, rows);
  }
  return cudaGetLastError();
}

}  // namespace logitlab::cuda::chunk
