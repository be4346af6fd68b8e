#include "backend/testing.h"

#include <cmath>
#include <cstring>

#include "tensor/dtype.h"

namespace logitlab {
namespace {

// Where a block keeps its half floats; -1 for none.
struct HalfOffsets {
  int first = -1;
  int second = -1;
};

HalfOffsets half_offsets(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
      return {0, -1};
    case DType::kQ6_K:
      return {208, -1};
    default:
      return {0, 2};
  }
}

}  // namespace

std::vector<float> random_floats(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) {
    value = uniform(random);
  }
  return values;
}

RandomWeight::RandomWeight(DType dtype, int64_t rows, int64_t columns, uint32_t seed, float scale) {
  const size_t n_bytes = static_cast<size_t>(rows) * row_bytes(dtype, columns);
  bytes_.resize(n_bytes + 1);
  std::byte* data = bytes_.data() + 1;
  tensor_ = Tensor{data, dtype, Shape{rows, columns}};
  if (!traits(dtype).is_quantised) {
    const std::vector<float> values = random_floats(rows * columns, seed);
    row_from_float(dtype, values.data(), data, rows * columns);
    return;
  }
  std::mt19937 random(seed);
  for (size_t i = 0; i < n_bytes; ++i) {
    data[i] = static_cast<std::byte>(random() & 0xFFU);
  }
  std::uniform_real_distribution<float> uniform(-scale, scale);
  const HalfOffsets offsets = half_offsets(dtype);
  for (size_t block = 0; block < n_bytes; block += traits(dtype).block_bytes) {
    for (const int offset : {offsets.first, offsets.second}) {
      if (offset >= 0) {
        const uint16_t bits = float_to_f16(uniform(random));
        std::memcpy(data + block + offset, &bits, sizeof(bits));
      }
    }
  }
}

std::vector<float> RandomWeight::floats() const {
  const int64_t n = tensor_.columns();
  std::vector<float> values(static_cast<size_t>(tensor_.rows() * n));
  for (int64_t r = 0; r < tensor_.rows(); ++r) {
    row_to_float(tensor_.dtype, tensor_.row(r), values.data() + r * n, n);
  }
  return values;
}

RandomKv::RandomKv(int64_t positions, int64_t page_positions, int64_t n_kv_heads, int64_t head_dim,
                   uint32_t seed)
    : page_positions_(page_positions), head_dim_(head_dim) {
  const int64_t n_pages = (positions + page_positions - 1) / page_positions;
  const int64_t n = n_kv_heads * page_positions * head_dim;
  for (int64_t page = 0; page < n_pages; ++page) {
    const auto page_seed = seed + 2 * static_cast<uint32_t>(page);
    key_pages_.push_back(random_floats(n, page_seed));
    value_pages_.push_back(random_floats(n, page_seed + 1));
  }
  // What a page holds past the last position is not to be read.
  for (int64_t p = positions; p < n_pages * page_positions; ++p) {
    for (int64_t h = 0; h < n_kv_heads; ++h) {
      const auto begin = (h * page_positions + p % page_positions) * head_dim;
      std::fill_n(key_pages_.back().begin() + begin, head_dim, NAN);
      std::fill_n(value_pages_.back().begin() + begin, head_dim, NAN);
    }
  }
  for (int64_t page = 0; page < n_pages; ++page) {
    key_pointers_.push_back(key_pages_[static_cast<size_t>(page)].data());
    value_pointers_.push_back(value_pages_[static_cast<size_t>(page)].data());
  }
  view_ = KvView{key_pointers_.data(), value_pointers_.data(), page_positions};
}

const float* RandomKv::key(int64_t position, int64_t kv_head) const {
  return key_pointers_[static_cast<size_t>(position / page_positions_)] +
         (kv_head * page_positions_ + position % page_positions_) * head_dim_;
}

void RandomKv::make_values_positive() {
  for (std::vector<float>& page : value_pages_) {
    for (float& value : page) {
      value = std::fabs(value);
    }
  }
}

}  // namespace logitlab
