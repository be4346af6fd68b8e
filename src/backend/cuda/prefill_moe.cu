// Routing of a chunk's rows: choice of experts, the order by expert, and the weighted sum after the
// experts. Every order is fixed by the choices alone: a row's place in its expert is its number
// among the rows that chose it.
#include <climits>

#include "backend/cuda/prefill_mma.cuh"
#include "backend/cuda/prefill_ops.h"

namespace logitlab::cuda::chunk {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kRankThreads = 1024;
constexpr int kPlaceThreads = 256;
constexpr unsigned kAll = 0xffffffffU;

struct Best {
  float value;
  int index;  // INT_MAX: none
};

// The larger; of equal ones the lower index.
__device__ Best better(Best a, Best b) {
  const bool takes_b = b.value > a.value || (b.value == a.value && b.index < a.index);
  return takes_b ? b : a;
}

__device__ Best best_of_warp(Best mine) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const Best other = {__shfl_xor_sync(kAll, mine.value, mask),
                        __shfl_xor_sync(kAll, mine.index, mask)};
    mine = better(mine, other);
  }
  return mine;
}

// Index of the warp's largest value[i] that is not taken; NaN counts as -inf.
__device__ int largest(const float* values, const bool* taken, int n) {
  Best mine = {-INFINITY, INT_MAX};
  for (int i = static_cast<int>(threadIdx.x) % 32; i < n; i += 32) {
    if (!taken[i]) {
      const float value = values[i];
      mine = better(mine, {value > -INFINITY ? value : -INFINITY, i});
    }
  }
  return best_of_warp(mine).index;
}

// Sets the choices of all groups but the best to -inf. A group's score is the sum of its two
// largest choices. scores, kept: work space of n_groups.
__device__ void keep_best_groups(const MoeLayer& layer, float* choices, float* scores, bool* kept) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int size = layer.n_experts / layer.n_groups;
  for (int g = lane; g < layer.n_groups; g += 32) {
    float best = -INFINITY;
    float second = -INFINITY;
    for (int i = g * size; i < (g + 1) * size; ++i) {
      const float choice = choices[i];
      if (choice > best) {
        second = best;
        best = choice;
      } else if (choice > second) {
        second = choice;
      }
    }
    scores[g] = size > 1 ? best + second : best;
    kept[g] = false;
  }
  __syncwarp();
  for (int k = 0; k < layer.kept_groups; ++k) {
    const int group = largest(scores, kept, layer.n_groups);
    __syncwarp();
    if (lane == 0) {
      kept[group] = true;
    }
    __syncwarp();
  }
  for (int i = lane; i < layer.n_experts; i += 32) {
    if (!kept[i / size]) {
      choices[i] = -INFINITY;
    }
  }
  __syncwarp();
}

// Bytes of shared memory per warp of route_kernel.
__host__ __device__ inline size_t route_bytes(const MoeLayer& layer) {
  const size_t floats = 3 * static_cast<size_t>(layer.n_experts) + layer.n_chosen;
  const size_t bools = 2 * static_cast<size_t>(layer.n_experts);
  return (floats * sizeof(float) + bools + 15) / 16 * 16;
}

// chosen, weights [rows, n_chosen] from logits [rows, ld]: nn/moe.h's route(). One warp per row.
__global__ void __launch_bounds__(kWarpsPerBlock * 32)
    route_kernel(const __grid_constant__ MoeLayer layer, const float* logits, int ld, int rows,
                 int* chosen, float* weights) {
  extern __shared__ char shared[];
  const int n = layer.n_experts;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.x) * kWarpsPerBlock + warp;
  if (row >= rows) {
    return;
  }
  auto* const scores = reinterpret_cast<float*>(shared + warp * route_bytes(layer));
  float* const choices = scores + n;
  float* const group_scores = choices + n;
  auto* const picked = reinterpret_cast<int*>(group_scores + n);
  auto* const taken = reinterpret_cast<bool*>(picked + layer.n_chosen);
  bool* const kept = taken + n;
  for (int e = lane; e < n; e += 32) {
    scores[e] = 1.0F / (1.0F + expf(-logits[static_cast<int64_t>(row) * ld + e]));
    choices[e] = scores[e] + (layer.correction != nullptr ? layer.correction[e] : 0.0F);
    taken[e] = false;
  }
  __syncwarp();
  if (layer.n_groups > 1) {
    keep_best_groups(layer, choices, group_scores, kept);
  }
  float sum = 0;
  for (int k = 0; k < layer.n_chosen; ++k) {
    const int best = largest(choices, taken, n);
    __syncwarp();
    if (lane == 0) {
      taken[best] = true;
      picked[k] = best;
    }
    sum += scores[best];
    __syncwarp();
  }
  for (int k = lane; k < layer.n_chosen; k += 32) {
    const int expert = picked[k];
    int rank = 0;
    for (int i = 0; i < layer.n_chosen; ++i) {
      rank += picked[i] < expert ? 1 : 0;
    }
    const float score = scores[expert];
    const int64_t at = static_cast<int64_t>(row) * layer.n_chosen + rank;
    chosen[at] = expert;
    weights[at] = (layer.normalises ? score / (sum + 1e-20F) : score) * layer.scale;
  }
}

// ranks of the pairs that chose expert blockIdx.x, and their count. Each warp has a run of pairs:
// it counts its own, then numbers them from the sum of the warps before.
__global__ void __launch_bounds__(kRankThreads)
    rank_kernel(const int* chosen, int n_pairs, int* ranks, int* counts) {
  constexpr int kWarps = kRankThreads / 32;
  __shared__ int found[kWarps];
  const int expert = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int run = (n_pairs + kWarps * 32 - 1) / (kWarps * 32) * 32;
  const int first = warp * run;
  const int end = min(first + run, n_pairs);
  int count = 0;
  for (int i = first + lane; i < end; i += 32) {
    count += chosen[i] == expert ? 1 : 0;
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    count += __shfl_xor_sync(kAll, count, mask);
  }
  if (lane == 0) {
    found[warp] = count;
  }
  __syncthreads();
  int before = 0;
  int all = 0;
  for (int i = 0; i < kWarps; ++i) {
    before += i < warp ? found[i] : 0;
    all += found[i];
  }
  if (threadIdx.x == 0) {
    counts[expert] = all;
  }
  for (int i = first; i < end; i += 32) {
    const bool is_mine = i + lane < end && chosen[i + lane] == expert;
    const unsigned mask = __ballot_sync(kAll, is_mine);
    if (is_mine) {
      ranks[i + lane] = before + __popc(mask & ((1U << lane) - 1));
    }
    before += __popc(mask);
  }
}

// Running sums of the counts, by one warp: offsets, and the tiles of 64 and 128 rows.
__device__ void sum_counts(const int* counts, int n, int* offsets, int* tiles_64, int* tiles_128) {
  const int lane = static_cast<int>(threadIdx.x);
  int sums[3] = {};
  for (int first = 0; first < n; first += 32) {
    const int e = first + lane;
    const int count = e < n ? counts[e] : 0;
    int values[3] = {count, (count + 63) / 64, (count + 127) / 128};
    int* const outs[3] = {offsets, tiles_64, tiles_128};
#pragma unroll
    for (int v = 0; v < 3; ++v) {
      int sum = values[v];
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(kAll, sum, step);
        sum += lane >= step ? other : 0;
      }
      if (e < n && outs[v] != nullptr) {
        outs[v][e + 1] = sums[v] + sum;
      }
      sums[v] += __shfl_sync(kAll, sum, 31);
    }
  }
  if (lane == 0) {
    offsets[0] = 0;
    if (tiles_64 != nullptr) {
      tiles_64[0] = 0;
      tiles_128[0] = 0;
    }
  }
}

// places and sources of all pairs; block 0 also writes the running sums. Shared memory: n_experts +
// 1 ints.
__global__ void __launch_bounds__(kPlaceThreads)
    place_kernel(Dispatch dispatch, int n_experts, int n_chosen, int n_pairs) {
  extern __shared__ int offsets[];
  if (threadIdx.x < 32) {
    sum_counts(dispatch.counts, n_experts, offsets, nullptr, nullptr);
    if (blockIdx.x == 0) {
      sum_counts(dispatch.counts, n_experts, dispatch.offsets, dispatch.tiles_64,
                 dispatch.tiles_128);
    }
  }
  __syncthreads();
  const int pair = static_cast<int>(blockIdx.x * kPlaceThreads + threadIdx.x);
  if (pair < n_pairs) {
    const int place = offsets[dispatch.chosen[pair]] + dispatch.ranks[pair];
    dispatch.places[pair] = place;
    dispatch.sources[place] = pair / n_chosen;
  }
}

// See combine. Grid: one block per row; w: a multiple of 8.
__global__ void __launch_bounds__(256)
    combine_kernel(const int* places, const float* weights, int n_chosen, const float* outputs,
                   int w, float* residual, __nv_bfloat16* mixed) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * n_chosen;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * w;
  for (int i = threadIdx.x; i < w / 4; i += 256) {
    float4 sum = {0, 0, 0, 0};
#pragma unroll 8
    for (int k = 0; k < n_chosen; ++k) {
      const float weight = weights[first + k];
      const float4 v =
          reinterpret_cast<const float4*>(outputs + static_cast<int64_t>(places[first + k]) * w)[i];
      sum.x += weight * v.x;
      sum.y += weight * v.y;
      sum.z += weight * v.z;
      sum.w += weight * v.w;
    }
    if (mixed != nullptr) {
      reinterpret_cast<uint2*>(mixed + at)[i] = {pack(sum.x, sum.y), pack(sum.z, sum.w)};
    } else {
      float4* const total = reinterpret_cast<float4*>(residual + at) + i;
      const float4 old = *total;
      *total = {old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w};
    }
  }
}

}  // namespace

cudaError_t build_dispatch(const MoeLayer& layer, const float* logits, int ld_logits, int rows,
                           const Dispatch& dispatch, cudaStream_t stream) {
  const int n_pairs = rows * layer.n_chosen;
  const size_t shared = kWarpsPerBlock * route_bytes(layer);
  if (shared > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        route_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (error != cudaSuccess) {
      return error;
    }
  }
  route_kernel<<<(rows + kWarpsPerBlock - 1) / kWarpsPerBlock, kWarpsPerBlock * 32, shared,
                 stream>>>(layer, logits, ld_logits, rows, dispatch.chosen, dispatch.weights);
  rank_kernel<<<layer.n_experts, kRankThreads, 0, stream>>>(dispatch.chosen, n_pairs,
                                                            dispatch.ranks, dispatch.counts);
  place_kernel<<<(n_pairs + kPlaceThreads - 1) / kPlaceThreads, kPlaceThreads,
                 (layer.n_experts + 1) * sizeof(int), stream>>>(dispatch, layer.n_experts,
                                                                layer.n_chosen, n_pairs);
  return cudaGetLastError();
}

cudaError_t combine(const MoeLayer& layer, const Dispatch& dispatch, const float* outputs, int rows,
                    float* residual, __nv_bfloat16* mixed, cudaStream_t stream) {
  combine_kernel<<<rows, 256, 0, stream>>>(dispatch.places, dispatch.weights, layer.n_chosen,
                                           outputs, layer.w, residual, mixed);
  return cudaGetLastError();
}

}  // namespace logitlab::cuda::chunk
