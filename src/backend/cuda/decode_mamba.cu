// One step of the SSM of a Mamba-2 layer, for one row of each sequence.
#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/ptx.cuh"

namespace logitlab::cuda {
namespace {

constexpr int kSsmWarps = 8;

// A warp has ROWS rows (head, p) of one head's state, of NI * 32 elements at most. The state is
// read before the wait: the last kernel that wrote it belongs to the step before.
template <int NI, int ROWS>
__global__ void __launch_bounds__(32 * kSsmWarps, 6)
    ssm_kernel(const __grid_constant__ SsmArgs args) {
  const MambaLayer& layer = args.layer;
  const int lane = threadIdx.x & 31;
  const int token = blockIdx.y;
  const int row0 = (blockIdx.x * kSsmWarps + (threadIdx.x >> 5)) * ROWS;
  const int n = layer.state_size;
  allow_successor();
  if (row0 >= layer.inner()) {
    return;
  }
  float* ssm = args.sequences[token].ssm +
               (static_cast<int64_t>(layer.state_layer) * layer.inner() + row0) * n;
  float state[ROWS][NI];
#pragma unroll
  for (int j = 0; j < ROWS; ++j) {
#pragma unroll
    for (int i = 0; i < NI; ++i) {
      const int c = lane + 32 * i;
      state[j][i] = c < n ? __ldcg(ssm + j * n + c) : 0.0F;
    }
  }
  const int head = row0 / layer.head_dim;
  const float rate = __ldg(layer.a + head);
  const float skip = __ldg(layer.d + head);
  wait_for_predecessor();
  const float* z = args.projected + static_cast<int64_t>(token) * layer.projected();
  const float* x = z + layer.inner();
  const float* b = x + layer.inner() + head / (layer.n_heads / layer.n_groups) * n;
  const float* c = b + layer.n_groups * n;
  // All that is needed is asked for at once.
  const float step = load_l2_1(z + layer.inner() + layer.conv_size() + head);
  const int mine = row0 + lane % ROWS;  // each lane holds what belongs to one row
  const float value = load_l2_1(x + mine);
  const float gate = load_l2_1(z + mine);
  float b_now[NI];
  float c_now[NI];
#pragma unroll
  for (int i = 0; i < NI; ++i) {
    const int at = min(lane + 32 * i, n - 1);
    b_now[i] = load_l2_1(b + at);
    c_now[i] = load_l2_1(c + at);
  }
  const float decay = expf(__fmul_rn(step, rate));
  float total = 0;
#pragma unroll
  for (int j = 0; j < ROWS; ++j) {
    const float input = __fmul_rn(step, __shfl_sync(~0U, value, j));
    float sum = 0;
#pragma unroll
    for (int i = 0; i < NI; ++i) {
      const int at = lane + 32 * i;
      const float s = __fmaf_rn(decay, state[j][i], __fmul_rn(input, b_now[i]));
      if (at < n) {
        ssm[j * n + at] = s;
        sum = __fmaf_rn(s, c_now[i], sum);
      }
    }
    sum = warp_sum(sum);
    total = lane == j ? sum : total;
  }
  if (lane < ROWS) {
    const float y = __fmaf_rn(skip, value, total);
    args.y[static_cast<int64_t>(token) * layer.inner() + mine] = __fmul_rn(y, silu(gate));
  }
}

template <int NI>
cudaError_t queue_ssm_of(const SsmArgs& args, cudaStream_t stream) {
  constexpr int kRows = NI > 4 ? 2 : 4;  // what 40 registers hold
  const bool is_even = args.layer.head_dim % kRows == 0;
  const int block_rows = kSsmWarps * (is_even ? kRows : 1);
  const int blocks = (args.layer.inner() + block_rows - 1) / block_rows;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(args.n));
  return is_even ? launch(ssm_kernel<NI, kRows>, grid, 32 * kSsmWarps, 0, stream, args)
                 : launch(ssm_kernel<NI, 1>, grid, 32 * kSsmWarps, 0, stream, args);
}

// A warp per (row, group).
__global__ void __launch_bounds__(32)
    group_norm_kernel(const __grid_constant__ MambaLayer layer, float* y) {
  const int size = layer.inner() / layer.n_groups;
  allow_successor();
  wait_for_predecessor();
  float* values = y + static_cast<int64_t>(blockIdx.y) * layer.inner() + blockIdx.x * size;
  float sum = 0;
  for (int i = threadIdx.x; i < size; i += 32) {
    const float v = load_l2_1(values + i);
    sum = __fmaf_rn(v, v, sum);
  }
  const float mean = __fdiv_rn(warp_sum(sum), static_cast<float>(size));
  const float scale = __frsqrt_rn(__fadd_rn(mean, layer.norm_eps));
  for (int i = threadIdx.x; i < size; i += 32) {
    const float gain = layer.norm_weight[blockIdx.x * size + i];
    values[i] = __fmul_rn(gain, __fmul_rn(load_l2_1(values + i), scale));
  }
}

}  // namespace

cudaError_t queue_ssm(const SsmArgs& args, cudaStream_t stream) {
  const int n = args.layer.state_size;
  return n <= 32    ? queue_ssm_of<1>(args, stream)
         : n <= 64  ? queue_ssm_of<2>(args, stream)
         : n <= 128 ? queue_ssm_of<4>(args, stream)
                    : queue_ssm_of<8>(args, stream);
}

cudaError_t queue_group_norm(const MambaLayer& layer, float* y, int n, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(layer.n_groups), static_cast<unsigned>(n));
  return launch(group_norm_kernel, grid, 32, 0, stream, layer, y);
}

}  // namespace logitlab::cuda
