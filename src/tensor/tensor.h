// Memory and views of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "base/error.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace logitlab {

// Owned memory, 64-byte aligned, zeroed. Move-only.
class Buffer {
 public:
  Buffer() = default;
  // kResourceExhausted when the system cannot give it.
  [[nodiscard]] static Result<Buffer> allocate(size_t bytes);

  [[nodiscard]] std::byte* data() { return data_.get(); }
  [[nodiscard]] const std::byte* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* pointer) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

// A view of row-major memory that somebody else owns. Rows are contiguous; for block types the last
// dimension is a multiple of the block. Copyable.
struct Tensor {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  [[nodiscard]] int64_t rows() const {
    return shape.rank() == 0 ? 1 : shape.elements() / columns();
  }
  [[nodiscard]] int64_t columns() const { return shape.rank() == 0 ? 1 : shape[shape.rank() - 1]; }
  [[nodiscard]] size_t row_stride_bytes() const { return row_bytes(dtype, columns()); }
  [[nodiscard]] size_t bytes() const {
    return shape.elements() == 0 ? 0 : static_cast<size_t>(rows()) * row_stride_bytes();
  }
  [[nodiscard]] const std::byte* row(int64_t index) const {
    DCHECK(index >= 0 && index < rows());
    return data + static_cast<size_t>(index) * row_stride_bytes();
  }
  [[nodiscard]] const float* f32() const {
    DCHECK(dtype == DType::kF32);
    return reinterpret_cast<const float*>(data);
  }
};

}  // namespace logitlab
