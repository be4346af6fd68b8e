// Sums over a model's weights, the same for every architecture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "models/model.h"
#include "tensor/tensor.h"

namespace logitlab {

// As ModelPlan says of its fields of these names.
struct WeightTotals {
  int64_t parameter_count = 0;
  int64_t active_parameter_count = 0;
  size_t weight_bytes = 0;
  size_t weight_bytes_per_token = 0;

  // `count` of `matrices` are idle in a step of one sequence; all have the same size.
  void leave_out(int64_t count, std::span<const Tensor> matrices);
  void fill(ModelPlan* plan) const;
};

// has_own_head: the embedding is a table of its own, of which a token reads one row. Bytes per
// token take norms, biases and the like as the file has them: it is the file's figure, not that of
// their float32 copies.
[[nodiscard]] WeightTotals weight_totals(std::span<const WeightEntry> entries,
                                         const Tensor& embedding, bool has_own_head);

}  // namespace logitlab
