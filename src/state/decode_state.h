// Everything that a model remembers of one sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/device_model.h"
#include "base/error.h"
#include "state/kv_cache.h"
#include "state/mamba_state.h"

namespace logitlab {

// What a layer keeps between steps.
enum class LayerStateKind { kNone, kKv, kMamba };

// One entry per layer of the model, in its order; or, of a model that lies on a device, what that
// device keeps. Move-only; one-thread.
class DecodeState {
 public:
  // `kinds`: one per layer; `kv`: shape of the attention layers (its n_layers is the number of
  // kKv); `mamba`: of the Mamba layers (its n_layers is the number of kMamba).
  DecodeState(std::vector<LayerStateKind> kinds, const KvShape& kv,
              const MambaStateShape& mamba = {});
  // All of it is in the memory of a device: length, reserve, truncate and fork are its own.
  // advance, kv, mamba and the layers' numbers are not for such a state (CHECK).
  explicit DecodeState(std::unique_ptr<DeviceState> device);
  DecodeState(DecodeState&&) = default;
  DecodeState& operator=(DecodeState&&) = default;

  // Positions that have gone through the model.
  [[nodiscard]] int64_t length() const { return device_ ? device_->length() : length_; }
  // Makes room for n more positions, and memory that no fork shares. kResourceExhausted: no memory;
  // the content is then as before.
  [[nodiscard]] Status reserve(int64_t n);
  void advance(int64_t n);

  // Whether truncate() can go to any length. False when a layer is a running summary (Mamba): to go
  // back, keep a fork() of an earlier moment and restore() it.
  [[nodiscard]] bool can_truncate() const {
    return device_ ? device_->can_truncate() : !has_mamba_;
  }
  // Forgets all after the first `length` positions: the state is then the same as if the later
  // tokens had never been seen. Without can_truncate() only 0 and length() are lengths (CHECK).
  void truncate(int64_t length);

  // An independent state with the same content, a snapshot; later changes to one do not show in the
  // other. Cheap: memory is shared until one of the two is written.
  [[nodiscard]] DecodeState fork() const;
  // Becomes as `snapshot` is, a state of the same model.
  void restore(const DecodeState& snapshot) { *this = snapshot.fork(); }

  // Null for a state in host memory.
  [[nodiscard]] DeviceState* device() { return device_.get(); }
  [[nodiscard]] const DeviceState* device() const { return device_.get(); }
  [[nodiscard]] KvCache& kv() { return kv_; }
  [[nodiscard]] const KvCache& kv() const { return kv_; }
  [[nodiscard]] MambaState& mamba() { return mamba_; }
  [[nodiscard]] const MambaState& mamba() const { return mamba_; }
  // Number of `layer` among the attention layers; the layer's kind must be kKv (CHECK).
  [[nodiscard]] int64_t kv_layer(int64_t layer) const;
  // Number of `layer` among the Mamba layers; the layer's kind must be kMamba (CHECK).
  [[nodiscard]] int64_t mamba_layer(int64_t layer) const;
  [[nodiscard]] size_t bytes() const {
    return device_ ? device_->bytes() : kv_.bytes() + mamba_.bytes();
  }

 private:
  // Index among the layers of its kind, and the kind.
  struct Layer {
    LayerStateKind kind;
    int64_t index;
  };
  DecodeState(std::vector<Layer> layers, bool has_mamba, KvCache kv, MambaState mamba,
              int64_t length);

  std::vector<Layer> layers_;
  bool has_mamba_ = false;
  KvCache kv_;
  MambaState mamba_;
  int64_t length_ = 0;
  std::unique_ptr<DeviceState> device_;  // in place of all above
};

}  // namespace logitlab
