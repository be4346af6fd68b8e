// The first and the last phase of a step: rows of the embedding, and the choice of the next ids.
#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/ptx.cuh"

namespace logitlab::cuda {
namespace {

constexpr int kChooseThreads = 256;
constexpr u32 kNothing = 0xffffffffU;

__global__ void __launch_bounds__(256)
    embed_kernel(const __grid_constant__ Matrix embedding, const int* ids, float* x) {
  // In this order: whatever comes later in the step begins when the step before has ended, and may
  // read ids, lengths and pages at once.
  wait_for_predecessor();
  allow_successor();
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= embedding.columns / 8) {
    return;
  }
  const int id = __ldcg(ids + blockIdx.y);
  const uint4 w = __ldg(reinterpret_cast<const uint4*>(embedding.weight + static_cast<int64_t>(id) *
                                                                              embedding.columns) +
                        i);
  float4* out =
      reinterpret_cast<float4*>(x + static_cast<int64_t>(blockIdx.y) * embedding.columns) + 2 * i;
  out[0] = {low_bf16(w.x), high_bf16(w.x), low_bf16(w.y), high_bf16(w.y)};
  out[1] = {low_bf16(w.z), high_bf16(w.z), low_bf16(w.w), high_bf16(w.w)};
}

// ---- Philox4x32-10, as base/philox.h
// -------------------------------------------------------------

LOGITLAB_DEVICE uint4 philox(uint4 c, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u32 high0 = __umulhi(0xD2511F53U, c.x);
    const u32 low0 = 0xD2511F53U * c.x;
    const u32 high1 = __umulhi(0xCD9E8D57U, c.z);
    const u32 low1 = 0xCD9E8D57U * c.z;
    c = {high1 ^ c.y ^ key.x, low1, high0 ^ c.w ^ key.y, low0};
    key = {key.x + 0x9E3779B9U, key.y + 0xBB67AE85U};
  }
  return c;
}

// log(E) of token `id`, as sampling/sampler.h defines E.
LOGITLAB_DEVICE double log_exponential(const Draw& draw, u32 step, u32 id) {
  const uint4 block = philox({id >> 1, step, static_cast<u32>(draw.sequence_index), 0},
                             {static_cast<u32>(draw.seed), static_cast<u32>(draw.seed >> 32)});
  const u64 low = (id & 1U) == 0 ? block.x : block.z;
  const u64 high = (id & 1U) == 0 ? block.y : block.w;
  const double u = (static_cast<double>((low | high << 32) >> 12) + 0.5) * 0x1p-52;
  return log(-log1p(-u));
}

// ---- the largest --------------------------------------------------------------------------------

// Numbers in the order of doubles; a NaN is above all of them.
LOGITLAB_DEVICE u64 ordered(double v) {
  if (isnan(v)) {
    return ~0ULL;
  }
  const u64 bits = static_cast<u64>(__double_as_longlong(v + 0.0));  // -0 is 0
  return (bits >> 63) != 0 ? ~bits : bits | 1ULL << 63;
}

struct Best {
  u64 key = 0;
  u32 id = kNothing;
};

LOGITLAB_DEVICE void take_larger(Best* best, u64 key, u32 id) {
  if (id != kNothing &&
      (best->id == kNothing || key > best->key || (key == best->key && id < best->id))) {
    *best = {key, id};
  }
}

LOGITLAB_DEVICE Best warp_best(Best best) {
#pragma unroll
  for (int m = 16; m > 0; m >>= 1) {
    take_larger(&best, __shfl_xor_sync(~0U, best.key, m), __shfl_xor_sync(~0U, best.id, m));
  }
  return best;
}

// Thread 0 gets the block's.
LOGITLAB_DEVICE Best block_best(Best best) {
  __shared__ Best of_warp[kChooseThreads / 32];
  best = warp_best(best);
  if ((threadIdx.x & 31) == 0) {
    of_warp[threadIdx.x >> 5] = best;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kChooseThreads / 32; ++w) {
      take_larger(&best, of_warp[w].key, of_warp[w].id);
    }
  }
  return best;
}

// The better of `best` and token `id` with logit v.
LOGITLAB_DEVICE void consider(const Draw& draw, u32 step, u32 id, float v, Best* best) {
  if (!draw.samples) {
    take_larger(best, ordered(v), id);
    return;
  }
  const float score = __fdiv_rn(v, draw.temperature);
  if (score == -INFINITY) {
    return;
  }
  // What cannot be drawn from wins, and is refused at the end.
  const bool is_bad = isnan(score) || score == INFINITY;
  const double key = is_bad ? NAN : static_cast<double>(score) - log_exponential(draw, step, id);
  take_larger(best, ordered(key), id);
}

LOGITLAB_DEVICE Best best_of_range(const ChooseArgs& args, int row, u32 step) {
  constexpr int kBatch = 8;  // logits that a thread asks for at once
  constexpr int kStride = kChooseBlocks * kChooseThreads;
  const float* logits = args.logits + static_cast<int64_t>(row) * args.vocab_size;
  const Draw draw = args.draws[row];
  Best best;
  for (int first = blockIdx.x * kChooseThreads + static_cast<int>(threadIdx.x);
       first < args.vocab_size; first += kBatch * kStride) {
    float v[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      v[i] = first + i * kStride < args.vocab_size ? load_l2_1(logits + first + i * kStride) : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (first + i * kStride < args.vocab_size) {
        consider(draw, step, static_cast<u32>(first + i * kStride), v[i], &best);
      }
    }
  }
  return best;
}

// The last block of a row decides; the last row counts the step. One warp.
LOGITLAB_DEVICE void decide(const ChooseArgs& args, int row, int step, int lane) {
  Best best;
#pragma unroll
  for (int i = 0; i < kChooseBlocks; i += 32) {
    const ulonglong2 part = __ldcg(args.best + row * kChooseBlocks + i + lane);
    take_larger(&best, part.x, static_cast<u32>(part.y));
  }
  best = warp_best(best);
  if (lane != 0) {
    return;
  }
  args.arrived[row] = 0;
  const bool is_refused = best.id == kNothing || (args.draws[row].samples && best.key == ~0ULL);
  args.ids[row] = is_refused ? 0 : static_cast<int>(best.id);
  args.out[static_cast<int64_t>(row) * args.out_stride + step] =
      is_refused ? -1 : static_cast<int>(best.id);
  args.sequences[row].length += 1;
  __threadfence();
  if (atomicAdd(args.arrived + args.n, 1) == args.n - 1) {
    args.arrived[args.n] = 0;
    *args.step = step + 1;
  }
}

// A block per (part of the vocabulary, row).
__global__ void __launch_bounds__(kChooseThreads)
    choose_kernel(const __grid_constant__ ChooseArgs args) {
  __shared__ int is_last;
  allow_successor();
  wait_for_predecessor();
  const int row = blockIdx.y;
  const int step = __ldcg(args.step);
  const Best best = block_best(best_of_range(
      args, row, static_cast<u32>(args.draws[row].first_step) + static_cast<u32>(step)));
  if (threadIdx.x == 0) {
    args.best[row * kChooseBlocks + blockIdx.x] = {best.key, best.id};
    __threadfence();
    is_last = atomicAdd(args.arrived + row, 1) == kChooseBlocks - 1 ? 1 : 0;
    __threadfence();
  }
  __syncthreads();
  if (is_last != 0 && threadIdx.x < 32) {
    decide(args, row, step, static_cast<int>(threadIdx.x));
  }
}

}  // namespace

cudaError_t queue_embed(const Matrix& embedding, const int* ids, float* x, int n,
                        cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((embedding.columns / 8 + 255) / 256),
                  static_cast<unsigned>(n));
  return launch(embed_kernel, grid, 256, 0, stream, embedding, ids, x);
}

cudaError_t queue_choose(const ChooseArgs& args, cudaStream_t stream) {
  const dim3 grid(kChooseBlocks, static_cast<unsigned>(args.n));
  return launch(choose_kernel, grid, kChooseThreads, 0, stream, args);
}

}  // namespace logitlab::cuda
