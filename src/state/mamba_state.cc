#include "state/mamba_state.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace logitlab {

MambaState::MambaState(const MambaStateShape& shape) : shape_(shape) {}

size_t MambaState::bytes_for(const MambaStateShape& shape) {
  if (shape.n_layers == 0) {
    return 0;
  }
  return static_cast<size_t>(shape.n_layers * (shape.conv_floats() + shape.ssm_floats())) *
         sizeof(float);
}

Status MambaState::make_writable() {
  const size_t wanted = bytes_for(shape_);
  if (wanted == 0 || (memory_ != nullptr && memory_.use_count() == 1)) {
    return {};
  }
  auto buffer = Buffer::allocate(wanted);
  if (!buffer) {
    return fail(ErrorCode::kResourceExhausted,
                "SSM state: no memory for the {} bytes of a sequence ({} Mamba layers)", wanted,
                shape_.n_layers);
  }
  auto memory = std::make_shared<Buffer>(std::move(*buffer));
  if (memory_ != nullptr) {
    std::memcpy(memory->data(), memory_->data(), wanted);
  }
  memory_ = std::move(memory);
  return {};
}

float* MambaState::layer_start(int64_t layer) {
  DCHECK(layer >= 0 && layer < shape_.n_layers);
  DCHECK(memory_ != nullptr && memory_.use_count() == 1);
  return reinterpret_cast<float*>(memory_->data()) +
         layer * (shape_.conv_floats() + shape_.ssm_floats());
}

float* MambaState::conv(int64_t layer) {
  return layer_start(layer);
}

float* MambaState::ssm(int64_t layer) {
  return layer_start(layer) + shape_.conv_floats();
}

MambaState MambaState::fork() const {
  MambaState copy(shape_);
  copy.memory_ = memory_;
  return copy;
}

}  // namespace logitlab
