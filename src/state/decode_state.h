// Everything that a model remembers of one sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "state/kv_cache.h"

namespace logitlab {

// What a layer keeps between steps.
enum class LayerStateKind { kNone, kKv };

// One entry per layer of the model, in its order. Move-only; one-thread.
class DecodeState {
 public:
  // `kinds`: one per layer; `kv`: shape of the attention layers (its n_layers is the number of
  // kKv).
  DecodeState(std::vector<LayerStateKind> kinds, const KvShape& kv);
  DecodeState(DecodeState&&) = default;
  DecodeState& operator=(DecodeState&&) = default;

  // Positions that have gone through the model.
  [[nodiscard]] int64_t length() const { return length_; }
  [[nodiscard]] Status reserve(int64_t n) { return kv_.reserve(n); }
  void advance(int64_t n);

  // Forgets all after the first `length` positions. Exact for attention layers: the state is then
  // the same as if the later tokens had never been seen.
  void truncate(int64_t length);

  // An independent state with the same content; later changes to one do not show in the other.
  [[nodiscard]] DecodeState fork() const;

  [[nodiscard]] KvCache& kv() { return kv_; }
  [[nodiscard]] const KvCache& kv() const { return kv_; }
  // Number of `layer` among the attention layers; the layer's kind must be kKv (CHECK).
  [[nodiscard]] int64_t kv_layer(int64_t layer) const;
  [[nodiscard]] size_t bytes() const { return kv_.bytes(); }

 private:
  DecodeState(std::vector<int64_t> kv_layers, KvCache kv, int64_t length);

  std::vector<int64_t> kv_layers_;  // by layer; -1 for a layer without KV
  KvCache kv_;
  int64_t length_ = 0;
};

}  // namespace logitlab
