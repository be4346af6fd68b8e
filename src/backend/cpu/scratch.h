// Work space of the ops of the cpu backend.
#pragma once

#include <cstdint>
#include <memory>

namespace logitlab {

inline int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

inline int64_t round_up(int64_t a, int64_t b) {
  return divide_up(a, b) * b;
}

// Work space of one call: for each of `pieces`, `floats` floats that start at a cache line.
// Uninitialised.
class Scratch {
 public:
  Scratch(int64_t pieces, int64_t floats)
      : stride_(round_up(floats, kLine)),
        memory_(std::make_unique_for_overwrite<float[]>(
            static_cast<size_t>(pieces * stride_ + kLine))) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    const uintptr_t line = kLine * sizeof(float);
    start_ = memory_.get() + (line - address % line) % line / sizeof(float);
  }

  [[nodiscard]] float* piece(int64_t index) const { return start_ + index * stride_; }

 private:
  static constexpr int64_t kLine = 16;

  int64_t stride_;
  std::unique_ptr<float[]> memory_;
  float* start_ = nullptr;
};

}  // namespace logitlab
