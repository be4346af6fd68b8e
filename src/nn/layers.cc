#include "nn/layers.h"

#include <algorithm>
#include <array>

#include "nn/work_rows.h"

namespace logitlab {

void Attention::apply(ExecContext& context, const Rope* rope, const ForwardRows& rows,
                      int64_t layer, const float* x, float* residual) const {
  const Backend& backend = context.backend;
  const int64_t n = rows.rows;
  const int64_t head_dim = shape.head_dim;
  WorkRows queries(n, q.out());
  WorkRows keys(n, k.out());
  WorkRows values(n, v.out());
  const std::array<LinearPart, 3> parts = {q.part(queries.data()), k.part(keys.data()),
                                           v.part(values.data())};
  backend.linear(context, x, n, parts);
  if (q_norm.weight != nullptr) {
    q_norm.apply(context, queries.data(), n * shape.n_heads, queries.data());
    k_norm.apply(context, keys.data(), n * shape.n_kv_heads, keys.data());
  }
  if (rope != nullptr) {
    backend.rope(context, queries.data(), rows.cosine.data(), rows.sine.data(), n, shape.n_heads,
                 head_dim, rope->rotary_dim(), rope->layout());
    backend.rope(context, keys.data(), rows.cosine.data(), rows.sine.data(), n, shape.n_kv_heads,
                 head_dim, rope->rotary_dim(), rope->layout());
  }

  std::vector<AttentionRow> spans(static_cast<size_t>(n));
  for (int64_t row = 0; row < n; ++row) {
    const auto r = static_cast<size_t>(row);
    KvCache& kv = rows.states[r]->kv();
    const int64_t kv_layer = rows.states[r]->kv_layer(layer);
    kv.store(kv_layer, rows.positions[r], keys.row(row), values.row(row));
    const int64_t first = window > 0 ? std::max<int64_t>(0, rows.positions[r] - window + 1) : 0;
    spans[r] = {&kv.view(kv_layer), first, rows.positions[r]};
  }
  WorkRows mixed(n, q.out());
  backend.attention(context, queries.data(), spans, shape, mixed.data());
  const LinearPart out = o.part(residual, /*accumulate=*/true);
  backend.linear(context, mixed.data(), n, {&out, 1});
}

void GatedMlp::apply(ExecContext& context, int64_t rows, const float* x, float* residual) const {
  const Backend& backend = context.backend;
  WorkRows gated(rows, gate.out());
  WorkRows upped(rows, up.out());
  const std::array<LinearPart, 2> parts = {gate.part(gated.data()), up.part(upped.data())};
  backend.linear(context, x, rows, parts);
  backend.silu_mul(context, gated.data(), upped.data(), rows * gate.out(), gated.data());
  const LinearPart out = down.part(residual, /*accumulate=*/true);
  backend.linear(context, gated.data(), rows, {&out, 1});
}

}  // namespace logitlab
