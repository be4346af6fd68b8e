// Products with one row of activations: the parts that the kernels of one sequence share.
//
// All lanes of a warp load and split its slice of the row; the four lanes that multiply get it by
// way of shared memory. Sums are those of gemv.cuh, bit for bit.
#pragma once

#include "backend/cuda/gemv.cuh"

namespace logitlab::cuda {

constexpr int kSingleGroups = kPairs / kRowTile;  // of a chunk

// Shared memory beside the ring.
struct SingleExchange {
  float partial[kSlices][kPairs];
  int2 groups[kSingleGroups];  // row, n
  float squares[kSlices];
  u32 fragments[kSlices][kSliceBlocks][4][8];  // of each warp's slice, on their way to its lanes
};

// What a lane holds of its warp's slice: the elements 8 t .. 8 t + 7 of the blocks b and b + 8,
// for lane 4 b + t.
struct SingleRaw {
  float4 v[2][2];
};

// source: the segment's first element; null for none. is_constant: no kernel wrote it.
LOGITLAB_DEVICE SingleRaw load_single(const float* source, const Slice& slice, int length, int lane,
                                      bool is_constant = false) {
  SingleRaw raw;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int block = (lane >> 2) + kSliceBlocks / 2 * i;
    const int k = slice.k + 32 * block + 8 * (lane & 3);
    const bool is_there = source != nullptr && block < slice.n_blocks && k < length;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float* p = source + k + 4 * j;
      raw.v[i][j] = !is_there     ? float4{}
                    : is_constant ? __ldg(reinterpret_cast<const float4*>(p))
                                  : load_l2(p);
    }
  }
  return raw;
}

// Makes the left operands of this warp's slice; with `gain` the values are multiplied by it.
// Returns the slice's sum of squares before that. work: of this warp alone.
template <int NB>
LOGITLAB_DEVICE float place_single(Fragments<NB>& x, const SingleRaw& raw, const SingleRaw* gain,
                                   u32 (&work)[kSliceBlocks][4][8], int lane) {
  float squares[2];
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float4 u = raw.v[i][0];
    float4 v = raw.v[i][1];
    squares[i] = block_squares(u, v);
    if (gain != nullptr) {
      u = times(u, gain->v[i][0]);
      v = times(v, gain->v[i][1]);
    }
    u32 r[8];
    split_block(u, v, r);
    uint4* target = reinterpret_cast<uint4*>(work[(lane >> 2) + kSliceBlocks / 2 * i][lane & 3]);
    target[0] = {r[0], r[1], r[2], r[3]};
    target[1] = {r[4], r[5], r[6], r[7]};
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < NB; ++i) {
    uint4 a{};
    uint4 b{};
    if (lane < 4) {
      const uint4* source = reinterpret_cast<const uint4*>(work[i][lane]);
      a = source[0];
      b = source[1];
    }
    x.r[i][0] = a.x, x.r[i][1] = a.y, x.r[i][2] = a.z, x.r[i][3] = a.w;
    x.r[i][4] = b.x, x.r[i][5] = b.y, x.r[i][6] = b.z, x.r[i][7] = b.w;
  }
  return warp_sum(__fadd_rn(squares[0], squares[1]));
}

// One warp's place in a product with one row. EVEN: all slices are of whole blocks.
template <int NB, bool EVEN>
class SingleWarp {
 public:
  LOGITLAB_DEVICE SingleWarp(const Ring& ring, SingleExchange* exchange, int warp, int lane)
      : reader_(ring), exchange_(exchange), warp_(warp), lane_(lane) {}

  LOGITLAB_DEVICE float place(const SingleRaw& raw, const SingleRaw* gain) {
    return place_single(x_, raw, gain, exchange_->fragments[warp_], lane_);
  }

  // Multiplies the next group of the ring, of n rows: number `index` of the chunk. With EVEN the
  // slices are of N or N - 2 blocks.
  template <int N = NB>
  LOGITLAB_DEVICE void multiply(int index, int n, const SegmentShape& shape, const Slice& slice,
                                bool adds = false) {
    Accumulator sum;
    const u32 row = reader_.wait(n, shape.length, lane_);
    if constexpr (EVEN) {
      dot_even<N>(sum, row, x_, slice, lane_);
    } else {
      dot(sum, row, x_, slice, shape.length, lane_);
    }
    reader_.release(lane_);
    reader_.advance();
    if (lane_ < 4) {
      float2* target =
          reinterpret_cast<float2*>(&exchange_->partial[warp_][index * kRowTile + 2 * lane_]);
      float2 v = {sum.value(0), sum.value(1)};
      if (adds) {
        v = {__fadd_rn(target->x, v.x), __fadd_rn(target->y, v.y)};
      }
      *target = v;
    }
  }

  LOGITLAB_DEVICE void name_group(int index, const Group& group) {
    if (warp_ == 0 && lane_ == 0) {
      exchange_->groups[index] = make_int2(group.row, group.n);
    }
  }

 private:
  RingReader reader_;
  SingleExchange* exchange_;
  int warp_, lane_;
  Fragments<NB> x_;
};

LOGITLAB_DEVICE float sum_slices(const float (&partial)[kSlices][kPairs], int index) {
  float v = partial[0][index];
#pragma unroll
  for (int s = 1; s < kSlices; ++s) {
    v = __fadd_rn(v, partial[s][index]);
  }
  return v;
}

LOGITLAB_DEVICE float norm_scale(const float (&squares)[kSlices], float size, float eps) {
  float total = squares[0];
#pragma unroll
  for (int s = 1; s < kSlices; ++s) {
    total = __fadd_rn(total, squares[s]);
  }
  return __frsqrt_rn(__fadd_rn(__fdiv_rn(total, size), eps));
}

}  // namespace logitlab::cuda
