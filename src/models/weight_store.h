// From a checkpoint's tensors to the weights that layers point at.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"
#include "base/env.h"
#include "base/error.h"
#include "base/file.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "models/model.h"
#include "models/weight_reader.h"
#include "nn/layers.h"

namespace logitlab {

// Where the weights that need no conversion will lie.
struct WeightPlacement {
  bool reads = false;     // in memory of our own; false: in the files' mapping
  bool offloads = false;  // mapped because they do not fit: read from the disk at every step
  size_t missing = 0;     // bytes that the system lacks; above 0 without `offloads`: refused
  // The files' pages are given back when the model goes: they are many, and they would stay only
  // because there was no room to read them.
  bool releases_on_close = false;
};

// `in_place_bytes` need no conversion, `copied_bytes` do. `available_bytes`: what the system can
// give, the page cache included, since it is reclaimed for us; 0: not known. "auto" reads a model
// that is large enough for it to pay, when an eighth of what is available stays free.
[[nodiscard]] WeightPlacement choose_placement(const LoadOptions& options, size_t in_place_bytes,
                                               size_t copied_bytes, size_t available_bytes);

// Owns the checkpoint and every copy; views that it hands out live as long as it does.
//
// A model asks for its weights twice: first in mode kCheck, where names, shapes and types are
// checked, sizes are added up and no data is touched; then, after begin_load, in mode kLoad.
// finish_load then brings the matrices' values to their places; vectors have theirs at once.
class WeightStore {
 public:
  enum class Mode { kCheck, kLoad };

  // kInvalidArgument: a `dtype` or `weights` that LoadOptions does not name.
  [[nodiscard]] static Result<WeightStore> make(Checkpoint checkpoint, const LoadOptions& options,
                                                const Backend& backend);

  [[nodiscard]] bool has(std::string_view name) const { return checkpoint_.find(name) != nullptr; }
  [[nodiscard]] const Checkpoint& checkpoint() const { return checkpoint_; }
  [[nodiscard]] const Backend& backend() const { return *backend_; }

  // A matrix [out, in] for `op`, mapped, read or converted as the options say; its values are there
  // after finish_load. Asking again for the same name gives the same memory. O(log n). Errors:
  // kNotFound, kInvalidArgument (shape), kUnsupported (type).
  [[nodiscard]] Result<Tensor> matrix(std::string_view name, int64_t out, int64_t in, Op op);
  // The E matrices [out, in] of a mixture: of one tensor `stacked` [E, out, in] when the file has
  // it, else of E tensors, `single(e)` being the name of number e. Errors as of matrix().
  [[nodiscard]] Result<std::vector<Tensor>> experts(
      std::string_view stacked, const std::function<std::string(int64_t)>& single,
      int64_t n_experts, int64_t out, int64_t in);
  // n float32 values, always a copy.
  [[nodiscard]] Result<const float*> vector(std::string_view name, int64_t n);
  // The same of a tensor of any rank whose shape is one of `accepted` (the first is the one that a
  // message wants).
  [[nodiscard]] Result<const float*> values(std::string_view name, std::span<const Shape> accepted);
  // nullptr when the file has no such tensor.
  [[nodiscard]] Result<const float*> optional_vector(std::string_view name, int64_t n);
  // A matrix and, if the file has it, its bias.
  [[nodiscard]] Result<Linear> linear(std::string_view weight_name, std::string_view bias_name,
                                      int64_t out, int64_t in);

  // Ends mode kCheck. kResourceExhausted when the weights exceed what the system has available,
  // saying how much is missing, unless the options allow offloading.
  [[nodiscard]] Status begin_load(size_t available_bytes = read_memory().available_bytes);
  // Of the mapping: what is going to be read, and what is not needed any more. Other addresses are
  // passed over.
  void will_need(const std::byte* data, size_t bytes) const;
  void release(const std::byte* data, size_t bytes) const;
  // Gives the memory of the matrices back, which are on a device now: their views are not valid any
  // more. Vectors stay.
  void drop_matrices() { memory_ = PageMemory(); }

  // Ends loading: fills the matrices, with progress, and gives the page cache of what was copied
  // back to the system. What is mapped is read ahead when somebody watches the progress.
  // kDataLoss: a file cannot be read.
  [[nodiscard]] Status finish_load(ExecContext& context);

  [[nodiscard]] const std::vector<WeightEntry>& entries() const { return entries_; }
  // The checkpoint's, and what the placement makes slow.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
  // Of begin_load.
  [[nodiscard]] const WeightPlacement& placement() const { return placement_; }
  // Of finish_load.
  [[nodiscard]] const WeightTraffic& traffic() const { return traffic_; }
  // Gives the page cache of the files back to the system; what is mapped is read again when it is
  // needed.
  void release_file_cache() const { checkpoint_.release_cached(); }

 private:
  WeightStore() = default;
  [[nodiscard]] Result<const TensorEntry*> checked_entry(std::string_view name,
                                                         const Shape& want) const;
  [[nodiscard]] Result<Tensor> matrix_of(std::string_view name, const Shape& shape, Op op);
  using ByTensor = std::unordered_map<const TensorEntry*, size_t>;  // index into entries_
  void record(const TensorEntry& entry, const Tensor& resident, bool is_mapped, ByTensor* index);
  // The file and the place in it of an address of the mapping; null: none of ours.
  [[nodiscard]] const TensorEntry* entry_at(const std::byte* data) const;
  // Room for one matrix in memory of our own.
  [[nodiscard]] std::byte* take(size_t bytes);

  Checkpoint checkpoint_;
  const Backend* backend_ = nullptr;
  LoadOptions options_;
  Mode mode_ = Mode::kCheck;
  bool converts_ = false;  // matrices become target_
  DType target_ = DType::kF32;
  size_t in_place_bytes_ = 0;
  size_t copied_bytes_ = 0;
  size_t in_place_room_ = 0;   // with each matrix on a boundary of its own
  size_t converted_room_ = 0;  // likewise
  WeightPlacement placement_;
  WeightTraffic traffic_;
  PageMemory memory_;  // of the matrices
  size_t memory_used_ = 0;
  std::deque<Buffer> values_;          // of the vectors
  std::vector<WeightTarget> targets_;  // what finish_load reads
  std::vector<WeightEntry> entries_;
  std::vector<Tensor> resident_;  // by entry
  ByTensor matrices_;             // a tensor may be asked for as a matrix and as values
  ByTensor value_lists_;
  std::vector<std::string> warnings_;
};

}  // namespace logitlab
