// A model's tensors as they lie in its files: the one view that models load from, whatever the
// container (safetensors, GGUF). Nothing is copied; data points into read-only mappings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/tensor.h"

namespace logitlab {

// One tensor of a file. `data` may have any alignment (safetensors promises none); it is valid
// while the Checkpoint lives. bytes == rows * row_bytes(dtype, columns) and lies inside the file.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;  // PyTorch order, outermost first
  const std::byte* data = nullptr;
  size_t bytes = 0;
  int file_index = 0;  // in Checkpoint::files()
  size_t offset = 0;   // of data, from the start of the file

  [[nodiscard]] Tensor view() const { return {data, dtype, shape}; }
};

// Move-only; owns the mappings. Immutable after it is built, so safe to read from any thread.
class Checkpoint {
 public:
  struct File {
    std::filesystem::path path;       // as it was asked for
    std::filesystem::path real_path;  // symlinks followed (into the hub cache's blobs)
    size_t bytes = 0;
  };

  // `entries` must point into `maps` by file_index, one map a file. kDataLoss when two entries have
  // one name (both files are named).
  [[nodiscard]] static Result<Checkpoint> assemble(std::vector<MappedFile> maps,
                                                   std::vector<TensorEntry> entries,
                                                   std::vector<std::string> warnings = {});

  Checkpoint() = default;

  // nullptr if absent. O(log n).
  [[nodiscard]] const TensorEntry* find(std::string_view name) const;
  // find(), or kNotFound that names the tensor, the files and the closest spelling there.
  [[nodiscard]] Result<const TensorEntry*> require(std::string_view name) const;
  // Sorted by (file, offset).
  [[nodiscard]] const std::vector<TensorEntry>& tensors() const { return tensors_; }
  [[nodiscard]] const std::vector<File>& files() const { return files_; }
  // Sum of the tensors' bytes (not of the files').
  [[nodiscard]] size_t total_bytes() const { return total_bytes_; }
  // What is odd but usable, one line each (an index whose total_size does not fit).
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  // Asks the kernel to read the tensor ahead.
  void will_need(const TensorEntry& entry) const;

  // The files themselves, by file_index: as MappedFile's functions of these names. read_at serves
  // those who copy weights, so that no page of the mapping is touched for it.
  [[nodiscard]] Status read_at(int file_index, size_t offset, std::span<std::byte> out) const;
  void will_need(int file_index, size_t offset, size_t length) const;
  void release_cached(int file_index, size_t offset, size_t length) const;
  // Of all files.
  void release_cached() const;
  void expect_sequential_reads(bool is_sequential) const;
  void set_release_on_close();
  // nullopt when the system does not say it of one of the files.
  [[nodiscard]] std::optional<size_t> cached_bytes() const;

 private:
  std::vector<MappedFile> maps_;
  std::vector<File> files_;
  std::vector<TensorEntry> tensors_;
  std::vector<uint32_t> by_name_;  // indices into tensors_
  std::vector<std::string> warnings_;
  size_t total_bytes_ = 0;
};

// Checks what every container must hold: entries of one file do not overlap. kDataLoss naming two
// tensors and their ranges. `where` is the file.
[[nodiscard]] Status require_no_overlap(const std::vector<TensorEntry>& entries,
                                        std::string_view where);

// Untrusted text for a message: printable, at most 100 bytes, in single quotes.
[[nodiscard]] std::string quote(std::string_view text);

// "a, b, c": printable, at most 100 of them, then how many more there are.
[[nodiscard]] std::string list_names(const std::vector<std::string>& names);

}  // namespace logitlab
