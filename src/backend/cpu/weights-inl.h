// Decoding of weights in registers, 32 elements at a time, to exactly the floats that row_to_float
// gives: products and sums are rounded one by one, never fused.
//
// Each kind has the kElements and kBytes of a block. Kinds of 32 elements: load32(block, lo, hi).
// Super-blocks of 256: unpack(block, scales) once, then load32<s>(block, scales, lo, hi) decodes
// the elements [32 s, 32 s + 32).
//
// Per-ISA code: included once for each target of foreach_target.h.
#if defined(LOGITLAB_BACKEND_CPU_WEIGHTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOGITLAB_BACKEND_CPU_WEIGHTS_INL_H_
#undef LOGITLAB_BACKEND_CPU_WEIGHTS_INL_H_
#else
#define LOGITLAB_BACKEND_CPU_WEIGHTS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "backend/cpu/lanes-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace logitlab {
namespace HWY_NAMESPACE {

HWY_INLINE uint32_t load_u16(const uint8_t* p) {
  uint16_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return bits;
}

HWY_INLINE uint32_t load_u32(const uint8_t* p) {
  uint32_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return bits;
}

// Four half floats without vector instructions for them: normal numbers and infinities move their
// exponent up by 112 (infinities by 224); subnormals are counted in steps of 2^-24, exactly.
HWY_INLINE V half_bits_to_float(hn::Vec<DU32> bits) {
  const DU32 du;
  const D d;
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000U)));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFU));
  const auto is_special = hn::RebindMask(d, hn::Gt(magnitude, hn::Set(du, 0x7BFFU)));
  const auto is_small = hn::RebindMask(d, hn::Lt(magnitude, hn::Set(du, 0x0400U)));
  const auto shifted = hn::ShiftLeft<13>(magnitude);
  const V normal = hn::BitCast(d, hn::Add(shifted, hn::Set(du, 112U << 23)));
  const V special = hn::BitCast(d, hn::Add(shifted, hn::Set(du, 224U << 23)));
  const V small = hn::Mul(hn::ConvertTo(d, hn::BitCast(DI32(), magnitude)), hn::Set(d, 0x1p-24F));
  const V result = hn::IfThenElse(is_special, special, hn::IfThenElse(is_small, small, normal));
  return hn::Or(result, hn::BitCast(d, sign));
}

HWY_INLINE V half_to_float(hn::Vec<DU16> bits) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
  return hn::PromoteTo(D(), hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
#else
  return half_bits_to_float(hn::PromoteTo(DU32(), bits));
#endif
}

HWY_INLINE V broadcast_half(const uint8_t* p) {
  return half_to_float(hn::Set(DU16(), static_cast<uint16_t>(load_u16(p))));
}

HWY_INLINE float half_at(const uint8_t* p) {
  return hn::GetLane(broadcast_half(p));
}

HWY_INLINE V lane_numbers() {
  return hn::Iota(D(), 0.0F);
}

HWY_INLINE V to_float(hn::Vec<DI32> q) {
  return hn::ConvertTo(D(), q);
}

// Bytes [0, 16) at p as 16 unsigned integers, part i of the V16.
HWY_INLINE hn::Vec<DI32> bytes_at(const uint8_t* p, int i) {
  return hn::PromoteTo(DI32(), hn::LoadU(DU8(), p + i * kLanes));
}

// value(q) for q in 0..15, low nibbles to `lo` and high ones to `hi`. With vectors of 16 lanes all
// values stand in one register and a nibble is an index into it.
template <class Value>
HWY_INLINE void nibbles16(const uint8_t* p, const Value& value, V16& lo, V16& hi) {
  const DI32 di;
  const auto mask = hn::Set(di, 15);
#if HWY_TARGET == HWY_AVX3
  const V table = value(lane_numbers());
  const auto bytes = bytes_at(p, 0);
  lo.v[0] = hn::TableLookupLanes(table, hn::IndicesFromVec(D(), hn::And(bytes, mask)));
  hi.v[0] = hn::TableLookupLanes(table, hn::IndicesFromVec(D(), hn::ShiftRight<4>(bytes)));
#else
  for (int i = 0; i < kVecs; ++i) {
    const auto bytes = bytes_at(p, i);
    lo.v[i] = value(to_float(hn::And(bytes, mask)));
    hi.v[i] = value(to_float(hn::ShiftRight<4>(bytes)));
  }
#endif
}

// scale * (q + offset)
struct Scaled {
  V scale;
  V offset;
  HWY_INLINE V operator()(V q) const { return hn::Mul(scale, hn::Add(q, offset)); }
};

// scale * q + min
struct ScaledPlus {
  V scale;
  V min;
  HWY_INLINE V operator()(V q) const { return hn::Add(hn::Mul(scale, q), min); }
};

// scale * q - min
struct ScaledMinus {
  V scale;
  V min;
  HWY_INLINE V operator()(V q) const { return hn::Sub(hn::Mul(scale, q), min); }
};

struct F32Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 128;
  static HWY_INLINE V at(const uint8_t* p) {
    return hn::BitCast(D(), hn::LoadU(hn::Repartition<uint8_t, D>(), p));
  }
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = at(p + 4 * kLanes * i);
      hi.v[i] = at(p + 64 + 4 * kLanes * i);
    }
  }
};

HWY_INLINE hn::Vec<DU16> load_halves(const uint8_t* p) {
  return hn::BitCast(DU16(), hn::LoadU(hn::Repartition<uint8_t, DU16>(), p));
}

struct F16Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 64;
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = half_to_float(load_halves(p + 2 * kLanes * i));
      hi.v[i] = half_to_float(load_halves(p + 32 + 2 * kLanes * i));
    }
  }
};

struct BF16Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 64;
  static HWY_INLINE V at(const uint8_t* p) {
    return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(DU32(), load_halves(p))));
  }
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = at(p + 2 * kLanes * i);
      hi.v[i] = at(p + 32 + 2 * kLanes * i);
    }
  }
};

struct Q8_0Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 34;
  static HWY_INLINE V at(V scale, const uint8_t* p) {
    const auto bytes = hn::BitCast(DI8(), hn::LoadU(DU8(), p));
    return hn::Mul(scale, to_float(hn::PromoteTo(DI32(), bytes)));
  }
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    const V scale = broadcast_half(p);
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = at(scale, p + 2 + kLanes * i);
      hi.v[i] = at(scale, p + 18 + kLanes * i);
    }
  }
};

struct Q4_0Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 18;
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    nibbles16(p + 2, Scaled{broadcast_half(p), hn::Set(D(), -8.0F)}, lo, hi);
  }
};

struct Q4_1Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 20;
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    nibbles16(p + 4, ScaledPlus{broadcast_half(p), broadcast_half(p + 2)}, lo, hi);
  }
};

// Nibbles at p with a fifth bit: bit e of `high` belongs to element e.
template <class Value>
HWY_INLINE void nibbles16_with_bits(const uint8_t* p, uint32_t high, const Value& value, V16& lo,
                                    V16& hi) {
  const DI32 di;
  const auto mask = hn::Set(di, 15);
  const auto sixteen = hn::Set(di, 16);
  const auto low_bits = hn::Set(di, static_cast<int32_t>(high & 0xFFFFU));
  const auto high_bits = hn::Set(di, static_cast<int32_t>(high >> 16));
  for (int i = 0; i < kVecs; ++i) {
    alignas(64) static constexpr int32_t kBits[16] = {
        1 << 0, 1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
        1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
    const auto bit = hn::Load(di, kBits + kLanes * i);
    const auto bytes = bytes_at(p, i);
    const auto fifth_lo = hn::IfThenElseZero(hn::TestBit(low_bits, bit), sixteen);
    const auto fifth_hi = hn::IfThenElseZero(hn::TestBit(high_bits, bit), sixteen);
    lo.v[i] = value(to_float(hn::Or(hn::And(bytes, mask), fifth_lo)));
    hi.v[i] = value(to_float(hn::Or(hn::ShiftRight<4>(bytes), fifth_hi)));
  }
}

struct Q5_0Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 22;
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    nibbles16_with_bits(p + 6, load_u32(p + 2), Scaled{broadcast_half(p), hn::Set(D(), -16.0F)}, lo,
                        hi);
  }
};

struct Q5_1Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 24;
  static HWY_INLINE void load32(const uint8_t* p, V16& lo, V16& hi) {
    nibbles16_with_bits(p + 8, load_u32(p + 4),
                        ScaledPlus{broadcast_half(p), broadcast_half(p + 2)}, lo, hi);
  }
};

// What a super-block's 32-element parts are scaled with, unpacked once.
struct SuperScales {
  alignas(64) float scale[16];
  alignas(64) float min[8];
};

using D8 = hn::CappedTag<float, 8>;

// out[i] = factor * byte i of `bytes`. From registers: a vector cannot be loaded soon after it was
// stored in pieces.
HWY_INLINE void scale_bytes(uint64_t bytes, hn::Vec<D8> factor, float* out) {
  const D8 d8;
  const hn::Rebind<int32_t, D8> di;
  const hn::Rebind<uint8_t, D8> du;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  const auto all = hn::BitCast(du, hn::Set(hn::CappedTag<uint64_t, 1>(), bytes));
  hn::Store(hn::Mul(factor, hn::ConvertTo(d8, hn::PromoteTo(di, all))), d8, out);
#else
  for (int i = 0; i < 2; ++i) {
    const auto word = static_cast<uint32_t>(bytes >> (32 * i));
    const auto four = hn::BitCast(du, hn::Set(hn::CappedTag<uint32_t, 1>(), word));
    hn::Store(hn::Mul(factor, hn::ConvertTo(d8, hn::PromoteTo(di, four))), d8, out + 4 * i);
  }
#endif
}

// Q4_K and Q5_K: eight six-bit scales and minimums, packed in the 12 bytes at p + 4. The lower six
// bits of the first eight bytes are those of the parts 0 to 3; the others have their lower four
// bits in the last four bytes and their upper two on top of the first eight.
HWY_INLINE void unpack_scales(const uint8_t* p, SuperScales& scales) {
  const D8 d8;
  const uint64_t a = load_u32(p + 4);
  const uint64_t b = load_u32(p + 8);
  const uint64_t c = load_u32(p + 12);
  const uint64_t high_scales = (c & 0x0F0F0F0FU) | ((a >> 2) & 0x30303030U);
  const uint64_t high_mins = ((c >> 4) & 0x0F0F0F0FU) | ((b >> 2) & 0x30303030U);
  scale_bytes((a & 0x3F3F3F3FU) | high_scales << 32, hn::Set(d8, half_at(p)), scales.scale);
  scale_bytes((b & 0x3F3F3F3FU) | high_mins << 32, hn::Set(d8, half_at(p + 2)), scales.min);
}

// The low (kPart even) or high nibble of 16 bytes.
template <int kPart>
HWY_INLINE hn::Vec<DI32> nibble_of(hn::Vec<DI32> bytes) {
  if constexpr (kPart % 2 == 0) {
    return hn::And(bytes, hn::Set(DI32(), 15));
  } else {
    return hn::ShiftRight<4>(bytes);
  }
}

template <int kPart>
HWY_INLINE ScaledMinus value_of(const SuperScales& scales) {
  return ScaledMinus{hn::Set(D(), scales.scale[kPart]), hn::Set(D(), scales.min[kPart])};
}

struct Q4_KWeights {
  static constexpr int64_t kElements = 256;
  static constexpr size_t kBytes = 144;
  static HWY_INLINE void unpack(const uint8_t* p, SuperScales& scales) { unpack_scales(p, scales); }
  template <int kPart>
  static HWY_INLINE void load32(const uint8_t* p, const SuperScales& scales, V16& lo, V16& hi) {
    const ScaledMinus value = value_of<kPart>(scales);
    const uint8_t* qs = p + 16 + 32 * (kPart / 2);
#if HWY_TARGET == HWY_AVX3
    const V table = value(lane_numbers());
    lo.v[0] =
        hn::TableLookupLanes(table, hn::IndicesFromVec(D(), nibble_of<kPart>(bytes_at(qs, 0))));
    hi.v[0] = hn::TableLookupLanes(table,
                                   hn::IndicesFromVec(D(), nibble_of<kPart>(bytes_at(qs + 16, 0))));
#else
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = value(to_float(nibble_of<kPart>(bytes_at(qs, i))));
      hi.v[i] = value(to_float(nibble_of<kPart>(bytes_at(qs + 16, i))));
    }
#endif
  }
};

struct Q5_KWeights {
  static constexpr int64_t kElements = 256;
  static constexpr size_t kBytes = 176;
  static HWY_INLINE void unpack(const uint8_t* p, SuperScales& scales) { unpack_scales(p, scales); }
  template <int kPart>
  static HWY_INLINE V at(const ScaledMinus& value, const uint8_t* qs, const uint8_t* qh, int i) {
    const DI32 di;
    const auto has_bit = hn::TestBit(bytes_at(qh, i), hn::Set(di, 1 << kPart));
    const auto fifth = hn::IfThenElseZero(has_bit, hn::Set(di, 16));
    return value(to_float(hn::Or(nibble_of<kPart>(bytes_at(qs, i)), fifth)));
  }
  template <int kPart>
  static HWY_INLINE void load32(const uint8_t* p, const SuperScales& scales, V16& lo, V16& hi) {
    const ScaledMinus value = value_of<kPart>(scales);
    const uint8_t* qs = p + 48 + 32 * (kPart / 2);
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = at<kPart>(value, qs, p + 16, i);
      hi.v[i] = at<kPart>(value, qs + 16, p + 32, i);
    }
  }
};

struct Q6_KWeights {
  static constexpr int64_t kElements = 256;
  static constexpr size_t kBytes = 210;
  // Sixteen signed scales.
  static HWY_INLINE void unpack(const uint8_t* p, SuperScales& scales) {
    const V d = broadcast_half(p + 208);
    for (int i = 0; i < kVecs; ++i) {
      const auto bytes = hn::BitCast(DI8(), hn::LoadU(DU8(), p + 192 + kLanes * i));
      hn::Store(hn::Mul(d, to_float(hn::PromoteTo(DI32(), bytes))), D(), scales.scale + kLanes * i);
    }
  }
  template <int kPart>
  static HWY_INLINE V at(const Scaled& value, const uint8_t* ql, const uint8_t* qh, int i) {
    const auto low = nibble_of<kPart % 4 / 2>(bytes_at(ql, i));
    const auto high = hn::And(hn::ShiftRight<kPart % 4 * 2>(bytes_at(qh, i)), hn::Set(DI32(), 3));
    return value(to_float(hn::Or(low, hn::ShiftLeft<4>(high))));
  }
  template <int kPart>
  static HWY_INLINE void load32(const uint8_t* p, const SuperScales& scales, V16& lo, V16& hi) {
    constexpr int kHalf = kPart / 4;  // of 128 elements
    const uint8_t* ql = p + 64 * kHalf + 32 * (kPart & 1);
    const uint8_t* qh = p + 128 + 32 * kHalf;
    const V offset = hn::Set(D(), -32.0F);
    const Scaled value_lo{hn::Set(D(), scales.scale[2 * kPart]), offset};
    const Scaled value_hi{hn::Set(D(), scales.scale[2 * kPart + 1]), offset};
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = at<kPart>(value_lo, ql, qh, i);
      hi.v[i] = at<kPart>(value_hi, ql + 16, qh + 16, i);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target guard
