#include "tensor/dtype.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "tensor/blocks.h"

namespace logitlab {
namespace {

constexpr std::array<DTypeTraits, 23> kTraits = {{
    {"F64", 1, 8, false},     {"F32", 1, 4, false},     {"F16", 1, 2, false},
    {"BF16", 1, 2, false},    {"F8_E4M3", 1, 1, false}, {"F8_E5M2", 1, 1, false},
    {"I64", 1, 8, false},     {"I32", 1, 4, false},     {"I16", 1, 2, false},
    {"I8", 1, 1, false},      {"U64", 1, 8, false},     {"U32", 1, 4, false},
    {"U16", 1, 2, false},     {"U8", 1, 1, false},      {"BOOL", 1, 1, false},
    {"Q4_0", 32, 18, true},   {"Q4_1", 32, 20, true},   {"Q5_0", 32, 22, true},
    {"Q5_1", 32, 24, true},   {"Q8_0", 32, 34, true},   {"Q4_K", 256, 144, true},
    {"Q5_K", 256, 176, true}, {"Q6_K", 256, 210, true},
}};

}  // namespace

const DTypeTraits& traits(DType dtype) {
  const size_t index = static_cast<size_t>(dtype);
  CHECK(index < kTraits.size()) << "DType " << index;
  return kTraits[index];
}

size_t row_bytes(DType dtype, int64_t n_elements) {
  const DTypeTraits& t = traits(dtype);
  CHECK(n_elements >= 0 && n_elements % t.block_elements == 0)
      << n_elements << " elements of " << std::string(t.name);
  return static_cast<size_t>(n_elements / t.block_elements) * t.block_bytes;
}

bool is_weight_type(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         traits(dtype).is_quantised;
}

uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) {
    return static_cast<uint16_t>((bits >> 16) | 0x40U);
  }
  const uint32_t rounding = 0x7FFFU + ((bits >> 16) & 1U);
  return static_cast<uint16_t>((bits + rounding) >> 16);
}

float f16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1FU;
  const uint32_t mantissa = bits & 0x3FFU;
  if (exponent == 0x1F) {
    return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13));
  }
  if (exponent == 0) {
    // A subnormal: mantissa * 2^-24, exact in float32.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

uint16_t float_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  if (std::isnan(value)) {
    return static_cast<uint16_t>(sign | 0x7E00U);
  }
  const float magnitude = std::fabs(value);
  // 65520 is half-way between the largest half and the next step, which rounds to infinity.
  if (magnitude >= 65520.0F) {
    return static_cast<uint16_t>(sign | 0x7C00U);
  }
  if (magnitude < 0x1p-14F) {
    // nearbyint rounds to even in the default mode; 1024 carries into the first normal, correctly.
    const auto steps = static_cast<uint32_t>(std::nearbyint(magnitude * 0x1p24F));
    return static_cast<uint16_t>(sign | steps);
  }
  const uint32_t m = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = m + 0xFFFU + ((m >> 13) & 1U);
  return static_cast<uint16_t>(sign | ((rounded - (112U << 23)) >> 13));
}

void row_to_float(DType dtype, const void* row, float* out, int64_t n) {
  const auto* bytes = static_cast<const std::byte*>(row);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, bytes, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kF16:
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) {
        uint16_t bits;
        std::memcpy(&bits, bytes + 2 * i, sizeof(bits));
        out[i] = dtype == DType::kF16 ? f16_to_float(bits) : bf16_to_float(bits);
      }
      return;
    default:
      decode_blocks(dtype, bytes, out, n);
  }
}

void row_from_float(DType dtype, const float* values, void* row, int64_t n) {
  auto* bytes = static_cast<std::byte*>(row);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(bytes, values, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kF16:
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits =
            dtype == DType::kF16 ? float_to_f16(values[i]) : float_to_bf16(values[i]);
        std::memcpy(bytes + 2 * i, &bits, sizeof(bits));
      }
      return;
    default:
      encode_blocks(dtype, values, bytes, n);
  }
}

}  // namespace logitlab
