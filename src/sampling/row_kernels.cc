// Included once for each target by foreach_target.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "sampling/row_kernels.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "hwy/highway.h"

#include "sampling/row_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace logitlab {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

constexpr size_t kLanes = hn::MaxLanes(D());
constexpr size_t kVecs = 16 / kLanes;

// Lane l of a block's sum takes the terms whose index is l modulo 16.
struct Sixteen {
  V v[kVecs];
};

HWY_INLINE Sixteen sixteen(float value) {
  Sixteen r;
  for (size_t i = 0; i < kVecs; ++i) {
    r.v[i] = hn::Set(D(), value);
  }
  return r;
}

HWY_INLINE void store(const Sixteen& lanes, float* values) {
  for (size_t i = 0; i < kVecs; ++i) {
    hn::StoreU(lanes.v[i], D(), values + i * kLanes);
  }
}

HWY_INLINE float largest_of(const float* values, size_t n) {
  float largest = values[0];
  for (size_t i = 1; i < n; ++i) {
    largest = values[i] > largest ? values[i] : largest;
  }
  return largest;
}

// exp(difference + rest) for difference in [-87, 0] and a tiny rest; 0 below. Cody-Waite reduction
// by multiples of log 2, then the series of exp to degree 7 in r, |r| <= 0.347, whose first omitted
// term is r^8 / 40320 < 6e-9.
HWY_INLINE V exponential(V difference, V rest) {
  const D d;
  const hn::Rebind<int32_t, D> di;
  const V lowest = hn::Set(d, -87.0F);
  const V rounder = hn::Set(d, 12582912.0F);  // 1.5 * 2^23: adding it rounds to a whole number
  const auto is_inside = hn::Gt(difference, lowest);
  const V x = hn::IfThenElse(is_inside, difference, lowest);
  const V shifted = hn::Add(hn::Mul(x, hn::Set(d, 1.44269504088896341F)), rounder);
  const V n = hn::Sub(shifted, rounder);
  // log 2 in two parts, the first with so few bits that n times it is exact.
  const V high = hn::Sub(x, hn::Mul(n, hn::Set(d, 0.693359375F)));
  const V low = hn::Sub(high, hn::Mul(n, hn::Set(d, -2.12194440e-4F)));
  const V r = hn::Add(low, hn::IfThenElseZero(is_inside, rest));
  V p = hn::Set(d, 1.0F / 5040);
  p = hn::Add(hn::Mul(p, r), hn::Set(d, 1.0F / 720));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, 1.0F / 120));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, 1.0F / 24));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, 1.0F / 6));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, 0.5F));
  p = hn::Add(hn::Mul(p, hn::Mul(r, r)), r);
  const auto exponent =
      hn::Add(hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, rounder)), hn::Set(di, 127));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(exponent));
  return hn::IfThenElseZero(is_inside, hn::Add(hn::Mul(p, power), power));
}

// The sum of a block: float32 lanes with five additions between a term and the total, so a relative
// error below 5 * 2^-24; blocks are added in double.
HWY_INLINE double total(const Sixteen& lanes) {
  float t[16];
  store(lanes, t);
  float four[4];
  for (size_t i = 0; i < 4; ++i) {
    four[i] = (t[i] + t[4 + i]) + (t[8 + i] + t[12 + i]);
  }
  return (static_cast<double>(four[0]) + static_cast<double>(four[1])) +
         (static_cast<double>(four[2]) + static_cast<double>(four[3]));
}

void find_maxima_pass(const float* scores, size_t n_blocks, float* block_maxima, RowMaxima* found) {
  const D d;
  const V minus_inf = hn::Neg(hn::Inf(d));
  size_t n_dead = 0;
  auto is_nan = hn::IsNaN(minus_inf);
  for (size_t b = 0; b < n_blocks; ++b, scores += kRowBlock) {
    Sixteen maxima = sixteen(hn::GetLane(minus_inf));
    for (size_t i = 0; i < kRowBlock; i += 16) {
      for (size_t j = 0; j < kVecs; ++j) {
        const V lanes = hn::LoadU(d, scores + i + j * kLanes);
        maxima.v[j] = hn::IfThenElse(hn::Gt(lanes, maxima.v[j]), lanes, maxima.v[j]);
        is_nan = hn::Or(is_nan, hn::IsNaN(lanes));
        n_dead += hn::CountTrue(d, hn::Eq(lanes, minus_inf));
      }
    }
    float lanes[16];
    store(maxima, lanes);
    block_maxima[b] = largest_of(lanes, 16);
  }
  found->n_alive += static_cast<int64_t>(n_blocks * kRowBlock - n_dead);
  found->has_nan = found->has_nan || !hn::AllFalse(d, is_nan);
}

void sum_exponentials_pass(const float* scores, size_t n_blocks, float largest_score,
                           float* exponentials, double* block_sums, RowSums* sums) {
  const D d;
  const V largest = hn::Set(d, largest_score);
  const V zero = hn::Zero(d);
  for (size_t b = 0; b < n_blocks; ++b, scores += kRowBlock, exponentials += kRowBlock) {
    Sixteen sum = sixteen(0);
    Sixteen weighted = sixteen(0);
    size_t n_largest = 0;
    for (size_t i = 0; i < kRowBlock; i += 16) {
      for (size_t j = 0; j < kVecs; ++j) {
        const V lanes = hn::LoadU(d, scores + i + j * kLanes);
        const V difference = hn::Sub(lanes, largest);
        // What the subtraction rounded away; without it a far token's probability would be off by
        // its distance times 2^-24.
        const V back = hn::Sub(difference, lanes);
        const V rest = hn::Sub(hn::Sub(lanes, hn::Sub(difference, back)), hn::Add(largest, back));
        const V term = exponential(difference, rest);
        hn::StoreU(term, d, exponentials + i + j * kLanes);
        // The largest scores are counted, not added: beside a sure token's 1 a float32 sum would
        // lose all others.
        const auto is_largest = hn::Eq(difference, zero);
        n_largest += hn::CountTrue(d, is_largest);
        sum.v[j] = hn::Add(sum.v[j], hn::IfThenZeroElse(is_largest, term));
        weighted.v[j] = hn::Add(weighted.v[j],
                                hn::IfThenElseZero(hn::Gt(term, zero), hn::Mul(term, difference)));
      }
    }
    block_sums[b] = total(sum) + static_cast<double>(n_largest);
    sums->sum += block_sums[b];
    sums->weighted += total(weighted);
  }
}

int64_t count_equal_pass(const float* scores, size_t n, float score) {
  const D d;
  const V wanted = hn::Set(d, score);
  size_t count = 0;
  size_t i = 0;
  for (; i + kRowBlock <= n; i += kRowBlock) {
    for (size_t j = 0; j < kRowBlock; j += kLanes) {
      count += hn::CountTrue(d, hn::Eq(hn::LoadU(d, scores + i + j), wanted));
    }
  }
  for (; i < n; ++i) {
    count += scores[i] == score ? 1 : 0;
  }
  return static_cast<int64_t>(count);
}

int64_t count_at_most_pass(const float* scores, size_t n, float score) {
  const D d;
  const V most = hn::Set(d, score);
  size_t count = 0;
  size_t i = 0;
  for (; i + kRowBlock <= n; i += kRowBlock) {
    for (size_t j = 0; j < kRowBlock; j += kLanes) {
      count += hn::CountTrue(d, hn::Le(hn::LoadU(d, scores + i + j), most));
    }
  }
  for (; i < n; ++i) {
    count += scores[i] <= score ? 1 : 0;
  }
  return static_cast<int64_t>(count);
}

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace logitlab {

HWY_EXPORT(find_maxima_pass);
HWY_EXPORT(sum_exponentials_pass);
HWY_EXPORT(count_equal_pass);
HWY_EXPORT(count_at_most_pass);

void find_maxima(const float* scores, size_t n_blocks, float* block_maxima, RowMaxima* found) {
  HWY_DYNAMIC_DISPATCH(find_maxima_pass)(scores, n_blocks, block_maxima, found);
}

void sum_exponentials(const float* scores, size_t n_blocks, float largest, float* exponentials,
                      double* block_sums, RowSums* sums) {
  HWY_DYNAMIC_DISPATCH(sum_exponentials_pass)
  (scores, n_blocks, largest, exponentials, block_sums, sums);
}

int64_t count_equal(std::span<const float> row, float score) {
  return HWY_DYNAMIC_DISPATCH(count_equal_pass)(row.data(), row.size(), score);
}

int64_t count_at_most(std::span<const float> row, float score) {
  return HWY_DYNAMIC_DISPATCH(count_at_most_pass)(row.data(), row.size(), score);
}

}  // namespace logitlab
#endif  // HWY_ONCE
