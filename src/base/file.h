// Whole files, memory maps and pages. Paths are taken as given (symlinks followed).
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
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
  // Whether read_at's ranges come one after the other for each reader (the kernel then reads ahead
  // by itself, the default) or are all that will be wanted (it then reads nothing else).
  void expect_sequential_reads(bool is_sequential) const;
  // Reads [offset, offset + out.size()) past the mapping. kDataLoss when the file is shorter, or
  // the device refuses. Thread-safe.
  [[nodiscard]] Status read_at(size_t offset, std::span<std::byte> out) const;

  // Gives the page cache's pages of [offset, offset + length) back to the system: those that are
  // not dirty and that nobody else has mapped. The data can be read again. Thread-safe.
  void release_cached(size_t offset, size_t length) const;
  void release_cached() const { release_cached(0, size_); }
  // Does that when the mapping ends.
  void set_release_on_close() { releases_on_close_ = true; }
  // Bytes of the file that lie in the page cache; nullopt when the system does not say (it tells
  // only those who own the file or may write it).
  [[nodiscard]] std::optional<size_t> cached_bytes() const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
  bool releases_on_close_ = false;
  std::filesystem::path path_;
};

// Zeroed memory straight from the system, aligned to 2 MiB, for which huge pages are asked; pages
// exist once they are written. Move-only; given back whole on destruction.
class PageMemory {
 public:
  // kResourceExhausted when the system cannot give it.
  [[nodiscard]] static Result<PageMemory> allocate(size_t bytes);

  PageMemory() = default;
  PageMemory(PageMemory&& other) noexcept;
  PageMemory& operator=(PageMemory&& other) noexcept;
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;
  ~PageMemory();

  [[nodiscard]] std::byte* data() { return data_; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace logitlab
