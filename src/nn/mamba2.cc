#include "nn/mamba2.h"

#include <vector>

#include "nn/work_rows.h"

namespace logitlab {

void Mamba2::apply(ExecContext& context, const ForwardRows& rows, int64_t layer, const float* x,
                   float* residual) const {
  const Backend& backend = context.backend;
  WorkRows projected(rows.rows, shape.projected_size());
  const LinearPart in = in_proj.part(projected.data());
  backend.linear(context, x, rows.rows, {&in, 1});
  std::vector<Mamba2Span> spans;
  spans.reserve(rows.spans.size());
  for (const RowSpan& span : rows.spans) {
    MambaState& state = span.state->mamba();
    const int64_t index = span.state->mamba_layer(layer);
    spans.push_back({span.first_row, span.n_rows, state.conv(index), state.ssm(index)});
  }
  WorkRows mixed(rows.rows, shape.inner_size());
  backend.mamba2(context, weights, shape, spans, projected.data(), mixed.data());
  const LinearPart out = out_proj.part(residual, /*accumulate=*/true);
  backend.linear(context, mixed.data(), rows.rows, {&out, 1});
}

}  // namespace logitlab
