// Whole files and memory maps. Read only; paths are taken as given (symlinks followed).
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace logitlab {

// The text of a regular file of at most `max_bytes`. kNotFound, kInvalidArgument (a directory, a
// device, more than max_bytes).
[[nodiscard]] Result<std::string> read_text_file(const std::filesystem::path& path,
                                                 size_t max_bytes);

// Writes through a temporary file in the same folder and renames it, so that a reader sees the old
// or the new content and never a part. A device or a pipe is written to as it is; a link keeps
// leading to its file.
[[nodiscard]] Status write_file_atomically(const std::filesystem::path& path,
                                           std::string_view content);

// A read-only mapping of a whole file. Move-only; unmapped on destruction. Thread-safe to read.
// A file that shrinks while mapped raises SIGBUS on access; that is outside what we can check.
class MappedFile {
 public:
  // kNotFound, kInvalidArgument (not a regular file). An empty file maps to an empty span.
  [[nodiscard]] static Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  // Asks the kernel to read [offset, offset + length) ahead.
  void will_need(size_t offset, size_t length) const;
  // Tells the kernel that the mapping's pages are no longer needed by us. The data can be read
  // again.
  void release_pages() const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

}  // namespace logitlab
