// Decoding of weights in registers, 32 elements at a time, to exactly the floats that row_to_float
// gives: products and sums are rounded one by one, never fused.
//
// Each kind: kElements and kBytes of a block, and load32(block, s, lo, hi), which decodes the
// elements [32 s, 32 s + 32) of a block.
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
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
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
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
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
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
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
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
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
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
    nibbles16(p + 2, Scaled{broadcast_half(p), hn::Set(D(), -8.0F)}, lo, hi);
  }
};

struct Q4_1Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 20;
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
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
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
    nibbles16_with_bits(p + 6, load_u32(p + 2), Scaled{broadcast_half(p), hn::Set(D(), -16.0F)}, lo,
                        hi);
  }
};

struct Q5_1Weights {
  static constexpr int64_t kElements = 32;
  static constexpr size_t kBytes = 24;
  static HWY_INLINE void load32(const uint8_t* p, int /*s*/, V16& lo, V16& hi) {
    nibbles16_with_bits(p + 8, load_u32(p + 4),
                        ScaledPlus{broadcast_half(p), broadcast_half(p + 2)}, lo, hi);
  }
};

// scale and min of sub-block s of a Q4_K or Q5_K block, whose packed six-bit pairs are at p + 4.
HWY_INLINE ScaledMinus super_scale(const uint8_t* p, int s) {
  const uint8_t* packed = p + 4;
  int scale;
  int min;
  if (s < 4) {
    scale = packed[s] & 63;
    min = packed[s + 4] & 63;
  } else {
    scale = (packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4;
    min = (packed[s + 4] >> 4) | (packed[s] >> 6) << 4;
  }
  return ScaledMinus{hn::Mul(broadcast_half(p), hn::Set(D(), static_cast<float>(scale))),
                     hn::Mul(broadcast_half(p + 2), hn::Set(D(), static_cast<float>(min)))};
}

// The low (s even) or high nibble of 16 bytes.
HWY_INLINE hn::Vec<DI32> nibble_of(hn::Vec<DI32> bytes, int s) {
  return (s & 1) == 0 ? hn::And(bytes, hn::Set(DI32(), 15)) : hn::ShiftRight<4>(bytes);
}

struct Q4_KWeights {
  static constexpr int64_t kElements = 256;
  static constexpr size_t kBytes = 144;
  static HWY_INLINE void load32(const uint8_t* p, int s, V16& lo, V16& hi) {
    const ScaledMinus value = super_scale(p, s);
    const uint8_t* qs = p + 16 + 32 * (s / 2);
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = value(to_float(nibble_of(bytes_at(qs, i), s)));
      hi.v[i] = value(to_float(nibble_of(bytes_at(qs + 16, i), s)));
    }
  }
};

struct Q5_KWeights {
  static constexpr int64_t kElements = 256;
  static constexpr size_t kBytes = 176;
  static HWY_INLINE V at(const ScaledMinus& value, const uint8_t* qs, const uint8_t* qh, int s,
                         int i) {
    const DI32 di;
    const auto has_bit = hn::TestBit(bytes_at(qh, i), hn::Set(di, 1 << s));
    const auto fifth = hn::IfThenElseZero(has_bit, hn::Set(di, 16));
    return value(to_float(hn::Or(nibble_of(bytes_at(qs, i), s), fifth)));
  }
  static HWY_INLINE void load32(const uint8_t* p, int s, V16& lo, V16& hi) {
    const ScaledMinus value = super_scale(p, s);
    const uint8_t* qs = p + 48 + 32 * (s / 2);
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = at(value, qs, p + 16, s, i);
      hi.v[i] = at(value, qs + 16, p + 32, s, i);
    }
  }
};

struct Q6_KWeights {
  static constexpr int64_t kElements = 256;
  static constexpr size_t kBytes = 210;
  static HWY_INLINE V at(const Scaled& value, const uint8_t* ql, const uint8_t* qh, int k, int i) {
    const DI32 di;
    const auto low = nibble_of(bytes_at(ql, i), k / 2);
    const auto high = hn::And(hn::ShiftRightSame(bytes_at(qh, i), 2 * k), hn::Set(di, 3));
    return value(to_float(hn::Or(low, hn::ShiftLeft<4>(high))));
  }
  static HWY_INLINE Scaled scale_at(const uint8_t* p, int group) {
    const auto scale = static_cast<float>(static_cast<int8_t>(p[192 + group]));
    return Scaled{hn::Mul(broadcast_half(p + 208), hn::Set(D(), scale)), hn::Set(D(), -32.0F)};
  }
  static HWY_INLINE void load32(const uint8_t* p, int s, V16& lo, V16& hi) {
    const int half = s / 4;  // of 128 elements
    const int k = s % 4;
    const uint8_t* ql = p + 64 * half + 32 * (k & 1);
    const uint8_t* qh = p + 128 + 32 * half;
    const Scaled value_lo = scale_at(p, 2 * s);
    const Scaled value_hi = scale_at(p, 2 * s + 1);
    for (int i = 0; i < kVecs; ++i) {
      lo.v[i] = at(value_lo, ql, qh, k, i);
      hi.v[i] = at(value_hi, ql + 16, qh + 16, k, i);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target guard
