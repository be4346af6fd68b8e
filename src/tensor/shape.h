// Sizes of up to four dimensions, outermost first (row-major), as PyTorch writes them.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace logitlab {

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;  // rank 0: one element
  // At most kMaxRank sizes, each >= 0 (CHECK).
  Shape(std::initializer_list<int64_t> sizes);

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int64_t operator[](int axis) const { return sizes_[static_cast<size_t>(axis)]; }
  void append(int64_t size);
  // Product of the sizes. Readers of foreign files check the product for overflow before they build
  // a Shape (checked_elements).
  [[nodiscard]] int64_t elements() const;
  // "[2048, 576]"
  [[nodiscard]] std::string to_string() const;
  bool operator==(const Shape& other) const = default;

 private:
  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

}  // namespace logitlab
