// How products of weights with activations are cut into tasks.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace logitlab {

// One part of a linear or grouped_linear call.
struct Product {
  Tensor weight;
  const float* bias = nullptr;
  const float* x = nullptr;  // [rows, columns padded to kDotPadding]
  int64_t rows = 0;
  float* out = nullptr;
  bool accumulate = false;
};

// The tasks of all products of a call, numbered one product after the other: each is a range of
// outputs of a product (and of its rows of x). Products of many rows come first, for their tasks
// are the longest.
class LinearTasks {
 public:
  // Products without rows or outputs have no tasks.
  LinearTasks(std::vector<Product> products, int n_threads);

  struct Task {
    const Product* product = nullptr;
    int64_t first_output = 0;
    int64_t n_outputs = 0;
    int64_t first_row = 0;
    int64_t n_rows = 0;
  };

  [[nodiscard]] int64_t size() const { return n_tasks_; }
  [[nodiscard]] Task task(int64_t index) const;
  // Most inputs, padded, of a product of several rows; 0 without one.
  [[nodiscard]] int64_t decoded_inputs() const { return decoded_inputs_; }

 private:
  struct Cut {
    int64_t first_task = 0;
    int64_t outputs = 0;  // of a task
    int64_t rows = 0;     // of a task
    int64_t row_tasks = 0;
  };

  std::vector<Product> products_;
  std::vector<Cut> cuts_;
  int64_t n_tasks_ = 0;
  int64_t decoded_inputs_ = 0;
};

}  // namespace logitlab
