// A whole model in the memory of a device that runs it there: prefill and decode without a host in
// the step. A backend that can do this (CUDA) is asked for one at load; the others run the layers
// of nn/ op by op.
//
// Numbers: matrices are BF16 on the device, vectors and the residual float32, keys and values BF16,
// convolution and SSM states float32. One row of a sequence goes through the decode kernels, whose
// sums have an order that depends on their length alone: a sequence's result is the same bits alone
// and in any batch. Several rows of a sequence go through the prefill kernels, whose sums have
// another order: docs/numerics.md has the bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "logitlab/types.h"
#include "tensor/tensor.h"

namespace logitlab {

// ---- what a model consists of; host memory, needed until upload is done ------------------------

// y = W x + b. Several matrices of one input stand in one list: their rows follow one another.
struct DeviceLinear {
  std::vector<Tensor> weights;       // each [out_i, in]
  std::vector<const float*> biases;  // one per weight, null for none; or empty
};

struct DeviceAttention {
  DeviceLinear qkv;  // q, k, v
  DeviceLinear o;
  const float* q_norm = nullptr;  // [head_dim] or none, before RoPE
  const float* k_norm = nullptr;
  float qk_norm_eps = 0;
  AttentionShape shape;
  int64_t window = 0;     // a row sees its last `window` positions; 0: all
  bool has_rope = false;  // with the model's frequencies
};

// down(activation(up x)), or with a gate down(silu(gate x) * up x).
struct DeviceMlp {
  DeviceLinear gate;  // no weights: none
  DeviceLinear up;
  DeviceLinear down;
  Activation activation = Activation::kRelu2;
};

// As MixtureOfExperts of nn/moe.h, whose contract of routing and order of sums holds here too.
struct DeviceMixture {
  DeviceLinear router;
  const float* correction = nullptr;   // [n_experts] or none
  std::vector<Tensor> up;              // n_experts of [f, w]
  std::vector<Tensor> down;            // n_experts of [w, f]
  DeviceLinear latent_in, latent_out;  // no weights: none
  bool has_shared = false;
  DeviceMlp shared;
  int64_t n_chosen = 0;
  int64_t n_groups = 1;
  int64_t kept_groups = 1;
  bool normalises = true;
  float scale = 1.0F;
  Activation activation = Activation::kRelu2;
};

struct DeviceMamba {
  DeviceLinear in_proj, out_proj;
  Mamba2Weights weights;
  Mamba2Shape shape;
};

// residual += mixer(norm(residual)).
struct DeviceLayer {
  const float* norm = nullptr;  // [hidden_size]
  std::variant<DeviceMamba, DeviceAttention, DeviceMixture, DeviceMlp> mixer;
};

// A matrix whose data is null is filled on the device, for measuring full sizes without a file.
// Matrices are numbered from 0: embedding, head unless tied, then layer by layer: Mamba in_proj,
// out_proj; attention q, k, v, o; mixture router, every expert's up, every expert's down, latent
// in, latent out, shared (as an MLP); MLP gate, up, down. Element i (row-major) of matrix number n
// is
//   x = mix(mix(i) ^ mix(n + 1)), in 32 bits, with
//   mix(h): h ^= h >> 16; h *= 0x85ebca6b; h ^= h >> 13; h *= 0xc2b2ae35; h ^= h >> 16
//   ((x >> 8) - 2^23) * 0x1.1bc77ap-28f    a float product, rounded to BF16 (nearest even)
// uniform with standard deviation 0.02. Vectors that must be there and are null: norms and `d` 1,
// `a` -1, dt_bias -3, conv_weight 0.25.
struct DeviceModelSpec {
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  float norm_eps = 0;
  Tensor embedding;  // [vocab_size, hidden_size]
  Tensor head;       // [vocab_size, hidden_size]; not looked at when is_tied
  bool is_tied = false;
  const float* head_bias = nullptr;
  const float* final_norm = nullptr;
  std::vector<DeviceLayer> layers;  // a decoder layer of Llama is two: attention, MLP
  std::vector<float> inv_freq;      // [rotary_dim / 2]; empty: no RoPE
  RopeLayout rope_layout = RopeLayout::kHalfSplit;
  float rope_attention_factor = 1.0F;
};

struct DeviceLoadOptions {
  ThreadPool* threads = nullptr;     // that copy host memory; null: the caller's alone
  ProgressSink* progress = nullptr;  // null: none
  // Told of host memory that is going to be read, and of what is not needed any more. May be empty.
  std::function<void(const std::byte* data, size_t bytes)> will_need;
  std::function<void(const std::byte* data, size_t bytes)> release;
  // Called when the memory has been found and taken, before any weight is read. May be empty.
  std::function<Status()> prepare;
  size_t kv_bytes = 0;  // for keys and values of all sequences; 0: half of what is left, to 16 GiB
};

// ---- what runs on the device -------------------------------------------------------------------

// One sequence's memory on the device. One-thread, with its model.
class DeviceState {
 public:
  virtual ~DeviceState() = default;
  [[nodiscard]] virtual int64_t length() const = 0;
  // Room for n more positions that no fork shares. kResourceExhausted: the content is as before.
  [[nodiscard]] virtual Status reserve(int64_t n) = 0;
  [[nodiscard]] virtual bool can_truncate() const = 0;
  virtual void truncate(int64_t length) = 0;  // as DecodeState::truncate
  // Shares all memory; what one of the two will write is copied at its next reserve().
  [[nodiscard]] virtual std::unique_ptr<DeviceState> fork() const = 0;
  [[nodiscard]] virtual size_t bytes() const = 0;
};

struct DeviceChunk {
  DeviceState* state = nullptr;  // reserved for ids.size(); no two chunks share one
  std::span<const TokenId> ids;
  bool last_only = true;  // logits of the last row alone; false: of all rows
  bool no_logits = false;
};

// How the device chooses by itself in decode_steps.
struct DeviceDraw {
  bool samples = false;  // false: arg-max, equal ones: the lowest id
  float temperature = 1.0F;
  uint64_t seed = 0;
  uint32_t sequence_index = 0;
  uint32_t first_step = 0;  // number of the first token that is chosen
};

// What one kind of phase took, over the steps of a profile.
struct DevicePhase {
  std::string name;
  int64_t count = 0;  // launches a step
  // Weights that one step reads in them, and SSM states that it reads and writes; not keys and
  // values. A matrix counts once for all sequences, an expert's once if any of them chose it.
  double bytes = 0;
  double microseconds = 0;  // of one step, all launches of this kind
};

// Name of the phase that is all others, as DeviceModel::profile says.
inline constexpr std::string_view kDeviceWholeStep = "step";

struct DeviceMemory {
  size_t total_bytes = 0;  // of the device
  size_t free_bytes = 0;
  size_t weight_bytes = 0;  // of this model
  size_t state_bytes = 0;   // in use by its sequences
  size_t pool_bytes = 0;    // taken for sequences, used or not
  size_t scratch_bytes = 0;
  size_t room_bytes = 0;  // that states can take yet, sequences of a few thousand positions assumed
};

// Immutable weights; calls from one thread at a time.
class DeviceModel {
 public:
  virtual ~DeviceModel() = default;
  // Empty; takes no memory before it is reserved. Works while the model lives, may be freed later.
  [[nodiscard]] virtual std::unique_ptr<DeviceState> make_state() const = 0;
  // Bytes of a state of n positions.
  [[nodiscard]] virtual size_t state_bytes(int64_t n_positions) const = 0;
  // The longest chunk that goes through prefill at once; longer ones are cut.
  [[nodiscard]] virtual int64_t max_chunk() const = 0;
  // Appends the chunks to their states; logits [rows, vocab_size] in the order of the chunks, in
  // host memory with room for all rows that were asked for. On error no state has changed.
  [[nodiscard]] virtual Status forward(std::span<const DeviceChunk> chunks,
                                       float* logits) const = 0;
  // n_steps tokens for each of the sequences, 1 to kMostDeviceSequences, chosen on the device:
  // first goes in, its successor is chosen, goes in, and so on. states reserved for n_steps. out:
  // [n_states, n_steps]; kNoDeviceChoice where nothing can be drawn (a score that is NaN or +inf,
  // or all -inf), after which the sequence's ids and state mean nothing.
  [[nodiscard]] virtual Status decode_steps(std::span<DeviceState* const> states,
                                            std::span<const TokenId> first,
                                            std::span<const DeviceDraw> draws, int64_t n_steps,
                                            TokenId* out) const = 0;
  // Time per kind of phase of a decode step of these sequences (their content is undefined after),
  // with different tokens next. The last one is named kDeviceWholeStep: the others in one graph,
  // with the sum of their bytes; device_profile.h takes it apart.
  [[nodiscard]] virtual Result<std::vector<DevicePhase>> profile(
      std::span<DeviceState* const> states) const = 0;
  // Bytes per second of reading device memory, measured now.
  [[nodiscard]] virtual Result<double> measure_read_rate() const = 0;
  [[nodiscard]] virtual DeviceMemory memory() const = 0;
};

// Most sequences of one call of decode_steps, and what it says where it cannot choose.
inline constexpr size_t kMostDeviceSequences = 64;
inline constexpr TokenId kNoDeviceChoice = -1;

// Positions of a page of keys and values on a device, and bytes of one element.
inline constexpr int64_t kDevicePagePositions = 64;
inline constexpr int64_t kDeviceKvBytes = 2;

}  // namespace logitlab
