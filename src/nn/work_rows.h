// Work space of one forward pass.
#pragma once

#include <cstdint>
#include <memory>

namespace logitlab {

// [rows, columns] floats, not initialised: all of them are written before they are read.
class WorkRows {
 public:
  WorkRows(int64_t rows, int64_t columns)
      : columns_(columns),
        memory_(std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rows * columns))) {}

  [[nodiscard]] float* data() { return memory_.get(); }
  [[nodiscard]] float* row(int64_t index) { return memory_.get() + index * columns_; }

 private:
  int64_t columns_;
  std::unique_ptr<float[]> memory_;
};

}  // namespace logitlab
