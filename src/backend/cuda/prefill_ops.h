// What prefill's driver queues: one function per kernel or small chain. Device pointers throughout;
// nothing is allocated and the host waits for nothing. "Low" parts: x = high + low in BF16 parts.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "backend/cuda/layout.h"

namespace logitlab::cuda::chunk {

// What launches need to know of the device.
struct DeviceLimits {
  int n_processors = 0;
  int shared_bytes = 0;  // of one thread block, with opt-in
};

[[nodiscard]] cudaError_t read_limits(DeviceLimits* limits);

// What a product does with its sums s = a b^T + bias.
enum class Sink {
  kFloat,    // out (float) = s
  kAdd,      // out (float) += s
  kBf16,     // out (BF16) = s
  kRelu2,    // out (BF16) = max(s, 0)^2
  kSilu,     // out (BF16) = silu(s)
  kSiluMul,  // out (BF16) = silu(s[:, i]) * s[:, n + i]: b has 2 n rows
};

// Rows of products that have their own b each, sorted by it: rows [offsets[e], offsets[e + 1]) meet
// b + e * b_stride. Device memory; build_dispatch() writes it.
struct RowGroups {
  const int* offsets = nullptr;    // [n + 1]
  const int* tiles_64 = nullptr;   // [n + 1]: tiles of 64 rows before group e
  const int* tiles_128 = nullptr;  // [n + 1]: likewise of 128 rows
  int n = 0;                       // 0: one product
};

// out [m, n] = sink(a [m, k] b [n, k]^T). Row strides in elements; k, lda and the outputs' strides
// are multiples of 8 (float outputs: of 2), rows 16-byte aligned.
struct Product {
  const __nv_bfloat16* a = nullptr;
  const __nv_bfloat16* a_low = nullptr;  // null, or a second part of a: its product is added
  const int* a_rows = nullptr;           // null, or row r of the product reads row a_rows[r] of a
  int lda = 0;
  const __nv_bfloat16* b = nullptr;  // dense rows
  int64_t b_stride = 0;
  const float* bias = nullptr;
  void* out = nullptr;
  int ldo = 0;
  int m = 0, n = 0, k = 0;
  Sink sink = Sink::kFloat;
  RowGroups groups;
};

// Shapes of tiles that multiply_rows() has.
constexpr int kProductTiles = 5;

// tile: which of them, or -1: the one that an estimate finds fastest.
[[nodiscard]] cudaError_t multiply_rows(const DeviceLimits& limits, const Product& product,
                                        cudaStream_t stream, int tile = -1);

// residual[r, :] = table[ids[r], :]. residual: [rows, d].
[[nodiscard]] cudaError_t embed(const __nv_bfloat16* table, const int* ids, int rows, int d,
                                float* residual, cudaStream_t stream);

// high (+ low) = weight * x / sqrt(mean(x^2) + eps). x, high, low: [rows, d]; low may be null.
[[nodiscard]] cudaError_t norm_rows(const float* x, const float* weight, float eps, int rows, int d,
                                    __nv_bfloat16* high, __nv_bfloat16* low, cudaStream_t stream);

// Where the rows of a mixture go. n_pairs = rows * n_chosen.
struct Dispatch {
  int* chosen = nullptr;     // [rows, n_chosen] experts, ascending
  float* weights = nullptr;  // [rows, n_chosen]
  int* ranks = nullptr;      // [n_pairs] number within its expert, in order of rows
  int* places = nullptr;     // [n_pairs] in expert order
  int* sources = nullptr;    // [n_pairs] row that lies at a place
  int* counts = nullptr;     // [n_experts]
  int* offsets = nullptr;    // [n_experts + 1]
  int* tiles_64 = nullptr;   // [n_experts + 1]
  int* tiles_128 = nullptr;  // [n_experts + 1]
};

// logits: [rows, ld_logits].
[[nodiscard]] cudaError_t build_dispatch(const MoeLayer& layer, const float* logits, int ld_logits,
                                         int rows, const Dispatch& dispatch, cudaStream_t stream);

// sum[r, :] = sum over r's experts, ascending, of weight * outputs[place, :]; then residual[r, :]
// += sum, or with `mixed` that gets it as BF16. outputs: [n_pairs, w]; residual, mixed: [rows, w].
[[nodiscard]] cudaError_t combine(const MoeLayer& layer, const Dispatch& dispatch,
                                  const float* outputs, int rows, float* residual,
                                  __nv_bfloat16* mixed, cudaStream_t stream);

// Norms and rotates queries and keys, rounds them to BF16, and puts keys and values into the pages
// of positions sequence.length + r. qkv: [rows, ld_qkv]; queries: [rows, n_heads * head_dim].
[[nodiscard]] cudaError_t place_keys(const AttentionLayer& layer, const RopeTable& rope,
                                     const KvPool& kv, const Sequence& sequence, const float* qkv,
                                     int ld_qkv, int rows, __nv_bfloat16* queries,
                                     cudaStream_t stream);

// Causal attention of the rows over all positions up to their own. queries, out: [rows, n_heads *
// head_dim]. head_dim: a multiple of 8 up to 256.
[[nodiscard]] cudaError_t attend(const AttentionLayer& layer, const KvPool& kv,
                                 const Sequence& sequence, const __nv_bfloat16* queries, int rows,
                                 __nv_bfloat16* out, cudaStream_t stream);

// The scan's inner chunks: their borders are multiples of it among a sequence's positions.
constexpr int kScanRows = 32;

// The mixer of backend.h's mamba2, of rows of one sequence. All but `out` is work space.
struct MambaRows {
  float* projected = nullptr;  // [rows, ld_projected]: z | x | B | C | dt
  int ld_projected = 0;
  float* x = nullptr;  // [rows, ld_x]: convolved x, then y in its place
  int ld_x = 0;        // a multiple of 8
  // Convolved B | C as high and low parts: [rows, 2, ld_parts], each state padded with zeros to
  // padded_states, a multiple of 8.
  __nv_bfloat16* parts = nullptr;
  int ld_parts = 0;
  int padded_states = 0;
  float2* steps = nullptr;       // [rows, n_heads]: time step, log2 of its decay
  float* grams = nullptr;        // [inner chunks, n_groups, kScanRows, kScanRows]: C B^T
  __nv_bfloat16* out = nullptr;  // [rows, inner]
  int rows = 0;
};

// Inner chunks that `rows` rows may touch, wherever they begin.
constexpr int most_scan_chunks(int rows) {
  return (rows + kScanRows - 2) / kScanRows + 1;
}

// x, parts and steps from projected; moves the state's conv on.
[[nodiscard]] cudaError_t convolve(const MambaLayer& layer, const Sequence& sequence,
                                   const MambaRows& rows, cudaStream_t stream);
// After convolve(). y from x, parts and steps; moves the state's ssm on.
[[nodiscard]] cudaError_t scan(const DeviceLimits& limits, const MambaLayer& layer,
                               const Sequence& sequence, const MambaRows& rows,
                               cudaStream_t stream);
// out from y and projected.
[[nodiscard]] cudaError_t gate_and_norm(const MambaLayer& layer, const MambaRows& rows,
                                        cudaStream_t stream);

// Told after each kind of work has been queued.
class PrefillProbe {
 public:
  virtual ~PrefillProbe() = default;
  virtual void queued(const char* kind, cudaStream_t stream) = 0;
};

// prefill() with a probe (or null).
[[nodiscard]] cudaError_t prefill_probed(const ModelView& model, const Sequence& sequence,
                                         const int* ids, int rows, void* workspace, float* residual,
                                         cudaStream_t stream, PrefillProbe* probe);

}  // namespace logitlab::cuda::chunk
