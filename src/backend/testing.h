// What the tests and benches of the backends share: random tensors of every type of weight.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace logitlab {

inline constexpr DType kWeightTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// Uniform in [-1, 1).
[[nodiscard]] std::vector<float> random_floats(int64_t n, uint32_t seed);

// A [rows, columns] matrix and its memory, which starts one byte off every alignment.
class RandomWeight {
 public:
  // Random floats for the plain types; for blocks, random bytes with scales up to about `scale`.
  RandomWeight(DType dtype, int64_t rows, int64_t columns, uint32_t seed, float scale = 0.02F);

  [[nodiscard]] const Tensor& tensor() const { return tensor_; }
  // [rows, columns], as row_to_float reads them.
  [[nodiscard]] std::vector<float> floats() const;

 private:
  std::vector<std::byte> bytes_;
  Tensor tensor_;
};

// One sequence's keys and values of one layer: random, in pages.
class RandomKv {
 public:
  RandomKv(int64_t positions, int64_t page_positions, int64_t n_kv_heads, int64_t head_dim,
           uint32_t seed);

  [[nodiscard]] const KvView& view() const { return view_; }
  [[nodiscard]] const float* key(int64_t position, int64_t kv_head) const;
  // Values with their signs dropped.
  void make_values_positive();

 private:
  int64_t page_positions_;
  int64_t head_dim_;
  std::vector<std::vector<float>> key_pages_;
  std::vector<std::vector<float>> value_pages_;
  std::vector<const float*> key_pointers_;
  std::vector<const float*> value_pointers_;
  KvView view_;
};

}  // namespace logitlab
