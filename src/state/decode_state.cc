#include "state/decode_state.h"

#include <utility>

#include "base/check.h"

namespace logitlab {

DecodeState::DecodeState(std::vector<LayerStateKind> kinds, const KvShape& kv) : kv_(kv) {
  int64_t n_kv = 0;
  for (const LayerStateKind kind : kinds) {
    kv_layers_.push_back(kind == LayerStateKind::kKv ? n_kv++ : -1);
  }
  CHECK(n_kv == kv.n_layers) << n_kv << " attention layers, KV shape has " << kv.n_layers;
}

DecodeState::DecodeState(std::vector<int64_t> kv_layers, KvCache kv, int64_t length)
    : kv_layers_(std::move(kv_layers)), kv_(std::move(kv)), length_(length) {}

void DecodeState::advance(int64_t n) {
  kv_.advance(n);
  length_ += n;
}

void DecodeState::truncate(int64_t length) {
  kv_.truncate(length);
  length_ = length;
}

DecodeState DecodeState::fork() const {
  return DecodeState(kv_layers_, kv_.fork(), length_);
}

int64_t DecodeState::kv_layer(int64_t layer) const {
  const int64_t index = kv_layers_.at(static_cast<size_t>(layer));
  CHECK(index >= 0) << "layer " << layer << " keeps no keys and values";
  return index;
}

}  // namespace logitlab
