// Products of matrices with few rows of activations, at the speed of the memory: the parts that the
// decode kernels share.
//
// A block has eight consumer warps and one loader warp. The loader copies groups of eight matrix
// rows into a ring of shared memory, as far ahead as the ring allows: weights are constants, so it
// does not wait for the kernel before. Consumer warp s multiplies slice s of every row with its
// slice of the activations, which stays where it is for all rows: m16n8k16 with eight sequences'
// high parts in rows 0-7 of the left operand, their low parts in rows 8-15, and eight matrix rows
// as the right operand. The eight slices of an output are added in order by one thread. So the
// order of a sum depends on its length alone, and a sequence does not see its neighbours.
#pragma once

#include "backend/cuda/layout.h"
#include "backend/cuda/ptx.cuh"
#include "backend/cuda/ring.cuh"

namespace logitlab::cuda {

// ---- activations --------------------------------------------------------------------------------

// One warp's slice as left operands. Lane 4 g + t holds the elements 8 t .. 8 t + 7 of every block
// of sequence g; the order of elements within a block is the same for weights, so it is free.
template <int NB>
struct Fragments {
  u32 r[NB][8];  // per block: high, low, high, low of pairs 0 and 1; the same of pairs 2 and 3
};
template <int NB>
struct RawFragments {
  float4 v[NB][2];
};

// row: this lane's sequence, at the segment's first element; null for none.
template <int NB>
LOGITLAB_DEVICE void load_raw(RawFragments<NB>& raw, const float* row, const Slice& slice,
                              int length, int lane) {
#pragma unroll
  for (int i = 0; i < NB; ++i) {
    const int k = slice.k + 32 * i + 8 * (lane & 3);
    const bool is_there = row != nullptr && i < slice.n_blocks && k < length;
    raw.v[i][0] = is_there ? load_l2(row + k) : float4{};
    raw.v[i][1] = is_there ? load_l2(row + k + 4) : float4{};
  }
}

// Of the eight elements of a lane in a block.
LOGITLAB_DEVICE float block_squares(float4 u, float4 v) {
  float sum = __fmul_rn(u.x, u.x);
  sum = __fmaf_rn(u.y, u.y, sum);
  sum = __fmaf_rn(u.z, u.z, sum);
  sum = __fmaf_rn(u.w, u.w, sum);
  sum = __fmaf_rn(v.x, v.x, sum);
  sum = __fmaf_rn(v.y, v.y, sum);
  sum = __fmaf_rn(v.z, v.z, sum);
  return __fmaf_rn(v.w, v.w, sum);
}

// Blocks of a slice of a whole segment.
constexpr int kSliceBlocks = kSegment / 32 / kSlices;

// Adds a lane's blocks in the order in which a warp adds them that holds a block in every fourth
// lane: single.cuh.
LOGITLAB_DEVICE float add_blocks(const float (&blocks)[kSliceBlocks]) {
  float sums[kSliceBlocks / 2];
#pragma unroll
  for (int i = 0; i < kSliceBlocks / 2; ++i) {
    sums[i] = __fadd_rn(blocks[i], blocks[i + kSliceBlocks / 2]);
  }
#pragma unroll
  for (int m = kSliceBlocks / 4; m > 0; m /= 2) {
#pragma unroll
    for (int i = 0; i < m; ++i) {
      sums[i] = __fadd_rn(sums[i], sums[i + m]);
    }
  }
  return sums[0];
}

LOGITLAB_DEVICE float4 times(float4 a, float4 b) {
  return {__fmul_rn(a.x, b.x), __fmul_rn(a.y, b.y), __fmul_rn(a.z, b.z), __fmul_rn(a.w, b.w)};
}

LOGITLAB_DEVICE void split_block(float4 u, float4 v, u32 (&r)[8]) {
  split_bf16(u.x, u.y, &r[0], &r[1]);
  split_bf16(u.z, u.w, &r[2], &r[3]);
  split_bf16(v.x, v.y, &r[4], &r[5]);
  split_bf16(v.z, v.w, &r[6], &r[7]);
}

// gain: shared memory, at the segment's first element; null for none. Returns this lane's sum of
// squares (before the gain).
template <int NB>
LOGITLAB_DEVICE float convert(Fragments<NB>& x, const RawFragments<NB>& raw, const float* gain,
                              const Slice& slice, int length, int lane) {
  static_assert(NB <= kSliceBlocks);
  float squares[kSliceBlocks] = {};
#pragma unroll
  for (int i = 0; i < NB; ++i) {
    const int k = slice.k + 32 * i + 8 * (lane & 3);
    float4 u = raw.v[i][0];
    float4 v = raw.v[i][1];
    squares[i] = block_squares(u, v);
    if (gain != nullptr && i < slice.n_blocks && k < length) {
      u = times(u, *reinterpret_cast<const float4*>(gain + k));
      v = times(v, *reinterpret_cast<const float4*>(gain + k + 4));
    }
    split_block(u, v, x.r[i]);
  }
  return add_blocks(squares);
}

// The four lanes of a sequence; all of them get it.
LOGITLAB_DEVICE float sum_lanes_of_token(float v) {
  v = __fadd_rn(v, __shfl_xor_sync(~0U, v, 2));
  return __fadd_rn(v, __shfl_xor_sync(~0U, v, 1));
}

// ---- products -----------------------------------------------------------------------------------

// Chains of products for one group and slice, added in value(): even and odd blocks apart, in each
// the pairs 0 and 1 and the pairs 2 and 3.
struct Accumulator {
  float a[2][4] = {};
  float b[2][4] = {};

  LOGITLAB_DEVICE void add_block(int block, uint4 first, uint4 second, uint4 w) {
    mma_bf16(a[block % 2], first.x, first.y, first.z, first.w, w.x, w.y);
    mma_bf16(b[block % 2], second.x, second.y, second.z, second.w, w.z, w.w);
  }
  LOGITLAB_DEVICE void add_block(int block, const u32 (&x)[8], uint4 w) {
    mma_bf16(a[block % 2], x[0], x[1], x[2], x[3], w.x, w.y);
    mma_bf16(b[block % 2], x[4], x[5], x[6], x[7], w.z, w.w);
  }
  // Of matrix row 2 t + i of the group and sequence g, for lane 4 g + t.
  LOGITLAB_DEVICE float value(int i) const { return __fadd_rn(half(0, i), half(1, i)); }

 private:
  LOGITLAB_DEVICE float half(int p, int i) const {
    return __fadd_rn(__fadd_rn(a[p][i], b[p][i]), __fadd_rn(a[p][2 + i], b[p][2 + i]));
  }
};

// Where a lane reads a slice of its row.
struct RowReader {
  u32 address;  // of this lane's 16 bytes of the first block

  LOGITLAB_DEVICE RowReader(u32 row, const Slice& slice, int lane)
      : address(row + slice.k * 2 + (lane & 3) * 16) {}
  LOGITLAB_DEVICE uint4 block(int i) const { return load_shared(address + kBlockBytes * i); }
};

// row: as RingReader::wait gives it.
template <int NB>
LOGITLAB_DEVICE void dot(Accumulator& sum, u32 row, const Fragments<NB>& x, const Slice& slice,
                         int length, int lane) {
  const RowReader reader(row, slice, lane);
  if (slice.is_even && slice.n_blocks >= NB - 2) {
#pragma unroll
    for (int i = 0; i < NB - 2; ++i) {
      sum.add_block(i, x.r[i], reader.block(i));
    }
    if (slice.n_blocks == NB) {
      sum.add_block(NB - 2, x.r[NB - 2], reader.block(NB - 2));
      sum.add_block(NB - 1, x.r[NB - 1], reader.block(NB - 1));
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < NB; ++i) {
    if (i < slice.n_blocks) {
      // Past the row's end lies what was there before: perhaps a NaN.
      const bool is_there = slice.k + 32 * i + 8 * (lane & 3) < length;
      sum.add_block(i, x.r[i], is_there ? reader.block(i) : uint4{});
    }
  }
}

// ---- from slices to outputs ---------------------------------------------------------------------

// Shared memory beside the ring: partial sums (two chunks in turn), which rows a chunk holds, sums
// of squares.
struct Exchange {
  float partial[2][kSlices][kPartialFloats];
  int2 groups[2][kPairs / kRowTile];  // row, n
  float squares[2][kSlices][kTokens];
};

// Writes one group's sums of one slice; with `adds` to what an earlier segment left.
template <int TOK>
LOGITLAB_DEVICE void put_partial(float* slice_sums, int group, const Accumulator& sum, int lane,
                                 bool adds) {
  const int token = lane >> 2;
  if (token >= TOK) {
    return;
  }
  float2* target = reinterpret_cast<float2*>(slice_sums + token * kTokenPitch + group * kRowTile +
                                             2 * (lane & 3));
  float2 v = {sum.value(0), sum.value(1)};
  if (adds) {
    v = {__fadd_rn(target->x, v.x), __fadd_rn(target->y, v.y)};
  }
  *target = v;
}

// Which output of a chunk a consumer thread makes.
template <int TOK>
struct Pair {
  int token, row, index;  // row of the chunk; index of the partial sums

  LOGITLAB_DEVICE explicit Pair(int thread)
      : token(TOK == 1 ? 0 : thread >> 5),
        row(TOK == 1 ? thread : thread & 31),
        index(token * kTokenPitch + row) {}
};

LOGITLAB_DEVICE float sum_slices(const float (*partial)[kPartialFloats], int index) {
  float v = partial[0][index];
#pragma unroll
  for (int s = 1; s < kSlices; ++s) {
    v = __fadd_rn(v, partial[s][index]);
  }
  return v;
}

// The same where every slice is a group of its own norm. squares: [kSlices][kTokens].
LOGITLAB_DEVICE float sum_normed_slices(const float (*partial)[kPartialFloats], int index,
                                        const float (*squares)[kTokens], int token, float size,
                                        float eps) {
  float v = 0;
#pragma unroll
  for (int s = 0; s < kSlices; ++s) {
    const float scale = __frsqrt_rn(__fadd_rn(__fdiv_rn(squares[s][token], size), eps));
    v = __fmaf_rn(partial[s][index], scale, v);
  }
  return v;
}

LOGITLAB_DEVICE float norm_scale(const float (*squares)[kTokens], int token, float size,
                                 float eps) {
  float total = squares[0][token];
#pragma unroll
  for (int s = 1; s < kSlices; ++s) {
    total = __fadd_rn(total, squares[s][token]);
  }
  return __frsqrt_rn(__fadd_rn(__fdiv_rn(total, size), eps));
}

// Rows [first, last) that block `block` of `n_blocks` works on. rows: below 2^31.
struct RowRange {
  int first, last;
  LOGITLAB_DEVICE RowRange(int rows, int block, int n_blocks) {
    const u32 each = static_cast<u32>(rows) / static_cast<u32>(n_blocks);
    const int more = rows - static_cast<int>(each) * n_blocks;
    first = block * static_cast<int>(each) + min(block, more);
    last = first + static_cast<int>(each) + (block < more ? 1 : 0);
  }
};

}  // namespace logitlab::cuda
