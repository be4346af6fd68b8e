#include "formats/npy.h"

#include <charconv>
#include <cstring>

#include <fmt/ranges.h>

#include "base/check.h"
#include "base/file.h"
#include "formats/checkpoint.h"

namespace logitlab {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kPreambleBytes = 10;  // magic, two version bytes, u16 header length
constexpr size_t kAlignment = 64;
constexpr size_t kMaxRank = 32;

template <typename T>
Status write_values(const std::filesystem::path& path, std::string_view descr,
                    std::span<const T> values, std::span<const int64_t> shape) {
  size_t n = 1;
  for (const int64_t size : shape) {
    n *= static_cast<size_t>(size);
  }
  CHECK(n == values.size()) << n << " elements in the shape, " << values.size() << " values";
  // Python's tuple of one has a comma.
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                   descr, fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  const size_t total =
      (kPreambleBytes + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  header.resize(total - kPreambleBytes - 1, ' ');
  header.push_back('\n');
  const auto length = static_cast<uint16_t>(header.size());
  std::string content(kMagic);
  content += '\x01';
  content += '\x00';
  content.append(reinterpret_cast<const char*>(&length), sizeof(length));
  content += header;
  content.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  return write_file_atomically(path, content);
}

// The text after `'key':`, spaces skipped; empty when there is no such key.
std::string_view value_of(std::string_view header, std::string_view key) {
  const std::string quoted_key = fmt::format("'{}':", key);
  const size_t at = header.find(quoted_key);
  if (at == std::string_view::npos) {
    return {};
  }
  const std::string_view rest = header.substr(at + quoted_key.size());
  const size_t begin = rest.find_first_not_of(' ');
  return begin == std::string_view::npos ? std::string_view() : rest.substr(begin);
}

// "(2, 3)", "(3,)", "()"; nullopt for anything else or a negative size.
std::optional<std::vector<int64_t>> parse_shape(std::string_view text) {
  if (text.empty() || text.front() != '(') {
    return std::nullopt;
  }
  const size_t close = text.find(')');
  if (close == std::string_view::npos) {
    return std::nullopt;
  }
  std::vector<int64_t> shape;
  std::string_view rest = text.substr(1, close - 1);
  while (true) {
    rest.remove_prefix(std::min(rest.find_first_not_of(" ,"), rest.size()));
    if (rest.empty()) {
      return shape;
    }
    int64_t size = 0;
    const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), size);
    if (problem != std::errc() || size < 0 || shape.size() == kMaxRank) {
      return std::nullopt;
    }
    shape.push_back(size);
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  }
}

}  // namespace

Status write_npy(const std::filesystem::path& path, std::span<const float> values,
                 std::span<const int64_t> shape) {
  return write_values(path, "<f4", values, shape);
}
Status write_npy(const std::filesystem::path& path, std::span<const int32_t> values,
                 std::span<const int64_t> shape) {
  return write_values(path, "<i4", values, shape);
}
Status write_npy(const std::filesystem::path& path, std::span<const int64_t> values,
                 std::span<const int64_t> shape) {
  return write_values(path, "<i8", values, shape);
}

Result<NpyFloats> parse_npy(std::span<const std::byte> file, std::string_view where) {
  if (file.size() < kPreambleBytes || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: want a .npy file (it starts with \\x93NUMPY)",
                where);
  }
  const int version = std::to_integer<int>(file[kMagic.size()]);
  if (version != 1) {
    return fail(ErrorCode::kInvalidArgument, "{}: .npy version {}, want 1", where, version);
  }
  uint16_t length = 0;
  std::memcpy(&length, file.data() + kPreambleBytes - sizeof(length), sizeof(length));
  if (length > file.size() - kPreambleBytes) {
    return fail(ErrorCode::kDataLoss, "{}: header length {}, but {} bytes follow", where, length,
                file.size() - kPreambleBytes);
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data() + kPreambleBytes),
                                length);
  if (!value_of(header, "descr").starts_with("'<f4'") ||
      !value_of(header, "fortran_order").starts_with("False")) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: header {}, want little-endian float32 ('<f4') in "
                "C order",
                where, quote(header));
  }
  const auto shape = parse_shape(value_of(header, "shape"));
  if (!shape) {
    return fail(ErrorCode::kInvalidArgument, "{}: header {}, want a shape of sizes from 0", where,
                quote(header));
  }
  const std::span<const std::byte> data = file.subspan(kPreambleBytes + length);
  uint64_t n = 1;
  bool overflows = false;
  for (const int64_t size : *shape) {
    overflows = overflows || __builtin_mul_overflow(n, static_cast<uint64_t>(size), &n);
  }
  if (overflows || n != data.size() / sizeof(float) || data.size() % sizeof(float) != 0) {
    return fail(ErrorCode::kDataLoss, "{}: shape [{}] of float32, but {} bytes of data", where,
                fmt::join(*shape, ", "), data.size());
  }
  NpyFloats result;
  result.shape = *shape;
  result.values.resize(static_cast<size_t>(n));
  if (!data.empty()) {
    std::memcpy(result.values.data(), data.data(), data.size());
  }
  return result;
}

Result<NpyFloats> read_npy(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const MappedFile map, MappedFile::open(path));
  return parse_npy(map.bytes(), path.string());
}

}  // namespace logitlab
