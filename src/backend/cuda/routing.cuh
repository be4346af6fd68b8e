// The choice of experts by one warp, as route() of nn/moe.h makes it.
#pragma once

#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/ptx.cuh"

namespace logitlab::cuda {

struct Choice {
  int expert = 0;
  float weight = 0;
};

// Numbers in the order of floats, 0 for a NaN: it never is the largest.
LOGITLAB_DEVICE u32 ordered(float v) {
  const u32 bits = __float_as_uint(__fadd_rn(v, 0.0F));  // -0 is 0
  return isnan(v) ? 0 : (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}

// The lane's largest key, at `index`; the index of the warp's largest, the lowest of equal ones.
LOGITLAB_DEVICE int warp_largest(u32 key, int index) {
  const u32 top = __reduce_max_sync(~0U, key);
  return static_cast<int>(
      __reduce_min_sync(~0U, key == top ? static_cast<u32>(index) : 0x7fffffffU));
}

// Keeps the groups whose two best choices have the largest sums. choices: [n_experts], shared
// memory of this warp.
__device__ inline void keep_best_groups(const MoeLayer& layer, float* choices, int lane) {
  const int size = layer.n_experts / layer.n_groups;
  // Lane g holds the score of group g: no model has more than 32 groups (the planner checks).
  float score = -INFINITY;
  if (lane < layer.n_groups) {
    float best = -INFINITY;
    float second = -INFINITY;
    for (int i = lane * size; i < (lane + 1) * size; ++i) {
      const float c = choices[i];
      second = c > best ? best : fmaxf(second, c);
      best = fmaxf(best, c);
    }
    score = size > 1 ? __fadd_rn(best, second) : best;
  }
  u32 kept = 0;
  for (int k = 0; k < layer.kept_groups; ++k) {
    // Lanes past the groups never win: their index is larger, their score not.
    const int index = warp_largest(ordered(score), lane);
    kept |= 1U << index;
    score = lane == index ? -INFINITY : score;
  }
  __syncwarp();
  for (int i = lane; i < layer.n_experts; i += 32) {
    if ((kept >> (i / size) & 1U) == 0) {
      choices[i] = -INFINITY;
    }
  }
  __syncwarp();
}

// Lane i < n_chosen gets the i-th chosen expert in ascending order. n_chosen <= 32, n_experts <= 32
// NL. work: 64 NL floats of shared memory, of this warp alone.
template <int NL, bool GROUPS>
__device__ inline Choice choose_among(const MoeLayer& layer, const float* logits, float* work,
                                      int lane) {
  float* scores = work;
  float* choices = work + 32 * NL;
  float logit[NL];
  float correction[NL];
#pragma unroll
  for (int j = 0; j < NL; ++j) {
    const int i = min(lane + 32 * j, layer.n_experts - 1);
    logit[j] = load_l2_1(logits + i);
    correction[j] = layer.correction != nullptr ? __ldg(layer.correction + i) : 0.0F;
  }
  u32 keys[NL];
#pragma unroll
  for (int j = 0; j < NL; ++j) {
    const int i = lane + 32 * j;
    const float score = __fdiv_rn(1.0F, __fadd_rn(1.0F, expf(-logit[j])));
    const float choice = layer.correction != nullptr ? __fadd_rn(score, correction[j]) : score;
    keys[j] = ordered(choice);
    if (i < layer.n_experts) {
      scores[i] = score;
      choices[i] = choice;
    }
  }
  __syncwarp();
  if (GROUPS && layer.n_groups > 1) {
    keep_best_groups(layer, choices, lane);
#pragma unroll
    for (int j = 0; j < NL; ++j) {
      keys[j] = lane + 32 * j < layer.n_experts ? ordered(choices[lane + 32 * j]) : 0;
    }
  }
  Choice mine;
  mine.expert = layer.n_experts;
  float sum = 0;
  u32 taken = 0;  // of this lane, by j
  for (int k = 0; k < layer.n_chosen; ++k) {
    u32 key = 0;
    int index = 0x7fffffff;
#pragma unroll
    for (int j = 0; j < NL; ++j) {
      const int i = lane + 32 * j;
      const bool is_free = i < layer.n_experts && (taken >> j & 1U) == 0;
      const bool is_better = is_free && (keys[j] > key || index == 0x7fffffff);
      key = is_better ? keys[j] : key;
      index = is_better ? i : index;
    }
    const int best = warp_largest(key, index);
    if (best % 32 == lane) {
      taken |= 1U << (best / 32);
    }
    const float weight = scores[best];
    sum = __fadd_rn(sum, weight);
    if (lane == k) {
      mine = {best, weight};
    }
  }
  const float divisor = __fadd_rn(sum, 1e-20F);
  mine.weight =
      __fmul_rn(layer.normalises ? __fdiv_rn(mine.weight, divisor) : mine.weight, layer.scale);
  // Sorted by counting those below.
  int rank = 0;
  for (int k = 0; k < layer.n_chosen; ++k) {
    rank += __shfl_sync(~0U, mine.expert, k) < mine.expert ? 1 : 0;
  }
  __syncwarp();
  if (lane < layer.n_chosen) {
    choices[rank] = mine.weight;
    reinterpret_cast<int*>(choices)[32 + rank] = mine.expert;
  }
  __syncwarp();
  if (lane < layer.n_chosen) {
    mine = {reinterpret_cast<int*>(choices)[32 + lane], choices[lane]};
  }
  return mine;
}

__device__ inline Choice choose_experts(const MoeLayer& layer, const float* logits, float* work,
                                        int lane) {
  return layer.n_experts <= kFusedExperts
             ? choose_among<kFusedExperts / 32, true>(layer, logits, work, lane)
             : choose_among<kMaxExperts / 32, true>(layer, logits, work, lane);
}

}  // namespace logitlab::cuda
