// A Mamba-2 layer: two projections around the backend's mixer.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "nn/layers.h"

namespace logitlab {

struct Mamba2 {
  Linear in_proj;   // [projected_size, d]: rows z | x | B | C | dt
  Linear out_proj;  // [d, inner_size]
  Mamba2Weights weights;
  Mamba2Shape shape;

  // residual [rows, d] += out_proj(mixer(in_proj(x))). x: [rows, d], already normed. Moves the
  // states of the rows' sequences on (`layer` counts all layers of the model).
  void apply(ExecContext& context, const ForwardRows& rows, int64_t layer, const float* x,
             float* residual) const;
};

}  // namespace logitlab
