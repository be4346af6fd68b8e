// Element types and quantised block types, as files store them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace logitlab {

enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
  // GGUF blocks: elements of a row in groups that share a scale.
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

struct DTypeTraits {
  std::string_view name;   // "BF16", "Q4_K"
  int64_t block_elements;  // 1 for plain types
  size_t block_bytes;
  bool is_quantised;
};

// The one table of types.
[[nodiscard]] const DTypeTraits& traits(DType dtype);
[[nodiscard]] inline std::string_view name(DType dtype) {
  return traits(dtype).name;
}

// Bytes of a row of n elements; n must be a multiple of block_elements (CHECK).
[[nodiscard]] size_t row_bytes(DType dtype, int64_t n_elements);

// True for the types that row_to_float reads: F32, F16, BF16 and the GGUF blocks.
[[nodiscard]] bool is_weight_type(DType dtype);

// Decodes n elements (a multiple of block_elements) at any alignment. Exact: every element of these
// types is a product or sum of floats that is rounded once or twice in float32, in the order that
// GGUF readers use (d * q + m).
void row_to_float(DType dtype, const void* row, float* out, int64_t n);

// Encodes; for tests and for conversions to F32, F16, BF16, Q8_0, Q4_0, Q4_1. Round to nearest even
// for the plain types. Other types are a CHECK.
void row_from_float(DType dtype, const float* values, void* row, int64_t n);

[[nodiscard]] inline float bf16_to_float(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &word, sizeof(value));
  return value;
}
// Round to nearest even; NaN stays NaN.
[[nodiscard]] uint16_t float_to_bf16(float value);
[[nodiscard]] float f16_to_float(uint16_t bits);
[[nodiscard]] uint16_t float_to_f16(float value);

}  // namespace logitlab
