// From the description of a model to where its weights lie in one piece of device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <vector>

#include "backend/cuda/layout.h"
#include "backend/device_model.h"
#include "base/error.h"

namespace logitlab::cuda {

// One run of bytes that goes to the device.
struct Upload {
  std::byte* target = nullptr;
  const std::byte* source = nullptr;  // host memory; null: generated, see DeviceModelSpec
  size_t bytes = 0;
  uint32_t number = 0;  // of the matrix, when it is generated
};

// Hands out places in the memory at `base` one after the other, and remembers what goes there. With
// a null base it only measures.
class WeightRoom {
 public:
  explicit WeightRoom(std::byte* base) : base_(base) {}

  // The matrices one behind the other.
  [[nodiscard]] const __nv_bfloat16* matrices(std::span<const Tensor> tensors);
  // n floats of `values`, or n times `missing` where that is null.
  [[nodiscard]] const float* floats(const float* values, int64_t n, float missing);
  // The concatenation of parts, zeros for those that are null; null when all of them are.
  struct Part {
    const float* values = nullptr;
    int64_t n = 0;
  };
  [[nodiscard]] const float* joined(std::span<const Part> parts);

  [[nodiscard]] size_t bytes() const { return used_; }
  // Sources stay valid as long as the spec and this object.
  [[nodiscard]] const std::vector<Upload>& uploads() const { return uploads_; }

 private:
  std::byte* take(size_t bytes);

  std::byte* base_;
  size_t used_ = 0;
  uint32_t n_matrices_ = 0;
  std::vector<Upload> uploads_;
  std::deque<std::vector<float>> made_;
};

// The view of a checked spec; its kv.pages are null. kUnsupported names the layer and what this
// backend cannot do: weights that are not BF16, rows that are no multiple of 16 bytes, layers of
// one kind with different shapes of state.
[[nodiscard]] Result<ModelView> lay_out(const DeviceModelSpec& spec, WeightRoom* room);

}  // namespace logitlab::cuda
