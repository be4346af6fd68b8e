#include "models/weight_totals.h"

#include "tensor/dtype.h"

namespace logitlab {

void WeightTotals::leave_out(int64_t count, std::span<const Tensor> matrices) {
  active_parameter_count -= count * matrices.front().shape.elements();
  weight_bytes_per_token -= static_cast<size_t>(count) * matrices.front().bytes();
}

void WeightTotals::fill(ModelPlan* plan) const {
  plan->parameter_count = parameter_count;
  plan->active_parameter_count = active_parameter_count;
  plan->weight_bytes = weight_bytes;
  plan->weight_bytes_per_token = weight_bytes_per_token;
}

WeightTotals weight_totals(std::span<const WeightEntry> entries, const Tensor& embedding,
                           bool has_own_head) {
  WeightTotals totals;
  for (const WeightEntry& entry : entries) {
    const int64_t elements = entry.shape.elements();
    totals.parameter_count += elements;
    totals.weight_bytes += entry.bytes;
    totals.weight_bytes_per_token +=
        entry.is_values ? row_bytes(entry.stored, elements) : entry.bytes;
  }
  totals.active_parameter_count = totals.parameter_count;
  if (has_own_head) {
    totals.active_parameter_count -= embedding.shape.elements() - embedding.columns();
    totals.weight_bytes_per_token -= embedding.bytes() - embedding.row_stride_bytes();
  }
  return totals;
}

}  // namespace logitlab
