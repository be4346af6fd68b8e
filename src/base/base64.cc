#include "base/base64.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/utf8.h"

namespace logitlab {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<int8_t, 256> make_values() {
  std::array<int8_t, 256> values{};
  values.fill(-1);
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int8_t>(i);
  }
  return values;
}
constexpr std::array<int8_t, 256> kValues = make_values();

}  // namespace

std::string encode_base64(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k) {
      word = word << 8 | (k < n ? std::to_integer<uint32_t>(bytes[i + k]) : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      text.push_back(k <= n ? kAlphabet[word >> (18 - 6 * k) & 63U] : '=');
    }
  }
  return text;
}

Result<std::vector<std::byte>> decode_base64(std::string_view text, std::string_view where) {
  if (text.size() % 4 != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: base64 of {} characters, want a multiple of 4 (with = at the end)", where,
                text.size());
  }
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / 4 * 3);
  size_t n_pads = 0;
  while (n_pads < 2 && n_pads < text.size() && text[text.size() - 1 - n_pads] == '=') {
    ++n_pads;
  }
  for (size_t i = 0; i < text.size(); i += 4) {
    const size_t n = i + 4 == text.size() ? 4 - n_pads : 4;
    uint32_t word = 0;
    for (size_t k = 0; k < 4; ++k) {
      const int8_t value = k < n ? kValues[static_cast<unsigned char>(text[i + k])] : int8_t{0};
      if (value < 0) {
        return fail(ErrorCode::kInvalidArgument, "{}: `{}` at character {} is not base64", where,
                    printable(text.substr(i + k, 1)), i + k);
      }
      word = word << 6 | static_cast<uint32_t>(value);
    }
    if ((word & (n == 4 ? 0U : n == 3 ? 0xFFU : 0xFFFFU)) != 0) {
      return fail(ErrorCode::kInvalidArgument, "{}: base64 with bits after its end", where);
    }
    for (size_t k = 0; k + 1 < n; ++k) {
      bytes.push_back(static_cast<std::byte>(word >> (16 - 8 * k) & 0xFFU));
    }
  }
  return bytes;
}

}  // namespace logitlab
