// Layers: weights plus the Backend calls that apply them. Values are views; the model owns memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "nn/rope.h"
#include "state/decode_state.h"
#include "tensor/tensor.h"

namespace logitlab {

// y = W x + b.
struct Linear {
  Tensor weight;                // [out, in]
  const float* bias = nullptr;  // [out] or none

  [[nodiscard]] int64_t out() const { return weight.rows(); }
  // As a part of a shared-input call that writes `out` or adds to it.
  [[nodiscard]] LinearPart part(float* out, bool accumulate = false) const {
    return {weight, bias, out, accumulate};
  }
};

// y = w x / sqrt(mean(x^2) + eps), over the last dimension.
struct RmsNorm {
  const float* weight = nullptr;  // [d]
  int64_t d = 0;
  float eps = 0;

  void apply(ExecContext& context, const float* x, int64_t rows, float* out) const {
    context.backend.rms_norm(context, x, weight, eps, rows, d, out);
  }
};

// Consecutive rows of a forward pass that belong to one sequence.
struct RowSpan {
  DecodeState* state = nullptr;
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

// The rows of one forward pass, the same for every layer.
struct ForwardRows {
  int64_t rows = 0;
  std::vector<int64_t> positions;    // [rows]
  std::vector<DecodeState*> states;  // [rows], the state that each row belongs to
  std::vector<RowSpan> spans;        // the same rows, sequence by sequence
  std::vector<float> cosine;         // [rows, rotary_dim / 2]
  std::vector<float> sine;
};

// Grouped-query attention with a KV cache, and with RoPE unless the model has no positions.
struct Attention {
  Linear q;  // [n_heads * head_dim, d]
  Linear k;  // [n_kv_heads * head_dim, d]
  Linear v;
  Linear o;        // [d, n_heads * head_dim]
  RmsNorm q_norm;  // over each head's vector, before RoPE; weight null: none
  RmsNorm k_norm;
  AttentionShape shape;
  int64_t window = 0;  // a row sees its last `window` positions, itself included; 0: all

  // residual [rows, d] += o(attention(x)). x: [rows, d], already normed. Stores the rows' keys and
  // values in their states (`layer` counts all layers of the model). rope: null for none.
  void apply(ExecContext& context, const Rope* rope, const ForwardRows& rows, int64_t layer,
             const float* x, float* residual) const;
};

// down(silu(gate x) * up x).
struct GatedMlp {
  Linear gate;  // [f, d]
  Linear up;    // [f, d]
  Linear down;  // [d, f]

  // residual [rows, d] += the above. x: [rows, d], already normed.
  void apply(ExecContext& context, int64_t rows, const float* x, float* residual) const;
};

}  // namespace logitlab
