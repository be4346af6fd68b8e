// Attention of one row of each sequence over its pages.
//
// A unit of work is (row, key-value head, set of 16 of its query heads, split): kSplitPositions
// positions at a fixed place of the sequence. Scores and the weighted sum of values are m16n8k16
// products with 16 query heads as the left operand, in two BF16 parts each. The unit that comes
// last adds the splits in order.
#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/ptx.cuh"

namespace logitlab::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kHeads = 16;                                // of a unit
constexpr int kWarpPositions = kSplitPositions / kWarps;  // 32: scores of a warp
constexpr int kTiles = kWarpPositions / 8;
constexpr int kProbabilityPitch = kSplitPositions + 8;
constexpr int kMaxHeadDim = 256;

// Shared memory of a unit.
template <int HD>
struct Workplace {
  float q[kHeads][HD + 4];
  float newest[2][HD];  // key, value of the row itself
  __nv_bfloat16 newest_key[HD];
  __nv_bfloat16 high[kHeads][kProbabilityPitch];
  __nv_bfloat16 low[kHeads][kProbabilityPitch];
  __nv_bfloat16 values[kSplitPositions][HD + 8];
  float largest[kWarps][kHeads];
  float sums[kWarps][kHeads];
  int pages[kSplitPositions / kPagePositions];
  int is_last;
};

struct Unit {
  int row, kv_head, head_set, split, first_split, n_splits;
  int64_t partial;  // number of the split's partial result
};

LOGITLAB_DEVICE int head_sets(const AttentionLayer& layer) {
  return (layer.n_heads / layer.n_kv_heads + kHeads - 1) / kHeads;
}

// Unit `u` of all rows; false when there are fewer.
LOGITLAB_DEVICE bool find_unit(const AttentionArgs& args, int u, Unit* unit) {
  const int per_split = args.layer.n_kv_heads * head_sets(args.layer);
  int64_t splits_before = 0;
  for (int r = 0; r < args.n; ++r) {
    const int length = __ldcg(&args.sequences[r].length) + 1;
    const int first = args.layer.window > 0 && length > args.layer.window
                          ? (length - args.layer.window) / kSplitPositions
                          : 0;
    const int n = (length - 1) / kSplitPositions + 1 - first;
    if (u < n * per_split) {
      unit->row = r;
      unit->split = first + u / per_split;
      unit->first_split = first;
      unit->n_splits = n;
      unit->kv_head = u % per_split % args.layer.n_kv_heads;
      unit->head_set = u % per_split / args.layer.n_kv_heads;
      unit->partial = (splits_before + u / per_split) * per_split + u % per_split;
      return true;
    }
    u -= n * per_split;
    splits_before += n;
  }
  return false;
}

// ---- queries, keys, values into place -----------------------------------------------------------

// A head's vector as a warp holds it: element lane + 32 i.
template <int HD>
struct HeadVector {
  float v[(HD + 31) / 32];

  LOGITLAB_DEVICE void load(const float* source, int lane) {
#pragma unroll
    for (int i = 0; i < (HD + 31) / 32; ++i) {
      v[i] = lane + 32 * i < HD ? load_l2_1(source + lane + 32 * i) : 0.0F;
    }
  }
};

// Norm and rotation of one head's vector, by one warp. target: [HD], shared memory.
template <int HD>
LOGITLAB_DEVICE void place_head(const HeadVector<HD>& head, const float* norm, float eps,
                                const RopeTable& rope, bool rotates, int position, float scale,
                                float* target, int lane) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < (HD + 31) / 32; ++i) {
    if (lane + 32 * i < HD) {
      target[lane + 32 * i] = head.v[i];
      squares = __fmaf_rn(head.v[i], head.v[i], squares);
    }
  }
  if (norm != nullptr) {
    const float mean = __fdiv_rn(warp_sum(squares), static_cast<float>(HD));
    const float inverse = __frsqrt_rn(__fadd_rn(mean, eps));
    for (int i = lane; i < HD; i += 32) {
      target[i] = __fmul_rn(norm[i], __fmul_rn(target[i], inverse));
    }
  }
  __syncwarp();
  const int half = rope.rotary_dim / 2;
  for (int i = lane; rotates && i < half; i += 32) {
    float sine;
    float cosine;
    sincosf(__fmul_rn(static_cast<float>(position), rope.inv_freq[i]), &sine, &cosine);
    sine = __fmul_rn(sine, rope.attention_factor);
    cosine = __fmul_rn(cosine, rope.attention_factor);
    const int at_a = rope.interleaved ? 2 * i : i;
    const int at_b = rope.interleaved ? 2 * i + 1 : i + half;
    const float a = target[at_a];
    const float b = target[at_b];
    target[at_a] = __fsub_rn(__fmul_rn(a, cosine), __fmul_rn(b, sine));
    target[at_b] = __fadd_rn(__fmul_rn(b, cosine), __fmul_rn(a, sine));
  }
  __syncwarp();
  for (int i = lane; i < HD; i += 32) {
    target[i] = __fmul_rn(target[i], scale);
  }
}

// Queries of the unit; and, in the sequence's last split, the row's own key and value, which go
// into its page as well. Several units write the same bytes there.
template <int HD>
LOGITLAB_DEVICE void place_inputs(const AttentionArgs& args, const Unit& unit, int position,
                                  Workplace<HD>* work, int warp, int lane) {
  static_assert(kHeads == 2 * kWarps);
  const AttentionLayer& layer = args.layer;
  const float* qkv =
      args.qkv + static_cast<int64_t>(unit.row) * (layer.n_heads + 2 * layer.n_kv_heads) * HD;
  const int per_kv = layer.n_heads / layer.n_kv_heads;
  const bool has_newest = unit.split == position / kSplitPositions && warp < 2;
  HeadVector<HD> q[2];
  HeadVector<HD> newest;
  // All are asked for at once.
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int head = min(unit.head_set * kHeads + warp + kWarps * i, per_kv - 1);
    q[i].load(qkv + (unit.kv_head * per_kv + head) * HD, lane);
  }
  if (has_newest) {
    newest.load(qkv + (layer.n_heads + warp * layer.n_kv_heads + unit.kv_head) * HD, lane);
  }
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {
    const int h = warp + kWarps * i;
    HeadVector<HD> head;
#pragma unroll
    for (int e = 0; e < (HD + 31) / 32; ++e) {
      head.v[e] = i == 0 ? q[0].v[e] : q[1].v[e];
    }
    if (unit.head_set * kHeads + h < per_kv) {
      place_head<HD>(head, layer.q_norm, layer.qk_norm_eps, args.rope, layer.has_rope, position,
                     layer.scale, work->q[h], lane);
    } else {
      for (int d = lane; d < HD; d += 32) {
        work->q[h][d] = 0;
      }
    }
  }
  if (!has_newest) {
    return;
  }
  place_head<HD>(newest, warp == 0 ? layer.k_norm : nullptr, layer.qk_norm_eps, args.rope,
                 layer.has_rope && warp == 0, position, 1.0F, work->newest[warp], lane);
  __syncwarp();
  const int page = work->pages[position % kSplitPositions / kPagePositions];
  __nv_bfloat16* target =
      args.kv.at(page, layer.state_layer, warp, unit.kv_head) + position % kPagePositions * HD;
  __nv_bfloat16* here = warp == 0 ? work->newest_key : work->values[position % kSplitPositions];
  for (int i = lane; i < HD; i += 32) {
    const __nv_bfloat16 v = __float2bfloat16_rn(work->newest[warp][i]);
    target[i] = v;
    here[i] = v;
  }
}

// ---- scores -------------------------------------------------------------------------------------

// Left operands of a block of 32 dimensions: high parts, then low parts; two products each.
template <int HD>
LOGITLAB_DEVICE void query_block(const Workplace<HD>& work, int block, int lane, u32 (&high)[2][4],
                                 u32 (&low)[2][4]) {
  const int d = 32 * block + 8 * (lane & 3);
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const float* q = work.q[(lane >> 2) + 8 * side] + d;
    const bool is_there = d < HD;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const float4 v = is_there ? *reinterpret_cast<const float4*>(q + 4 * p) : float4{};
      split_bf16(v.x, v.y, &high[p][side], &low[p][side]);
      split_bf16(v.z, v.w, &high[p][2 + side], &low[p][2 + side]);
    }
  }
}

// The keys of a warp's 32 positions, as right operands.
template <int HD>
struct Keys {
  static constexpr int kBlocks = (HD + 31) / 32;
  uint4 k[kTiles][kBlocks];

  // Those from `first` on; not the one at `newest`, which no kernel has written yet.
  LOGITLAB_DEVICE void load(const AttentionArgs& args, const Unit& unit, const Workplace<HD>& work,
                            int first, int n_positions, int newest, int lane) {
    const __nv_bfloat16* keys =
        args.kv.at(work.pages[first / kPagePositions], args.layer.state_layer, 0, unit.kv_head);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int position = first + 8 * i + (lane >> 2);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int d = 32 * b + 8 * (lane & 3);
        const bool is_there = position < n_positions && position != newest && d < HD;
        k[i][b] = is_there ? __ldcg(reinterpret_cast<const uint4*>(
                                 keys + (position % kPagePositions) * HD + d))
                           : uint4{};
      }
    }
  }
  LOGITLAB_DEVICE void take_newest(const Workplace<HD>& work, int first, int newest, int lane) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (first + 8 * i + (lane >> 2) == newest) {
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          const int d = 32 * b + 8 * (lane & 3);
          k[i][b] = d < HD ? *reinterpret_cast<const uint4*>(work.newest_key + d) : uint4{};
        }
      }
    }
  }
};

// Scores of this warp's 32 positions: c[tile] as the product leaves them.
template <int HD>
LOGITLAB_DEVICE void scores(const Workplace<HD>& work, const Keys<HD>& keys, int lane,
                            float (&c)[kTiles][4]) {
#pragma unroll
  for (int b = 0; b < Keys<HD>::kBlocks; ++b) {
    u32 high[2][4];
    u32 low[2][4];
    query_block(work, b, lane, high, low);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint4 k = keys.k[i][b];
      mma_bf16(c[i], high[0][0], high[0][1], high[0][2], high[0][3], k.x, k.y);
      mma_bf16(c[i], high[1][0], high[1][1], high[1][2], high[1][3], k.z, k.w);
      mma_bf16(c[i], low[0][0], low[0][1], low[0][2], low[0][3], k.x, k.y);
      mma_bf16(c[i], low[1][0], low[1][1], low[1][2], low[1][3], k.z, k.w);
    }
  }
}

// Over the four lanes that hold a head.
LOGITLAB_DEVICE float largest_of_lanes(float v) {
  v = fmaxf(v, __shfl_xor_sync(~0U, v, 1));
  return fmaxf(v, __shfl_xor_sync(~0U, v, 2));
}
LOGITLAB_DEVICE float sum_of_lanes(float v) {
  v = __fadd_rn(v, __shfl_xor_sync(~0U, v, 1));
  return __fadd_rn(v, __shfl_xor_sync(~0U, v, 2));
}

// exp(score - largest) of every position, in two parts, and their sums per warp. low, high: the
// positions of the split that the row sees.
template <int HD>
LOGITLAB_DEVICE void softmax(Workplace<HD>* work, float (&c)[kTiles][4], int first, int low,
                             int high, int warp, int lane) {
  float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int position = first + 8 * i + 2 * (lane & 3) + (j & 1);
      c[i][j] = position >= low && position < high ? c[i][j] : -INFINITY;
      top[j / 2] = fmaxf(top[j / 2], c[i][j]);
    }
  }
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const float v = largest_of_lanes(top[side]);
    if ((lane & 3) == 0) {
      work->largest[warp][(lane >> 2) + 8 * side] = v;
    }
  }
  __syncthreads();
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const int head = (lane >> 2) + 8 * side;
    float largest = work->largest[0][head];
    for (int w = 1; w < kWarps; ++w) {
      largest = fmaxf(largest, work->largest[w][head]);
    }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const float a = expf(__fsub_rn(c[i][2 * side], largest));
      const float b = expf(__fsub_rn(c[i][2 * side + 1], largest));
      sum = __fadd_rn(sum, __fadd_rn(a, b));
      u32 packed_high;
      u32 packed_low;
      split_bf16(a, b, &packed_high, &packed_low);
      const int at = first + 8 * i + 2 * (lane & 3);
      *reinterpret_cast<u32*>(&work->high[head][at]) = packed_high;
      *reinterpret_cast<u32*>(&work->low[head][at]) = packed_low;
    }
    sum = sum_of_lanes(sum);
    if ((lane & 3) == 0) {
      work->sums[warp][head] = sum;
    }
  }
}

// ---- values -------------------------------------------------------------------------------------

// Sends for the values of the split but the newest one. Rows past the end become zeros: 0 times
// what is there could be a NaN.
template <int HD>
LOGITLAB_DEVICE void send_for_values(const AttentionArgs& args, const Unit& unit,
                                     Workplace<HD>* work, int n_positions, int newest) {
  constexpr int kPieces = HD / 8;
  const int rows = min(kSplitPositions, (n_positions + 15) / 16 * 16);
  for (int i = threadIdx.x; i < rows * kPieces; i += kThreads) {
    const int position = i / kPieces;
    const int d = i % kPieces * 8;
    __nv_bfloat16* target = &work->values[position][d];
    if (position >= n_positions) {
      *reinterpret_cast<uint4*>(target) = uint4{};
    } else if (position != newest) {
      const __nv_bfloat16* page = args.kv.at(work->pages[position / kPagePositions],
                                             args.layer.state_layer, 1, unit.kv_head);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(target)),
                   "l"(page + (position % kPagePositions) * HD + d)
                   : "memory");
    }
  }
}
// This thread's part of them has come.
LOGITLAB_DEVICE void wait_for_values() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

LOGITLAB_DEVICE void load_transposed(u32 address, u32* b0, u32* b1) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(*b0), "=r"(*b1)
               : "r"(address)
               : "memory");
}

// Sums over positions of probability * value: this warp's 8 dimensions of every 64.
template <int HD>
struct Weighed {
  static constexpr int kSets = (HD + 8 * kWarps - 1) / (8 * kWarps);
  float c[kSets][4] = {};

  LOGITLAB_DEVICE static int dimension(int set, int warp) { return 8 * (warp + kWarps * set); }

  LOGITLAB_DEVICE void add(const Workplace<HD>& work, int n_positions, int warp, int lane) {
#pragma unroll 2
    for (int p = 0; p < n_positions; p += 16) {
      const int at = p + 2 * (lane & 3);
      u32 high[4];
      u32 low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int head = (lane >> 2) + 8 * (i & 1);
        high[i] = *reinterpret_cast<const u32*>(&work.high[head][at + 8 * (i >> 1)]);
        low[i] = *reinterpret_cast<const u32*>(&work.low[head][at + 8 * (i >> 1)]);
      }
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        const int d = dimension(set, warp);
        if (d < HD) {
          u32 b0;
          u32 b1;
          load_transposed(shared_address(&work.values[p + (lane & 15)][d]), &b0, &b1);
          mma_bf16(c[set], high[0], high[1], high[2], high[3], b0, b1);
          mma_bf16(c[set], low[0], low[1], low[2], low[3], b0, b1);
        }
      }
    }
  }
};

// ---- results ------------------------------------------------------------------------------------

// A partial result: [kHeads][HD] sums, then largest and sum of each head.
template <int HD>
constexpr int kPartialSize = kHeads*(HD + 2);

template <int HD>
LOGITLAB_DEVICE float head_sum(const Workplace<HD>& work, int head) {
  float sum = work.sums[0][head];
  for (int w = 1; w < kWarps; ++w) {
    sum = __fadd_rn(sum, work.sums[w][head]);
  }
  return sum;
}

// Adds the splits of the unit's row and heads in order.
template <int HD>
LOGITLAB_DEVICE void merge(const AttentionArgs& args, const Unit& unit) {
  const AttentionLayer& layer = args.layer;
  const int per_kv = layer.n_heads / layer.n_kv_heads;
  const int per_split = layer.n_kv_heads * head_sets(layer);
  const int64_t first =
      unit.partial - static_cast<int64_t>(unit.split - unit.first_split) * per_split;
  for (int i = threadIdx.x; i < kHeads * HD; i += kThreads) {
    const int h = i / HD;
    const int head = unit.head_set * kHeads + h;
    if (head >= per_kv) {
      return;
    }
    float largest = -INFINITY;
    for (int s = 0; s < unit.n_splits; ++s) {
      const float* part = args.partial + (first + int64_t{s} * per_split) * kPartialSize<HD>;
      largest = fmaxf(largest, load_l2_1(part + kHeads * HD + h));
    }
    float sum = 0;
    float total = 0;
    for (int s = 0; s < unit.n_splits; ++s) {
      const float* part = args.partial + (first + int64_t{s} * per_split) * kPartialSize<HD>;
      const float weight = expf(__fsub_rn(load_l2_1(part + kHeads * HD + h), largest));
      total = __fmaf_rn(weight, load_l2_1(part + kHeads * HD + kHeads + h), total);
      sum = __fmaf_rn(weight, load_l2_1(part + i), sum);
    }
    args.out[(static_cast<int64_t>(unit.row) * layer.n_heads + unit.kv_head * per_kv + head) * HD +
             i % HD] = __fdiv_rn(sum, total);
  }
}

template <int HD>
LOGITLAB_DEVICE void put_result(const AttentionArgs& args, const Unit& unit,
                                const Workplace<HD>& work, int d, const float (&c)[4], int lane) {
  const AttentionLayer& layer = args.layer;
  const int per_kv = layer.n_heads / layer.n_kv_heads;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int h = (lane >> 2) + 8 * (j / 2);
    const int at = d + 2 * (lane & 3) + (j & 1);
    const int head = unit.head_set * kHeads + h;
    if (unit.n_splits > 1) {
      args.partial[unit.partial * kPartialSize<HD> + h * HD + at] = c[j];
    } else if (head < per_kv) {
      args.out[(static_cast<int64_t>(unit.row) * layer.n_heads + unit.kv_head * per_kv + head) *
                   HD +
               at] = __fdiv_rn(c[j], head_sum(work, h));
    }
  }
}

// Says that this split is done; the one that comes last merges all.
template <int HD>
LOGITLAB_DEVICE void end_split(const AttentionArgs& args, const Unit& unit, Workplace<HD>* work) {
  const int i = threadIdx.x;
  if (i < kHeads) {
    float* tail = args.partial + unit.partial * kPartialSize<HD> + kHeads * HD;
    float largest = work->largest[0][i];
    for (int w = 1; w < kWarps; ++w) {
      largest = fmaxf(largest, work->largest[w][i]);
    }
    tail[i] = largest;
    tail[kHeads + i] = head_sum(*work, i);
  }
  __threadfence();
  __syncthreads();
  if (i == 0) {
    const int sets = head_sets(args.layer);
    int* arrived =
        args.arrived + (unit.row * args.layer.n_kv_heads + unit.kv_head) * sets + unit.head_set;
    work->is_last = atomicAdd(arrived, 1) == unit.n_splits - 1 ? 1 : 0;
    if (work->is_last != 0) {
      *arrived = 0;
    }
    __threadfence();
  }
  __syncthreads();
  if (work->is_last != 0) {
    merge<HD>(args, unit);
  }
}

template <int HD>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(16) char memory[];
  Workplace<HD>& work = *reinterpret_cast<Workplace<HD>*>(memory);
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  allow_successor();
  // Lengths and pages are those of the step: no kernel of it changes them before its end.
  bool has_waited = false;
  Unit unit;
  for (int u = blockIdx.x; find_unit(args, u, &unit); u += gridDim.x) {
    const Sequence& sequence = args.sequences[unit.row];
    const int position = __ldcg(&sequence.length);
    const int start = unit.split * kSplitPositions;
    const int n_positions = min(kSplitPositions, position + 1 - start);
    const int hidden = args.layer.window > 0 ? position + 1 - args.layer.window - start : 0;
    if (threadIdx.x < kSplitPositions / kPagePositions) {
      const int p = start + static_cast<int>(threadIdx.x) * kPagePositions;
      work.pages[threadIdx.x] =
          p <= position ? __ldcg(sequence.page_table + p / kPagePositions) : 0;
    }
    __syncthreads();
    // What the steps before have left is asked for before the wait.
    const int newest = position - start;
    const int first = warp * kWarpPositions;
    send_for_values<HD>(args, unit, &work, n_positions, newest);
    Keys<HD> keys;
    keys.load(args, unit, work, first, n_positions, newest, lane);
    if (!has_waited) {
      wait_for_predecessor();
      has_waited = true;
    }
    place_inputs<HD>(args, unit, position, &work, warp, lane);
    __syncthreads();
    keys.take_newest(work, first, newest, lane);
    float c[kTiles][4] = {};
    scores<HD>(work, keys, lane, c);
    softmax<HD>(&work, c, first, hidden, n_positions, warp, lane);
    wait_for_values();
    __syncthreads();
    Weighed<HD> sums;
    sums.add(work, n_positions, warp, lane);
    for (int set = 0; set < Weighed<HD>::kSets; ++set) {
      const int d = Weighed<HD>::dimension(set, warp);
      if (d < HD) {
        put_result<HD>(args, unit, work, d, sums.c[set], lane);
      }
    }
    if (unit.n_splits > 1) {
      end_split<HD>(args, unit, &work);
    }
    __syncthreads();
  }
}

int host_head_sets(const AttentionLayer& layer) {
  return (layer.n_heads / layer.n_kv_heads + kHeads - 1) / kHeads;
}

template <int HD>
cudaError_t queue_of(const AttentionArgs& args, cudaStream_t stream) {
  return launch(attention_kernel<HD>, dim3(static_cast<unsigned>(args.n_blocks)), kThreads,
                sizeof(Workplace<HD>), stream, args);
}

}  // namespace

size_t attention_partial_floats(const AttentionLayer& layer, int64_t splits) {
  return static_cast<size_t>(splits) * static_cast<size_t>(layer.n_kv_heads) *
         static_cast<size_t>(host_head_sets(layer)) * static_cast<size_t>(kHeads) *
         static_cast<size_t>(layer.head_dim + 2);
}

int attention_counters(const AttentionLayer& layer) {
  return layer.n_kv_heads * host_head_sets(layer);
}

cudaError_t queue_attention(const AttentionArgs& args, cudaStream_t stream) {
  switch (args.layer.head_dim) {
    case 16:
      return queue_of<16>(args, stream);
    case 32:
      return queue_of<32>(args, stream);
    case 64:
      return queue_of<64>(args, stream);
    case 80:
      return queue_of<80>(args, stream);
    case 96:
      return queue_of<96>(args, stream);
    case 128:
      return queue_of<128>(args, stream);
    case 256:
      return queue_of<kMaxHeadDim>(args, stream);
    default:
      return cudaErrorNotSupported;
  }
}

}  // namespace logitlab::cuda
