// Convolution and SSM state of one sequence's Mamba-2 layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "base/error.h"
#include "tensor/tensor.h"

namespace logitlab {

struct MambaStateShape {
  int64_t n_layers = 0;  // Mamba layers only, numbered from 0
  Mamba2Shape mixer;     // the same for all of them

  // Floats of one layer.
  [[nodiscard]] int64_t conv_floats() const { return (mixer.conv_kernel - 1) * mixer.conv_size(); }
  [[nodiscard]] int64_t ssm_floats() const { return mixer.inner_size() * mixer.state_size; }
};

// Float32, of a size that does not depend on the sequence's length. It is a running summary: it
// cannot be cut back, only copied. Forks share memory until one of them is made writable.
// One-thread. Move-only.
class MambaState {
 public:
  explicit MambaState(const MambaStateShape& shape);
  MambaState(MambaState&&) = default;
  MambaState& operator=(MambaState&&) = default;
  MambaState(const MambaState&) = delete;
  MambaState& operator=(const MambaState&) = delete;

  // Gives the state memory of its own: zeros at the start, a copy when a fork shares it.
  // kResourceExhausted when memory is not to be had; the state is then as before.
  [[nodiscard]] Status make_writable();

  // Of Mamba layer `layer`, as Mamba2Span wants them. After make_writable, until the next fork.
  [[nodiscard]] float* conv(int64_t layer);
  [[nodiscard]] float* ssm(int64_t layer);

  // As before the first token.
  void reset() { memory_.reset(); }
  // A second state with the same content. O(1); the copy is made when one of the two is written.
  [[nodiscard]] MambaState fork() const;

  // Bytes held (shared ones counted in full); 0 before the first make_writable.
  [[nodiscard]] size_t bytes() const { return memory_ == nullptr ? 0 : bytes_for(shape_); }
  [[nodiscard]] static size_t bytes_for(const MambaStateShape& shape);

 private:
  [[nodiscard]] float* layer_start(int64_t layer);

  MambaStateShape shape_;
  std::shared_ptr<Buffer> memory_;  // [n_layers][conv, ssm]; null: all zeros
};

}  // namespace logitlab
