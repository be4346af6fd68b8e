#include "tensor/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/check.h"

namespace logitlab {
namespace {

constexpr int kSmall = 32;   // elements of a simple block
constexpr int kSuper = 256;  // elements of a K block

uint8_t u8(const std::byte* p) {
  return static_cast<uint8_t>(*p);
}

float half_at(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return f16_to_float(bits);
}

// Element e of a 32-element nibble block: low nibbles hold the first half.
int nibble(const std::byte* qs, int e) {
  const uint8_t byte = u8(qs + e % 16);
  return e < 16 ? byte & 15 : byte >> 4;
}

int fifth_bit(const std::byte* qh, int e) {
  uint32_t bits;
  std::memcpy(&bits, qh, sizeof(bits));
  return static_cast<int>((bits >> e) & 1U) << 4;
}

void decode_q4_0(const std::byte* b, float* out) {
  const float d = half_at(b);
  for (int e = 0; e < kSmall; ++e) {
    out[e] = d * static_cast<float>(nibble(b + 2, e) - 8);
  }
}

void decode_q4_1(const std::byte* b, float* out) {
  const float d = half_at(b);
  const float m = half_at(b + 2);
  for (int e = 0; e < kSmall; ++e) {
    out[e] = d * static_cast<float>(nibble(b + 4, e)) + m;
  }
}

void decode_q5_0(const std::byte* b, float* out) {
  const float d = half_at(b);
  for (int e = 0; e < kSmall; ++e) {
    out[e] = d * static_cast<float>((nibble(b + 6, e) | fifth_bit(b + 2, e)) - 16);
  }
}

void decode_q5_1(const std::byte* b, float* out) {
  const float d = half_at(b);
  const float m = half_at(b + 2);
  for (int e = 0; e < kSmall; ++e) {
    out[e] = d * static_cast<float>(nibble(b + 8, e) | fifth_bit(b + 4, e)) + m;
  }
}

void decode_q8_0(const std::byte* b, float* out) {
  const float d = half_at(b);
  for (int e = 0; e < kSmall; ++e) {
    out[e] = d * static_cast<float>(static_cast<int8_t>(u8(b + 2 + e)));
  }
}

struct ScaleMin {
  int scale;
  int min;
};

// Six-bit scale and minimum of sub-block s (0..7), packed in 12 bytes.
ScaleMin scale_min(const std::byte* scales, int s) {
  if (s < 4) {
    return {u8(scales + s) & 63, u8(scales + s + 4) & 63};
  }
  return {(u8(scales + s + 4) & 15) | (u8(scales + s - 4) >> 6) << 4,
          (u8(scales + s + 4) >> 4) | (u8(scales + s) >> 6) << 4};
}

void decode_q4_k(const std::byte* b, float* out) {
  const float d = half_at(b);
  const float dmin = half_at(b + 2);
  const std::byte* scales = b + 4;
  const std::byte* qs = b + 16;
  for (int s = 0; s < 8; ++s) {
    const ScaleMin sm = scale_min(scales, s);
    const float scale = d * static_cast<float>(sm.scale);
    const float min = dmin * static_cast<float>(sm.min);
    for (int l = 0; l < kSmall; ++l) {
      const int q = (u8(qs + 32 * (s / 2) + l) >> (4 * (s & 1))) & 15;
      out[32 * s + l] = scale * static_cast<float>(q) - min;
    }
  }
}

void decode_q5_k(const std::byte* b, float* out) {
  const float d = half_at(b);
  const float dmin = half_at(b + 2);
  const std::byte* scales = b + 4;
  const std::byte* qh = b + 16;
  const std::byte* qs = b + 48;
  for (int s = 0; s < 8; ++s) {
    const ScaleMin sm = scale_min(scales, s);
    const float scale = d * static_cast<float>(sm.scale);
    const float min = dmin * static_cast<float>(sm.min);
    for (int l = 0; l < kSmall; ++l) {
      const int low = (u8(qs + 32 * (s / 2) + l) >> (4 * (s & 1))) & 15;
      const int q = low + 16 * ((u8(qh + l) >> s) & 1);
      out[32 * s + l] = scale * static_cast<float>(q) - min;
    }
  }
}

void decode_q6_k(const std::byte* b, float* out) {
  const std::byte* ql = b;
  const std::byte* qh = b + 128;
  const std::byte* scales = b + 192;
  const float d = half_at(b + 208);
  for (int e = 0; e < kSuper; ++e) {
    const int n = e / 128;
    const int k = e % 128 / 32;
    const int l = e % 32;
    const int low = (u8(ql + 64 * n + 32 * (k & 1) + l) >> (4 * (k / 2))) & 15;
    const int high = (u8(qh + 32 * n + l) >> (2 * k)) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(u8(scales + e / 16)));
    out[e] = scale * static_cast<float>((low | high << 4) - 32);
  }
}

using DecodeBlock = void (*)(const std::byte*, float*);

DecodeBlock decoder_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return decode_q4_0;
    case DType::kQ4_1:
      return decode_q4_1;
    case DType::kQ5_0:
      return decode_q5_0;
    case DType::kQ5_1:
      return decode_q5_1;
    case DType::kQ8_0:
      return decode_q8_0;
    case DType::kQ4_K:
      return decode_q4_k;
    case DType::kQ5_K:
      return decode_q5_k;
    case DType::kQ6_K:
      return decode_q6_k;
    default:
      return nullptr;
  }
}

void put_half(std::byte* p, float value) {
  const uint16_t bits = float_to_f16(value);
  std::memcpy(p, &bits, sizeof(bits));
}

void put_nibbles(const int* q, std::byte* qs) {
  for (int j = 0; j < 16; ++j) {
    qs[j] = static_cast<std::byte>(q[j] | (q[j + 16] << 4));
  }
}

void encode_q8_0(const float* v, std::byte* b) {
  float largest = 0;
  for (int e = 0; e < kSmall; ++e) {
    largest = std::max(largest, std::fabs(v[e]));
  }
  const float d = largest / 127;
  put_half(b, d);
  for (int e = 0; e < kSmall; ++e) {
    const float q = d > 0 ? std::nearbyint(v[e] / d) : 0;
    b[2 + e] = static_cast<std::byte>(static_cast<int8_t>(q));
  }
}

void encode_q4_0(const float* v, std::byte* b) {
  float extreme = 0;
  for (int e = 0; e < kSmall; ++e) {
    extreme = std::fabs(v[e]) > std::fabs(extreme) ? v[e] : extreme;
  }
  const float d = extreme / -8;
  put_half(b, d);
  int q[kSmall];
  for (int e = 0; e < kSmall; ++e) {
    q[e] = d != 0 ? std::clamp(static_cast<int>(std::nearbyint(v[e] / d)) + 8, 0, 15) : 8;
  }
  put_nibbles(q, b + 2);
}

void encode_q4_1(const float* v, std::byte* b) {
  const auto [low, high] = std::minmax_element(v, v + kSmall);
  const float d = (*high - *low) / 15;
  put_half(b, d);
  put_half(b + 2, *low);
  int q[kSmall];
  for (int e = 0; e < kSmall; ++e) {
    q[e] = d > 0 ? std::clamp(static_cast<int>(std::nearbyint((v[e] - *low) / d)), 0, 15) : 0;
  }
  put_nibbles(q, b + 4);
}

}  // namespace

void decode_blocks(DType dtype, const std::byte* blocks, float* out, int64_t n) {
  const DecodeBlock decode = decoder_of(dtype);
  CHECK(decode != nullptr) << std::string(name(dtype)) << " has no blocks";
  const DTypeTraits& t = traits(dtype);
  for (int64_t i = 0; i < n; i += t.block_elements, blocks += t.block_bytes) {
    decode(blocks, out + i);
  }
}

void encode_blocks(DType dtype, const float* values, std::byte* blocks, int64_t n) {
  const DTypeTraits& t = traits(dtype);
  for (int64_t i = 0; i < n; i += t.block_elements, blocks += t.block_bytes) {
    switch (dtype) {
      case DType::kQ8_0:
        encode_q8_0(values + i, blocks);
        break;
      case DType::kQ4_0:
        encode_q4_0(values + i, blocks);
        break;
      case DType::kQ4_1:
        encode_q4_1(values + i, blocks);
        break;
      default:
        CHECK(false) << "no encoder for " << std::string(t.name);
    }
  }
}

}  // namespace logitlab
