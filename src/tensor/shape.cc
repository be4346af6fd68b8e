#include "tensor/shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"

namespace logitlab {

Shape::Shape(std::initializer_list<int64_t> sizes) {
  for (const int64_t size : sizes) {
    append(size);
  }
}

void Shape::append(int64_t size) {
  CHECK(rank_ < kMaxRank && size >= 0) << "rank " << rank_ << ", size " << size;
  sizes_[static_cast<size_t>(rank_++)] = size;
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (int i = 0; i < rank_; ++i) {
    product *= (*this)[i];
  }
  return product;
}

std::string Shape::to_string() const {
  return fmt::format("[{}]", fmt::join(sizes_.begin(), sizes_.begin() + rank_, ", "));
}

}  // namespace logitlab
