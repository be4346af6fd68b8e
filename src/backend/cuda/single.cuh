// Products with one row of activations: the parts that the kernels of one sequence share.
//
// All lanes of a warp load and split its slice of the row; the lanes that multiply get it by way of
// shared memory. Here the matrix is the left operand and the row the right one, which takes a
// quarter of the registers of gemv.cuh's order, for chains of products half as long. Sums are those
// of gemv.cuh, bit for bit.
#pragma once

#include "backend/cuda/gemv.cuh"

namespace logitlab::cuda {

constexpr int kSingleGroups = kPairs / kRowTile;  // of a chunk

// The right operands of one half of a warp's slice, on their way to its lanes: blocks of 32
// elements; high parts, low parts; the quarters of a block; pairs.
using HalfSlice = u32[kSliceBlocks / 2][2][4][4];

// Shared memory beside the ring.
struct SingleExchange {
  float partial[kSlices][kPairs];
  int2 groups[kSingleGroups];  // row, n
  float squares[kSlices];

  // A warp's right operands pass where its partial sums will be: not between those.
  LOGITLAB_DEVICE HalfSlice& passage(int warp) {
    static_assert(sizeof(HalfSlice) <= sizeof(partial[0]));
    return *reinterpret_cast<HalfSlice*>(partial[warp]);
  }
};
// The same for kernels that change the row while partial sums wait.
struct LongExchange : SingleExchange {
  HalfSlice fragments[kSlices];
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

// Right operands of a slice: of every two blocks one set. Lane 4 n + t holds the elements
// 8 t .. 8 t + 7 for column n: high and low parts of the first block, high and low parts of the
// second. The columns past those are not looked at.
template <int NB>
struct RightFragments {
  u32 r[NB / 2][4];
};

// Makes the right operands of this warp's slice; with `gain` the values are multiplied by it.
// Returns the slice's sum of squares before that. work: of this warp alone.
template <int NB>
LOGITLAB_DEVICE float place_single(RightFragments<NB>& x, SingleRaw raw, const SingleRaw* gain,
                                   HalfSlice& work, int lane) {
  constexpr int kHalfPairs = kSliceBlocks / 4;
  const float squares =
      __fadd_rn(block_squares(raw.v[0][0], raw.v[0][1]), block_squares(raw.v[1][0], raw.v[1][1]));
  if (gain != nullptr) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      raw.v[i / 2][i % 2] = times(raw.v[i / 2][i % 2], gain->v[i / 2][i % 2]);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    u32 r[8];
    split_block(raw.v[i][0], raw.v[i][1], r);
    __syncwarp();
    *reinterpret_cast<uint4*>(work[lane >> 2][0][lane & 3]) = {r[0], r[2], r[4], r[6]};
    *reinterpret_cast<uint4*>(work[lane >> 2][1][lane & 3]) = {r[1], r[3], r[5], r[7]};
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kHalfPairs; ++j) {
      if (kHalfPairs * i + j < NB / 2) {
        const uint4 v =
            *reinterpret_cast<const uint4*>(work[2 * j + (lane >> 3 & 1)][lane >> 2 & 1][lane & 3]);
        u32(&target)[4] = x.r[kHalfPairs * i + j];
        target[0] = v.x, target[1] = v.y, target[2] = v.z, target[3] = v.w;
      }
    }
  }
  __syncwarp();
  return warp_sum(squares);
}

constexpr int kPassRows = 4;  // of a product

// The sums of kPassRows rows over one slice. Row 2 r of the product is row r of the matrix over the
// even blocks, row 2 r + 1 the same over the odd ones, so that eight lanes read 128 bytes that
// follow one another.
struct RowSums {
  float a[4] = {};
  float b[4] = {};

  LOGITLAB_DEVICE void add_blocks(const u32 (&x)[4], uint4 w) {
    mma_bf16(a, w.x, w.x, w.y, w.y, x[0], x[1]);
    mma_bf16(b, w.z, w.z, w.w, w.w, x[2], x[3]);
  }
  // Of row r, for lane 8 r.
  LOGITLAB_DEVICE float value() const {
    const float half = __fadd_rn(__fadd_rn(a[0], b[0]), __fadd_rn(a[1], b[1]));
    return __fadd_rn(half, __shfl_down_sync(~0U, half, 5));
  }
};

// One warp's place in a product with one row. EVEN: all slices are of whole blocks.
template <int NB, bool EVEN>
class SingleWarp {
 public:
  // passage: of this warp alone.
  LOGITLAB_DEVICE SingleWarp(const Ring& ring, SingleExchange* exchange, HalfSlice* passage,
                             int warp, int lane)
      : reader_(ring), exchange_(exchange), passage_(passage), warp_(warp), lane_(lane) {}

  LOGITLAB_DEVICE float place(const SingleRaw& raw, const SingleRaw* gain) {
    return place_single(x_, raw, gain, *passage_, lane_);
  }

  // Multiplies the next group of the ring, of n rows: the partial sums from `at` on. With EVEN the
  // slices are of N or N - 2 blocks. Both halves of a group go at once, so that one's products are
  // under way while the other's wait for theirs.
  template <int N = NB>
  LOGITLAB_DEVICE void multiply(int at, int n, const SegmentShape& shape, const Slice& slice,
                                bool adds = false) {
    const int row = lane_ >> 3;
    const bool has_row[2] = {row < n, row + kPassRows < n};
    const u32 first = reader_.wait() + slice.k * 2 + (lane_ & 7) * 16 + row * shape.length * 2;
    const u32 rows[2] = {first, first + kPassRows * shape.length * 2};
    RowSums sum[2];
    if constexpr (EVEN) {
#pragma unroll
      for (int i = 0; i < N / 2 - 1; ++i) {
        add_pair(sum, i, rows, has_row);
      }
      if (slice.n_blocks == N) {
        add_pair(sum, N / 2 - 1, rows, has_row);
      }
    } else {
#pragma unroll
      for (int i = 0; i < NB / 2; ++i) {
        if (2 * i < slice.n_blocks) {
          // Past the row's end lies what was there before: perhaps a NaN.
          const bool is_there = slice.k + 64 * i + 8 * (lane_ & 7) < shape.length;
          const bool both[2] = {has_row[0] && is_there, has_row[1] && is_there};
          add_pair(sum, i, rows, both);
        }
      }
    }
    reader_.release(lane_);
    reader_.advance();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float v = sum[h].value();
      if (has_row[h] && (lane_ & 7) == 0) {
        float* target = &exchange_->partial[warp_][at + kPassRows * h + row];
        *target = adds ? __fadd_rn(*target, v) : v;
      }
    }
  }

  LOGITLAB_DEVICE void name_group(int index, const Group& group) {
    if (warp_ == 0 && lane_ == 0) {
      exchange_->groups[index] = make_int2(group.row, group.n);
    }
  }

 private:
  static constexpr int kPairBytes = 2 * kBlockBytes;

  LOGITLAB_DEVICE void add_pair(RowSums (&sum)[2], int pair, const u32 (&rows)[2],
                                const bool (&has_row)[2]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sum[h].add_blocks(x_.r[pair], load_shared_if(has_row[h], rows[h] + kPairBytes * pair));
    }
  }

  RingReader reader_;
  SingleExchange* exchange_;
  HalfSlice* passage_;
  int warp_, lane_;
  RightFragments<NB> x_;
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
