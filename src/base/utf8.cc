#include "base/utf8.h"

#include <cstdint>
#include <cwchar>

namespace logitlab {
namespace {

struct Decoded {
  char32_t code_point = 0;
  size_t length = 0;          // bytes of a valid sequence; 0 when invalid
  size_t invalid_length = 1;  // bytes of the maximal invalid part
};

uint8_t byte_at(std::string_view text, size_t i) {
  return static_cast<uint8_t>(text[i]);
}

// Table 3-7 of the Unicode standard: the second byte's range depends on the first.
Decoded decode_at(std::string_view text, size_t i) {
  const uint8_t first = byte_at(text, i);
  if (first < 0x80) {
    return {first, 1, 1};
  }
  size_t length = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  char32_t code_point = 0;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
    code_point = first & 0x1FU;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    code_point = first & 0x0FU;
    low = first == 0xE0 ? 0xA0 : 0x80;
    high = first == 0xED ? 0x9F : 0xBF;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    code_point = first & 0x07U;
    low = first == 0xF0 ? 0x90 : 0x80;
    high = first == 0xF4 ? 0x8F : 0xBF;
  } else {
    return {};
  }
  for (size_t k = 1; k < length; ++k) {
    if (i + k >= text.size()) {
      return {0, 0, k};
    }
    const uint8_t next = byte_at(text, i + k);
    if (next < low || next > high) {
      return {0, 0, k};
    }
    low = 0x80;
    high = 0xBF;
    code_point = (code_point << 6) | (next & 0x3FU);
  }
  return {code_point, length, 1};
}

struct Range {
  char32_t first;
  char32_t last;
};

// Wide and emoji blocks (Unicode 15, East Asian Width W and F, by whole blocks).
constexpr Range kWide[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0x33FF},
                           {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xA000, 0xA4CF},
                           {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},
                           {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},
                           {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1F9FF},
                           {0x1FA70, 0x1FAFF}, {0x20000, 0x3FFFD}};
// Combining marks and joiners that add no column.
constexpr Range kZeroWidth[] = {
    {0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD},   {0x0610, 0x061A},  {0x064B, 0x065F},
    {0x06D6, 0x06DC}, {0x0900, 0x0902}, {0x093C, 0x093C},   {0x0941, 0x0948},  {0x094D, 0x094D},
    {0x0E31, 0x0E31}, {0x0E34, 0x0E3A}, {0x0E47, 0x0E4E},   {0x1AB0, 0x1AFF},  {0x1DC0, 0x1DFF},
    {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x2064},   {0x20D0, 0x20FF},  {0xFE00, 0xFE0F},
    {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF}, {0x1F3FB, 0x1F3FF}, {0xE0000, 0xE01EF}};

template <size_t N>
bool contains(const Range (&ranges)[N], char32_t code_point) {
  for (const Range& range : ranges) {
    if (code_point >= range.first && code_point <= range.last) {
      return true;
    }
  }
  return false;
}

// Controls, and the marks that reorder text on a terminal.
bool is_unprintable(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x200E && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

void append_escape(std::string* out, char32_t c) {
  switch (c) {
    case '\n':
      *out += "\\n";
      return;
    case '\t':
      *out += "\\t";
      return;
    case '\r':
      *out += "\\r";
      return;
    default:
      *out += c < 0x100 ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
                        : fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  }
}

}  // namespace

size_t first_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const Decoded decoded = decode_at(text, i);
    if (decoded.length == 0) {
      return i;
    }
    i += decoded.length;
  }
  return text.size();
}

Status require_utf8(std::string_view text, std::string_view where) {
  const size_t at = first_invalid_utf8(text);
  if (at == text.size()) {
    return {};
  }
  return fail(ErrorCode::kInvalidArgument, "{}: byte 0x{:02x} at offset {} is not UTF-8", where,
              byte_at(text, at), at);
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Decoded decoded = decode_at(text, i);
    if (decoded.length == 0) {
      out += "\xEF\xBF\xBD";
      i += decoded.invalid_length;
    } else {
      out.append(text.substr(i, decoded.length));
      i += decoded.length;
    }
  }
  return out;
}

void append_utf8(std::string* out, char32_t c) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

size_t display_width(std::string_view text) {
  size_t columns = 0;
  for (size_t i = 0; i < text.size();) {
    const Decoded decoded = decode_at(text, i);
    if (decoded.length == 0) {
      ++columns;
      i += decoded.invalid_length;
      continue;
    }
    i += decoded.length;
    if (contains(kZeroWidth, decoded.code_point) || decoded.code_point < 0x20) {
      continue;
    }
    columns += contains(kWide, decoded.code_point) ? 2 : 1;
  }
  return columns;
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Decoded decoded = decode_at(text, i);
    if (decoded.length == 0) {
      out += fmt::format("\\x{:02x}", byte_at(text, i));
      ++i;
      continue;
    }
    if (is_unprintable(decoded.code_point)) {
      append_escape(&out, decoded.code_point);
    } else {
      out.append(text.substr(i, decoded.length));
    }
    i += decoded.length;
  }
  return out;
}

}  // namespace logitlab
