// Sixteen float lanes, whatever the width of the machine's vectors: lane l of a sum takes the
// elements whose index is l modulo 16, in ascending order, and the lanes meet in one fixed tree. So
// a sum has the same bits on every instruction set that has FMA.
//
// Per-ISA code: included once for each target of foreach_target.h.
#if defined(LOGITLAB_BACKEND_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOGITLAB_BACKEND_CPU_LANES_INL_H_
#undef LOGITLAB_BACKEND_CPU_LANES_INL_H_
#else
#define LOGITLAB_BACKEND_CPU_LANES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

// Highway's last resort has vectors of one lane, too short for these kernels.
#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace logitlab {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using DU32 = hn::Rebind<uint32_t, D>;
using DI32 = hn::Rebind<int32_t, D>;
using DU16 = hn::Rebind<uint16_t, D>;
using DU8 = hn::Rebind<uint8_t, D>;
using DI8 = hn::Rebind<int8_t, D>;
using V = hn::Vec<D>;
using D4 = hn::CappedTag<float, 4>;
using V4 = hn::Vec<D4>;

constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
constexpr int kVecs = 16 / kLanes;
static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16, "fold_to_4 knows these");
// SSE and AVX2 have 16 vector registers, AVX-512 and NEON have 32.
constexpr bool kManyRegisters = (HWY_TARGET & (HWY_AVX3 | HWY_NEON)) != 0;

struct V16 {
  V v[kVecs];
};

HWY_INLINE V16 zero16() {
  V16 r;
  for (int i = 0; i < kVecs; ++i) {
    r.v[i] = hn::Zero(D());
  }
  return r;
}

HWY_INLINE V16 load16(const float* p) {
  V16 r;
  for (int i = 0; i < kVecs; ++i) {
    r.v[i] = hn::LoadU(D(), p + i * kLanes);
  }
  return r;
}

HWY_INLINE void store16(const V16& a, float* p) {
  for (int i = 0; i < kVecs; ++i) {
    hn::StoreU(a.v[i], D(), p + i * kLanes);
  }
}

// The first n < 16 elements, then zeros; reads nothing past them.
HWY_INLINE V16 load16_first(const float* p, int64_t n) {
  alignas(64) float buffer[16] = {};
  for (int64_t i = 0; i < n; ++i) {
    buffer[i] = p[i];
  }
  return load16(buffer);
}

HWY_INLINE void store16_first(const V16& a, float* p, int64_t n) {
  alignas(64) float buffer[16];
  store16(a, buffer);
  for (int64_t i = 0; i < n; ++i) {
    p[i] = buffer[i];
  }
}

HWY_INLINE void mul_add16(const V16& a, const V16& b, V16& sum) {
  for (int i = 0; i < kVecs; ++i) {
    sum.v[i] = hn::MulAdd(a.v[i], b.v[i], sum.v[i]);
  }
}

// Lanes l, l + 4, l + 8, l + 12 into lane l: first l and l + 8, then l and l + 4.
HWY_INLINE V4 fold_to_4(const V16& a) {
#if HWY_TARGET == HWY_AVX3
  const hn::Half<D> d8;
  const auto t8 = hn::Add(hn::LowerHalf(d8, a.v[0]), hn::UpperHalf(d8, a.v[0]));
  return hn::Add(hn::LowerHalf(D4(), t8), hn::UpperHalf(D4(), t8));
#elif HWY_TARGET == HWY_AVX2
  const auto t8 = hn::Add(a.v[0], a.v[1]);
  return hn::Add(hn::LowerHalf(D4(), t8), hn::UpperHalf(D4(), t8));
#else
  return hn::Add(hn::Add(a.v[0], a.v[2]), hn::Add(a.v[1], a.v[3]));
#endif
}

// Four sums at once: fold_to_4, then lanes 0 + 2 and 1 + 3, then those two.
HWY_INLINE V4 reduce4(const V16& a, const V16& b, const V16& c, const V16& d) {
  const D4 d4;
  const V4 a4 = fold_to_4(a);
  const V4 b4 = fold_to_4(b);
  const V4 c4 = fold_to_4(c);
  const V4 e4 = fold_to_4(d);
  const V4 ab = hn::Add(hn::InterleaveLower(d4, a4, b4), hn::InterleaveUpper(d4, a4, b4));
  const V4 cd = hn::Add(hn::InterleaveLower(d4, c4, e4), hn::InterleaveUpper(d4, c4, e4));
  return hn::Add(hn::ConcatLowerLower(d4, cd, ab), hn::ConcatUpperUpper(d4, cd, ab));
}

HWY_INLINE float reduce1(const V16& a) {
  return hn::GetLane(reduce4(a, a, a, a));
}

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target guard
