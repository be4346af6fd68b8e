// Dot products of weights with activations, compiled once per instruction set.
//
// Every output is one chain: sixteen lanes (lanes-inl.h) over the inputs in ascending order. Speed
// comes from several outputs at once, never from a longer or split chain, so gemv and gemm give the
// same bits and a row does not depend on its neighbours.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/linear_kernels.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include "backend/cpu/kernels.h"
#include "backend/cpu/lanes-inl.h"
#include "backend/cpu/weights-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace logitlab {
namespace HWY_NAMESPACE {

// Inputs of one pass over a tile: 4 weight rows and 4 x rows of 768 floats are 24 KiB, half of L1.
constexpr int64_t kSegment = 768;
constexpr int64_t kGroup = 4;  // weight rows that share the loads of x
// x rows that share the loads of the weights: 4 * kTileRows sums stay in registers.
constexpr int kTileRows = kManyRegisters ? 4 : 3;

HWY_INLINE int64_t padded(int64_t k) {
  return (k + kDotPadding - 1) / kDotPadding * kDotPadding;
}

// sums of outputs [o, o + n) of row r, n <= 4.
HWY_INLINE void put_dots(V4 sums, const DotOutput& output, int64_t r, int64_t o, int64_t n) {
  alignas(16) float dots[4];
  hn::Store(sums, D4(), dots);
  float* out = output.out + r * output.stride + o;
  for (int64_t i = 0; i < n; ++i) {
    float dot = dots[i];
    if (output.bias != nullptr) {
      dot += output.bias[o + i];
    }
    out[i] = output.accumulate ? out[i] + dot : dot;
  }
}

template <class Kind>
constexpr bool kIsSuper = Kind::kElements == 256;

template <class Kind>
HWY_INLINE void dot_block(const uint8_t* w, const V16& x_lo, const V16& x_hi, V16& sum) {
  V16 lo;
  V16 hi;
  Kind::load32(w, lo, hi);
  mul_add16(lo, x_lo, sum);
  mul_add16(hi, x_hi, sum);
}

// The parts of a super-block from kPart on; unrolled, for the shifts depend on the part.
template <class Kind, int kPart>
HWY_INLINE void dot_parts(const uint8_t* w, const SuperScales& scales, const float* x, V16& sum) {
  if constexpr (kPart < 8) {
    V16 lo;
    V16 hi;
    Kind::template load32<kPart>(w, scales, lo, hi);
    mul_add16(lo, load16(x + 32 * kPart), sum);
    mul_add16(hi, load16(x + 32 * kPart + 16), sum);
    dot_parts<Kind, kPart + 1>(w, scales, x, sum);
  }
}

// The last n < 32 elements of a row of plain type, with zeros behind them.
template <class Kind>
HWY_INLINE void copy_tail(const uint8_t* w, int64_t n, uint8_t* buffer) {
  constexpr size_t kElementBytes = Kind::kBytes / static_cast<size_t>(Kind::kElements);
  const size_t bytes = static_cast<size_t>(n) * kElementBytes;
  for (size_t i = 0; i < Kind::kBytes; ++i) {
    buffer[i] = i < bytes ? w[i] : uint8_t{0};
  }
}

// Four rows of 32-element blocks with one x; the rows may be the same. `ahead` bytes on are those
// that the next call reads: they are fetched as one run, which the memory gives faster than four.
template <class Kind>
HWY_INLINE V4 dot4(const uint8_t* const* rows, const float* x, int64_t k, size_t ahead) {
  const uint8_t* w0 = rows[0];
  const uint8_t* w1 = rows[1];
  const uint8_t* w2 = rows[2];
  const uint8_t* w3 = rows[3];
  const uint8_t* next = rows[0] + ahead;
  V16 s0 = zero16();
  V16 s1 = zero16();
  V16 s2 = zero16();
  V16 s3 = zero16();
  int64_t i = 0;
  for (; i + Kind::kElements <= k; i += Kind::kElements) {
    for (size_t line = 0; line < kGroup * Kind::kBytes; line += 64) {
      hwy::Prefetch(next + line);
    }
    next += kGroup * Kind::kBytes;
    const V16 x_lo = load16(x + i);
    const V16 x_hi = load16(x + i + 16);
    dot_block<Kind>(w0, x_lo, x_hi, s0);
    dot_block<Kind>(w1, x_lo, x_hi, s1);
    dot_block<Kind>(w2, x_lo, x_hi, s2);
    dot_block<Kind>(w3, x_lo, x_hi, s3);
    w0 += Kind::kBytes;
    w1 += Kind::kBytes;
    w2 += Kind::kBytes;
    w3 += Kind::kBytes;
  }
  if (i < k) {
    const V16 x_lo = load16(x + i);
    const V16 x_hi = load16(x + i + 16);
    uint8_t tail[Kind::kBytes];
    copy_tail<Kind>(w0, k - i, tail);
    dot_block<Kind>(tail, x_lo, x_hi, s0);
    copy_tail<Kind>(w1, k - i, tail);
    dot_block<Kind>(tail, x_lo, x_hi, s1);
    copy_tail<Kind>(w2, k - i, tail);
    dot_block<Kind>(tail, x_lo, x_hi, s2);
    copy_tail<Kind>(w3, k - i, tail);
    dot_block<Kind>(tail, x_lo, x_hi, s3);
  }
  return reduce4(s0, s1, s2, s3);
}

// The same for super-blocks, row after row within a block: unrolled for four rows at once the code
// would leave the instruction cache.
template <class Kind>
HWY_INLINE V4 dot4_super(const uint8_t* const* rows, const float* x, int64_t k, size_t ahead) {
  alignas(64) float sums[kGroup][16] = {};
  SuperScales scales;
  for (int64_t i = 0; i < k; i += Kind::kElements) {
    const size_t offset = static_cast<size_t>(i / Kind::kElements) * Kind::kBytes;
    for (int r = 0; r < kGroup; ++r) {
      const uint8_t* w = rows[r] + offset;
      for (size_t line = 0; line < Kind::kBytes; line += 64) {
        hwy::Prefetch(w + ahead + line);
      }
      V16 sum = load16(sums[r]);
      Kind::unpack(w, scales);
      dot_parts<Kind, 0>(w, scales, x + i, sum);
      store16(sum, sums[r]);
    }
  }
  return reduce4(load16(sums[0]), load16(sums[1]), load16(sums[2]), load16(sums[3]));
}

template <class Kind>
void gemv(const uint8_t* weights, size_t stride, int64_t n_weights, const float* x, int64_t k,
          const DotOutput& output) {
  for (int64_t o = 0; o < n_weights; o += kGroup) {
    const int64_t n = n_weights - o < kGroup ? n_weights - o : kGroup;
    const uint8_t* rows[kGroup];
    for (int64_t i = 0; i < kGroup; ++i) {
      rows[i] = weights + static_cast<size_t>(o + (i < n ? i : n - 1)) * stride;
    }
    const size_t ahead = static_cast<size_t>(kGroup) * stride;
    if constexpr (kIsSuper<Kind>) {
      put_dots(dot4_super<Kind>(rows, x, k, ahead), output, 0, o, n);
    } else {
      put_dots(dot4<Kind>(rows, x, k, ahead), output, 0, o, n);
    }
  }
}

template <class Kind>
HWY_INLINE void decode_block(const uint8_t* block, float* out) {
  V16 lo;
  V16 hi;
  Kind::load32(block, lo, hi);
  store16(lo, out);
  store16(hi, out + 16);
}

template <class Kind, int kPart>
HWY_INLINE void decode_parts(const uint8_t* block, const SuperScales& scales, float* out) {
  if constexpr (kPart < 8) {
    V16 lo;
    V16 hi;
    Kind::template load32<kPart>(block, scales, lo, hi);
    store16(lo, out + 32 * kPart);
    store16(hi, out + 32 * kPart + 16);
    decode_parts<Kind, kPart + 1>(block, scales, out);
  }
}

template <class Kind>
void decode(const uint8_t* weights, size_t stride, int64_t n_weights, int64_t k, float* out) {
  const int64_t k_padded = padded(k);
  for (int64_t o = 0; o < n_weights; ++o, weights += stride, out += k_padded) {
    const uint8_t* w = weights;
    int64_t i = 0;
    for (; i + Kind::kElements <= k; i += Kind::kElements, w += Kind::kBytes) {
      if constexpr (kIsSuper<Kind>) {
        SuperScales scales;
        Kind::unpack(w, scales);
        decode_parts<Kind, 0>(w, scales, out + i);
      } else {
        decode_block<Kind>(w, out + i);
      }
    }
    if constexpr (!kIsSuper<Kind>) {
      if (i < k) {
        uint8_t tail[Kind::kBytes];
        copy_tail<Kind>(w, k - i, tail);
        decode_block<Kind>(tail, out + i);
      }
    }
  }
}

// sums[r * 4 + i][lane] += weight row i times x row r over n inputs, a multiple of 16; one pass per
// vector of lanes, so that the sums of a pass fit in the registers.
template <int kRows>
HWY_INLINE void tile(const float* const* w, const float* x, int64_t x_stride, int64_t n,
                     bool is_first, float* sums) {
  const D d;
  for (int v = 0; v < kVecs; ++v) {
    V s[kRows][kGroup];
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < kGroup; ++i) {
        s[r][i] = is_first ? hn::Zero(d) : hn::LoadU(d, sums + (r * kGroup + i) * 16 + v * kLanes);
      }
    }
    const float* w0 = w[0] + v * kLanes;
    const float* w1 = w[1] + v * kLanes;
    const float* w2 = w[2] + v * kLanes;
    const float* w3 = w[3] + v * kLanes;
    const float* xv = x + v * kLanes;
    for (int64_t k = 0; k < n; k += 16) {
      V xs[kRows];
      for (int r = 0; r < kRows; ++r) {
        xs[r] = hn::LoadU(d, xv + r * x_stride + k);
      }
      const V a0 = hn::LoadU(d, w0 + k);
      for (int r = 0; r < kRows; ++r) {
        s[r][0] = hn::MulAdd(a0, xs[r], s[r][0]);
      }
      const V a1 = hn::LoadU(d, w1 + k);
      for (int r = 0; r < kRows; ++r) {
        s[r][1] = hn::MulAdd(a1, xs[r], s[r][1]);
      }
      const V a2 = hn::LoadU(d, w2 + k);
      for (int r = 0; r < kRows; ++r) {
        s[r][2] = hn::MulAdd(a2, xs[r], s[r][2]);
      }
      const V a3 = hn::LoadU(d, w3 + k);
      for (int r = 0; r < kRows; ++r) {
        s[r][3] = hn::MulAdd(a3, xs[r], s[r][3]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < kGroup; ++i) {
        hn::StoreU(s[r][i], d, sums + (r * kGroup + i) * 16 + v * kLanes);
      }
    }
  }
}

// x rows [r, r + kRows) with all weights.
template <int kRows>
void tile_rows(const float* weights, int64_t n_weights, const float* x, int64_t r, int64_t k,
               const DotOutput& output) {
  constexpr int64_t kTileSums = kRows * kGroup * 16;
  alignas(64) float sums[kMaxGemmOutputs / kGroup * kTileSums];
  for (int64_t begin = 0; begin < k; begin += kSegment) {
    const int64_t n = k - begin < kSegment ? k - begin : kSegment;
    float* tile_sums = sums;
    for (int64_t o = 0; o < n_weights; o += kGroup, tile_sums += kTileSums) {
      const float* w[kGroup];
      for (int64_t i = 0; i < kGroup; ++i) {
        w[i] = weights + (o + i < n_weights ? o + i : n_weights - 1) * k + begin;
      }
      tile<kRows>(w, x + r * k + begin, k, n, begin == 0, tile_sums);
    }
  }
  const float* tile_sums = sums;
  for (int64_t o = 0; o < n_weights; o += kGroup) {
    const int64_t n = n_weights - o < kGroup ? n_weights - o : kGroup;
    for (int i = 0; i < kRows; ++i, tile_sums += kGroup * 16) {
      put_dots(reduce4(load16(tile_sums), load16(tile_sums + 16), load16(tile_sums + 32),
                       load16(tile_sums + 48)),
               output, r + i, o, n);
    }
  }
}

void gemm(const float* weights, int64_t n_weights, const float* x, int64_t rows, int64_t k,
          const DotOutput& output) {
  int64_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    tile_rows<kTileRows>(weights, n_weights, x, r, k, output);
  }
  switch (rows - r) {
    case 3:
      return tile_rows<3>(weights, n_weights, x, r, k, output);
    case 2:
      return tile_rows<2>(weights, n_weights, x, r, k, output);
    case 1:
      return tile_rows<1>(weights, n_weights, x, r, k, output);
    default:
      return;
  }
}

// In the order of WeightKind.
constexpr LinearKernels kLinearKernels = {
    {gemv<F32Weights>, gemv<F16Weights>, gemv<BF16Weights>, gemv<Q4_0Weights>, gemv<Q4_1Weights>,
     gemv<Q5_0Weights>, gemv<Q5_1Weights>, gemv<Q8_0Weights>, gemv<Q4_KWeights>, gemv<Q5_KWeights>,
     gemv<Q6_KWeights>},
    {decode<F32Weights>, decode<F16Weights>, decode<BF16Weights>, decode<Q4_0Weights>,
     decode<Q4_1Weights>, decode<Q5_0Weights>, decode<Q5_1Weights>, decode<Q8_0Weights>,
     decode<Q4_KWeights>, decode<Q5_KWeights>, decode<Q6_KWeights>},
    gemm};

const LinearKernels* linear_kernels() {
  return &kLinearKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#if HWY_ONCE
#include "backend/cpu/targets-inl.h"

namespace logitlab {

const LinearKernels* linear_kernels_of(int64_t target) {
  LOGITLAB_KERNELS_OF(target, LinearKernels, linear_kernels);
}

}  // namespace logitlab
#endif  // HWY_ONCE
