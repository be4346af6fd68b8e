// For tests: small files of each format, built byte by byte so that any field can be wrong, and a
// watch on the largest allocation that reading one asks for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"

namespace logitlab {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "logitlab-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Writes a file, with the folders that it needs.
  std::filesystem::path write(std::string_view file_name, std::string_view content) const {
    const std::filesystem::path path = path_ / file_name;
    std::filesystem::create_directories(path.parent_path());
    EXPECT_TRUE(write_file_atomically(path, content));
    return path;
  }

 private:
  std::filesystem::path path_;
};

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

template <typename T>
std::string raw(T value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

// Header length, header, data.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  return raw<uint64_t>(header.size()) + std::string(header) + std::string(data);
}

inline std::string gguf_string(std::string_view text) {
  return raw<uint64_t>(text.size()) + std::string(text);
}

// A GGUF file in pieces. Counts are what was added unless they are set.
class GgufBytes {
 public:
  uint32_t version = 3;
  int64_t n_tensors = -1;
  int64_t n_fields = -1;
  std::string data;

  // `value` is the value as the file has it, without its type.
  GgufBytes& field(std::string_view key, uint32_t type, std::string_view value) {
    fields_ += gguf_string(key) + raw(type) + std::string(value);
    ++added_fields_;
    return *this;
  }
  GgufBytes& text(std::string_view key, std::string_view value) {
    return field(key, 8, gguf_string(value));
  }
  GgufBytes& number(std::string_view key, uint32_t value) { return field(key, 4, raw(value)); }
  GgufBytes& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes = raw<uint32_t>(8) + raw<uint64_t>(values.size());
    for (const std::string& value : values) {
      bytes += gguf_string(value);
    }
    return field(key, 9, bytes);
  }
  // `sizes` as the file has them, fastest first.
  GgufBytes& tensor(std::string_view name, const std::vector<int64_t>& sizes, uint32_t type,
                    uint64_t offset) {
    tensors_ += gguf_string(name) + raw(static_cast<uint32_t>(sizes.size()));
    for (const int64_t size : sizes) {
      tensors_ += raw(size);
    }
    tensors_ += raw(type) + raw(offset);
    ++added_tensors_;
    return *this;
  }
  [[nodiscard]] std::string bytes(size_t alignment = 32) const {
    std::string out = "GGUF" + raw(version) + raw(n_tensors < 0 ? added_tensors_ : n_tensors) +
                      raw(n_fields < 0 ? added_fields_ : n_fields) + fields_ + tensors_;
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data;
  }

 private:
  std::string fields_;
  std::string tensors_;
  int64_t added_fields_ = 0;
  int64_t added_tensors_ = 0;
};

// Largest single allocation since the last reset (operator new of this test binary).
size_t largest_allocation();
void reset_largest_allocation();

// A hostile file must not make us take memory; messages and small vectors may.
inline constexpr size_t kSmallAllocation = size_t{1} << 20;

}  // namespace logitlab
