#include "state/decode_state.h"

#include <utility>

#include "base/check.h"

namespace logitlab {

DecodeState::DecodeState(std::vector<LayerStateKind> kinds, const KvShape& kv,
                         const MambaStateShape& mamba)
    : kv_(kv), mamba_(mamba) {
  int64_t n_kv = 0;
  int64_t n_mamba = 0;
  for (const LayerStateKind kind : kinds) {
    const int64_t index = kind == LayerStateKind::kKv      ? n_kv++
                          : kind == LayerStateKind::kMamba ? n_mamba++
                                                           : -1;
    layers_.push_back({kind, index});
  }
  has_mamba_ = n_mamba > 0;
  CHECK(n_kv == kv.n_layers) << n_kv << " attention layers, KV shape has " << kv.n_layers;
  CHECK(n_mamba == mamba.n_layers) << n_mamba << " Mamba layers, shape has " << mamba.n_layers;
}

DecodeState::DecodeState(std::vector<Layer> layers, bool has_mamba, KvCache kv, MambaState mamba,
                         int64_t length)
    : layers_(std::move(layers)),
      has_mamba_(has_mamba),
      kv_(std::move(kv)),
      mamba_(std::move(mamba)),
      length_(length) {}

DecodeState::DecodeState(std::unique_ptr<DeviceState> device)
    : kv_(KvShape{}), mamba_(MambaStateShape{}), device_(std::move(device)) {
  CHECK(device_ != nullptr);
}

Status DecodeState::reserve(int64_t n) {
  if (device_ != nullptr) {
    return device_->reserve(n);
  }
  RETURN_IF_ERROR(mamba_.make_writable());
  return kv_.reserve(n);
}

void DecodeState::advance(int64_t n) {
  CHECK(device_ == nullptr) << "a device counts its own positions";
  kv_.advance(n);
  length_ += n;
}

void DecodeState::truncate(int64_t length) {
  if (device_ != nullptr) {
    device_->truncate(length);
    return;
  }
  CHECK(can_truncate() || length == 0 || length == length_)
      << "a state with Mamba layers cannot go back from " << length_ << " to " << length;
  kv_.truncate(length);
  if (length == 0) {
    mamba_.reset();
  }
  length_ = length;
}

DecodeState DecodeState::fork() const {
  if (device_ != nullptr) {
    return DecodeState(device_->fork());
  }
  return DecodeState(layers_, has_mamba_, kv_.fork(), mamba_.fork(), length_);
}

int64_t DecodeState::kv_layer(int64_t layer) const {
  const Layer& entry = layers_.at(static_cast<size_t>(layer));
  CHECK(entry.kind == LayerStateKind::kKv) << "layer " << layer << " keeps no keys and values";
  return entry.index;
}

int64_t DecodeState::mamba_layer(int64_t layer) const {
  const Layer& entry = layers_.at(static_cast<size_t>(layer));
  CHECK(entry.kind == LayerStateKind::kMamba) << "layer " << layer << " keeps no SSM state";
  return entry.index;
}

}  // namespace logitlab
