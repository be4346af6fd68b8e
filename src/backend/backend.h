// The ops that a device offers to the layers of nn/. One Backend per device; `reference/` is the
// scalar one that the others are compared with.
//
// Numbers: activations are float32, row-major; weights are of any is_weight_type(); sums are
// float32 (reference: double, rounded at the end). The order in which an output is summed depends
// on its length alone, never on the number of rows, of threads, or on the neighbours in the batch,
// so a row's result is the same bits in any batch.
//
// Pointers are host memory here, owned by the caller, not aliased unless said. Sizes are trusted:
// the loader has checked them against the weights.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "logitlab/types.h"
#include "tensor/tensor.h"

namespace logitlab {

class Backend;
class DeviceModel;
struct DeviceModelSpec;
struct DeviceLoadOptions;

// What every op needs besides its arguments. One-thread; lives as long as one engine.
struct ExecContext {
  const Backend& backend;
  ThreadPool& threads;
};

enum class Op { kEmbed, kLinear, kRmsNorm, kRope, kAttention, kSiluMul, kActivate, kMamba2 };

// One matrix that multiplies the shared input of a `linear` call.
struct LinearPart {
  Tensor weight;                // [out, in]
  const float* bias = nullptr;  // [out] or none
  float* out = nullptr;         // [rows, out], row stride `out` columns
  // True: out += W x + b (the residual add); false: out = W x + b.
  bool accumulate = false;
};

// One product of its own input; a `grouped_linear` call has many.
struct GroupedPart {
  Tensor weight;                // [out, in]
  const float* bias = nullptr;  // [out] or none
  const float* x = nullptr;     // [rows, in]
  int64_t rows = 0;             // may be 0
  float* out = nullptr;         // [rows, out]; not aliased with any x
};

enum class Activation {
  kRelu2,  // max(x, 0)^2
  kSilu,   // x * sigmoid(x)
};

enum class RopeLayout {
  kHalfSplit,    // pairs (v[i], v[i + d/2]): Hugging Face checkpoints
  kInterleaved,  // pairs (v[2i], v[2i+1]): GGUF files of architectures whose q and k rows are
                 // permuted
};

// One sequence's keys and values of one layer, in pages: page p holds the positions
// [p * page_positions, (p + 1) * page_positions) as [n_kv_heads, page_positions, head_dim] floats.
struct KvView {
  const float* const* key_pages = nullptr;
  const float* const* value_pages = nullptr;
  int64_t page_positions = 0;
};

// What one query row may see: the positions [first, last] of its sequence.
struct AttentionRow {
  const KvView* kv = nullptr;
  int64_t first = 0;
  int64_t last = 0;
};

struct AttentionShape {
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;  // divides n_heads; query head j reads kv head j / (n_heads / n_kv_heads)
  int64_t head_dim = 0;
  float scale = 0;  // multiplies q . k
};

// Sizes of a Mamba-2 mixer. n_groups divides n_heads; head h reads B and C of group
// h / (n_heads / n_groups).
struct Mamba2Shape {
  int64_t n_heads = 0;
  int64_t head_dim = 0;
  int64_t state_size = 0;
  int64_t n_groups = 0;
  int64_t conv_kernel = 0;  // taps, at least 1

  [[nodiscard]] int64_t inner_size() const { return n_heads * head_dim; }
  // Channels of the convolution: x, B and C.
  [[nodiscard]] int64_t conv_size() const { return inner_size() + 2 * n_groups * state_size; }
  // Columns of the input projection: z | x | B | C | dt.
  [[nodiscard]] int64_t projected_size() const { return inner_size() + conv_size() + n_heads; }
};

struct Mamba2Weights {
  const float* conv_weight = nullptr;  // [conv_size, conv_kernel]; the last tap is the newest token
  const float* conv_bias = nullptr;    // [conv_size] or none
  const float* dt_bias = nullptr;      // [n_heads]
  const float* a = nullptr;            // [n_heads], -exp(A_log), < 0
  const float* d = nullptr;            // [n_heads]
  const float* norm_weight = nullptr;  // [inner_size]
  float norm_eps = 0;
  // The time step is clamped to these after softplus.
  float time_step_low = 0;
  float time_step_high = std::numeric_limits<float>::infinity();
};

// Consecutive rows of a batch that belong to one sequence, with its state of this layer.
struct Mamba2Span {
  int64_t first_row = 0;
  int64_t n_rows = 0;
  float* conv = nullptr;  // [conv_kernel - 1, conv_size]: inputs of the last tokens, oldest first
  float* ssm = nullptr;   // [n_heads, head_dim, state_size]
};

// Immutable and thread-safe; the caller gives the threads.
class Backend {
 public:
  virtual ~Backend() = default;

  // "reference", "cpu".
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Instruction set that the kernels use: "scalar", "AVX2", "AVX3_ZEN4", "NEON".
  [[nodiscard]] virtual std::string_view isa() const = 0;
  // Asked at load for every weight; a missing op refuses the load by name. kEmbed and kLinear take
  // every is_weight_type(); the other ops take their weights as floats: kF32 alone.
  [[nodiscard]] virtual bool supports(Op op, DType weight) const = 0;

  // out[r, :] = table[ids[r], :] as floats. table: [vocab_size, d]; ids in range (checked by
  // callers).
  virtual void embed(ExecContext& context, const Tensor& table, std::span<const TokenId> ids,
                     float* out) const = 0;

  // Each part: out[r, o] = sum_i x[r, i] * weight[o, i] (+ bias[o]) (+ out[r, o]).
  // x: [rows, in]; all parts share `in`. Parts run as one parallel region.
  virtual void linear(ExecContext& context, const float* x, int64_t rows,
                      std::span<const LinearPart> parts) const = 0;

  // out[r, i] = weight[i] * x[r, i] / sqrt(mean_i(x[r, i]^2) + eps). x, out: [rows, d]; may alias.
  virtual void rms_norm(ExecContext& context, const float* x, const float* weight, float eps,
                        int64_t rows, int64_t d, float* out) const = 0;

  // Rotates every head of every row in place. x: [rows, n_heads, head_dim];
  // cosine, sine: [rows, rotary_dim / 2]; dimensions past rotary_dim are left alone.
  // A pair (a, b) becomes (a cos - b sin, b cos + a sin), each product and sum rounded (no FMA).
  virtual void rope(ExecContext& context, float* x, const float* cosine, const float* sine,
                    int64_t rows, int64_t n_heads, int64_t head_dim, int64_t rotary_dim,
                    RopeLayout layout) const = 0;

  // Softmax attention, positions taken in ascending order. q, out: [rows, n_heads, head_dim];
  // one AttentionRow per row.
  virtual void attention(ExecContext& context, const float* q, std::span<const AttentionRow> rows,
                         const AttentionShape& shape, float* out) const = 0;

  // out[i] = gate[i] * sigmoid(gate[i]) * up[i] for n values; out may alias gate.
  virtual void silu_mul(ExecContext& context, const float* gate, const float* up, int64_t n,
                        float* out) const = 0;

  // Each part: out[r, o] = sum_i x[r, i] * weight[o, i] (+ bias[o]), the same bits as `linear`
  // gives. All parts run as one parallel region, so that many small products (the experts of a
  // mixture) do not wait for each other.
  virtual void grouped_linear(ExecContext& context, std::span<const GroupedPart> parts) const = 0;

  // x[i] = activation(x[i]) for n values.
  virtual void activate(ExecContext& context, Activation activation, float* x, int64_t n) const = 0;

  // A Mamba-2 mixer between its two projections, for rows of several sequences. For each span and
  // each of its rows t in turn, with z | x | B | C | dt = projected[t]:
  //   v      = silu(conv_bias + sum_k conv_weight[:, k] * (x | B | C)[t - K + 1 + k])
  //   x|B|C  = v, and the state's `conv` keeps the inputs of the last K - 1 tokens
  //   step   = clamp(softplus(dt + dt_bias), time_step_low, time_step_high)          per head
  //   S      = exp(step * a) * S + step * x (outer) B, the state's `ssm`              per head
  //   y      = S C + d * x                                                            per head
  //   q      = y * silu(z)
  //   out[t] = norm_weight * q / sqrt(mean(q^2 of its group) + norm_eps)
  // where the norm's groups are n_groups equal runs of inner_size. projected: [rows,
  // projected_size], used as work space; out: [rows, inner_size], not aliased. Spans do not overlap
  // and have distinct states; one may be empty. All of it in float32 or better.
  //
  // A span's result depends on its own rows and state alone. Cutting a sequence into other spans
  // changes the order of sums (a span of several rows may be scanned in chunks): see
  // docs/numerics.md for the bound.
  virtual void mamba2(ExecContext& context, const Mamba2Weights& weights, const Mamba2Shape& shape,
                      std::span<const Mamba2Span> spans, float* projected, float* out) const = 0;

  // Whether this device takes whole models (backend/device_model.h) instead of the ops above, which
  // it then has not got (CHECK); supports() says which weights it takes.
  [[nodiscard]] virtual bool runs_whole_models() const { return false; }
  // Checks the spec and the memory, then brings the weights to the device. kUnsupported: something
  // that this device has no code for; kResourceExhausted: says how much is missing; both before any
  // weight is read.
  [[nodiscard]] virtual Result<std::unique_ptr<DeviceModel>> make_device_model(
      const DeviceModelSpec& spec, const DeviceLoadOptions& options) const;
};

// The scalar reference.
[[nodiscard]] std::unique_ptr<Backend> make_reference_backend();

// The SIMD backend with the best instruction set of this machine, or the one named `isa` (as isa()
// spells it; $LOGITLAB_CPU_ISA is read by make_backend). kInvalidArgument: not built or not
// supported by this CPU, with the list of those that are.
[[nodiscard]] Result<std::unique_ptr<Backend>> make_cpu_backend(std::string_view isa = {});

// Device number `ordinal` of CUDA: whole models alone. kUnavailable: a build without CUDA, no
// driver, no device of that number, or one that this build was not compiled for; the message says
// what is there and what is needed.
[[nodiscard]] Result<std::unique_ptr<Backend>> make_cuda_backend(int ordinal);

// Instruction sets that make_cpu_backend accepts on this machine, best first.
[[nodiscard]] std::vector<std::string> cpu_isas();

// device: "cpu", "auto" (the best there is), "reference", "cuda:N". kUnavailable for a device that
// this build or machine has not got; kInvalidArgument for a name of no device.
[[nodiscard]] Result<std::unique_ptr<Backend>> make_backend(std::string_view device);

}  // namespace logitlab
