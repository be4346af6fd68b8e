// From a checkpoint's tensors to the weights that layers point at.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "models/model.h"
#include "nn/layers.h"

namespace logitlab {

// Owns the checkpoint and every converted copy; views that it hands out live as long as it does.
//
// A model asks for its weights twice: first in mode kCheck, where names, shapes and types are
// checked, sizes are added up and no data is touched; then, after begin_load, in mode kLoad.
class WeightStore {
 public:
  enum class Mode { kCheck, kLoad };

  // `dtype`: "auto", "float32", "bfloat16" (else kInvalidArgument).
  [[nodiscard]] static Result<WeightStore> make(Checkpoint checkpoint, const LoadOptions& options,
                                                const Backend& backend);

  [[nodiscard]] bool has(std::string_view name) const { return checkpoint_.find(name) != nullptr; }
  [[nodiscard]] const Checkpoint& checkpoint() const { return checkpoint_; }

  // A matrix [out, in] for `op`, mapped or converted as the options say. Asking again for the same
  // name gives the same memory. Errors: kNotFound, kInvalidArgument (shape), kUnsupported (type).
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

  // Ends mode kCheck. kResourceExhausted when the converted copies or the mapped weights exceed
  // what the system has available, saying how much is missing.
  [[nodiscard]] Status begin_load();
  // Reads what is mapped, so that the first forward finds it in memory, with progress.
  void read_ahead(ExecContext& context, ProgressSink& progress) const;

  [[nodiscard]] const std::vector<WeightEntry>& entries() const { return entries_; }

 private:
  WeightStore() = default;
  [[nodiscard]] Result<const TensorEntry*> checked_entry(std::string_view name,
                                                         const Shape& want) const;
  [[nodiscard]] Result<Tensor> matrix_of(std::string_view name, const Shape& shape, Op op);
  [[nodiscard]] Result<Tensor> convert(const TensorEntry& entry, DType dtype);
  void record(const TensorEntry& entry, const Tensor& resident, bool is_mapped);

  Checkpoint checkpoint_;
  const Backend* backend_ = nullptr;
  ProgressSink* progress_ = nullptr;
  Mode mode_ = Mode::kCheck;
  bool converts_ = false;  // matrices become target_
  DType target_ = DType::kF32;
  size_t copied_bytes_ = 0;
  size_t copied_done_ = 0;
  size_t mapped_bytes_ = 0;
  std::deque<Buffer> copies_;
  std::vector<WeightEntry> entries_;
  std::vector<Tensor> resident_;  // by entry
};

}  // namespace logitlab
