// Functions of lanes that several kernels share, and vectors of fewer than sixteen floats.
//
// Per-ISA code: included once for each target of foreach_target.h.
#if defined(LOGITLAB_BACKEND_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOGITLAB_BACKEND_CPU_MATH_INL_H_
#undef LOGITLAB_BACKEND_CPU_MATH_INL_H_
#else
#define LOGITLAB_BACKEND_CPU_MATH_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "backend/cpu/lanes-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace logitlab {
namespace HWY_NAMESPACE {

// e^x: x = n ln 2 + r with |r| <= 0.35, the Taylor polynomial of degree 7 for e^r (what it leaves
// out is below 0.35^8 / 8! = 6e-9), times 2^n. ln 2 in two parts, the first of which has so few
// bits that n times it is exact. Below the smallest normal number the result is 0; above 2^127.5 it
// stays at its largest value. NaN stays NaN.
HWY_INLINE V exp_lanes(V x) {
  const D d;
  const V lowest = hn::Set(d, -87.3F);
  const V clamped = hn::Min(hn::Max(x, lowest), hn::Set(d, 88.37F));
  const V n = hn::Round(hn::Mul(clamped, hn::Set(d, 1.44269504F)));
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375F), clamped);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4F), r);
  V p = hn::Set(d, 1.0F / 5040);
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 720));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 120));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 24));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F / 6));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  const auto exponent = hn::Add(hn::ConvertTo(DI32(), n), hn::Set(DI32(), 127));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(exponent));
  const V result = hn::IfThenZeroElse(hn::Lt(x, lowest), hn::Mul(p, power));
  return hn::IfThenElse(hn::IsNaN(x), x, result);
}

HWY_INLINE V16 exp16(const V16& x) {
  V16 r;
  for (int i = 0; i < kVecs; ++i) {
    r.v[i] = exp_lanes(x.v[i]);
  }
  return r;
}

// Full sixteens with load16, the rest padded with zeros.
HWY_INLINE V16 load_up_to_16(const float* p, int64_t n) {
  return n >= 16 ? load16(p) : load16_first(p, n);
}

HWY_INLINE void store_up_to_16(const V16& a, float* p, int64_t n) {
  if (n >= 16) {
    store16(a, p);
  } else {
    store16_first(a, p, n);
  }
}

// x * sigmoid(x).
HWY_INLINE V silu_lanes(V x) {
  const V one = hn::Set(D(), 1.0F);
  return hn::Mul(x, hn::Div(one, hn::Add(one, exp_lanes(hn::Neg(x)))));
}

// ln(1 + e^x) = max(x, 0) + ln(1 + e), e = e^-|x| <= 1; and ln(1 + e) = 2 artanh(s), s = e / (2 +
// e)
// <= 1/3, as a series in s^2 (what it leaves out is below 9^-8 / 17 = 1.4e-9 of it), which keeps
// its digits where e is small. Past 17 the sum is x. NaN stays NaN.
HWY_INLINE V softplus_lanes(V x) {
  const D d;
  const V e = exp_lanes(hn::Neg(hn::Abs(x)));
  const V s = hn::Div(e, hn::Add(e, hn::Set(d, 2.0F)));
  const V square = hn::Mul(s, s);
  V p = hn::Set(d, 1.0F / 15);
  p = hn::MulAdd(p, square, hn::Set(d, 1.0F / 13));
  p = hn::MulAdd(p, square, hn::Set(d, 1.0F / 11));
  p = hn::MulAdd(p, square, hn::Set(d, 1.0F / 9));
  p = hn::MulAdd(p, square, hn::Set(d, 1.0F / 7));
  p = hn::MulAdd(p, square, hn::Set(d, 1.0F / 5));
  p = hn::MulAdd(p, square, hn::Set(d, 1.0F / 3));
  p = hn::MulAdd(p, square, hn::Set(d, 1.0F));
  return hn::Add(hn::Max(x, hn::Zero(d)), hn::Mul(hn::Add(s, s), p));
}

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target guard
