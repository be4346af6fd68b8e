// The phases of a decode step: what each kernel takes, and how the host queues it.
//
// All launches carry the programmatic edge: a kernel may begin before its predecessor has ended and
// waits for it before it reads or writes anything but constants.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "backend/cuda/decode.h"
#include "backend/cuda/layout.h"

namespace logitlab::cuda {

// What the host knows of the device.
struct DeviceShape {
  int n_blocks = 0;      // multiprocessors: one block on each
  int shared_bytes = 0;  // of a block, at most
};

// Rows go through their own kernels when there are more of them.
constexpr int kFewRows = 8;
constexpr int kFewExperts = 8;      // per token, in the fused kernels of one sequence
constexpr int kFusedExperts = 128;  // of a layer, in them
constexpr int kMaxExperts = 512;    // of a layer

// ---- products with a matrix ---------------------------------------------------------------------

enum class Input {
  kPlain,
  kNormed,   // x * gain / rms(x)
  kGrouped,  // x * gain / rms of its eighth of x
};
enum class Output { kStore, kAdd, kRelu2, kSilu, kSiluMul, kMamba };

// out[t] = output(W input(x[t]) + b) for n rows; up to two matrices of the same columns. kSiluMul:
// silu(first) * second, both of the same rows.
struct DenseArgs {
  Matrix matrix[2];
  int n_matrices = 1;
  Output output[2] = {Output::kStore, Output::kStore};
  float* out[2] = {nullptr, nullptr};  // [n, out_stride]
  int out_stride[2] = {0, 0};
  Input input = Input::kPlain;
  const float* x = nullptr;  // [n, x_stride]
  int x_stride = 0;
  const float* gain = nullptr;  // [columns]
  float eps = 0;
  int n = 0;
  // Of kMamba.
  MambaLayer mamba;
  const Sequence* sequences = nullptr;  // [n], device
  // Work space of more than kFewRows rows.
  uint32_t* packed = nullptr;  // packed_words()
  float* squares = nullptr;    // [kSlices, kMaxDecodeRows]
};

// Words of the packed rows of a matrix with that many columns.
[[nodiscard]] size_t packed_words(int columns);
// Whether kGrouped can take this norm: one group is one slice.
[[nodiscard]] bool is_slice_norm(int columns, int n_groups);
// One row of the usual shapes has kernels with nothing else in them (decode_lean.cu).
[[nodiscard]] bool is_lean(const DenseArgs& args);
[[nodiscard]] cudaError_t queue_lean(const DenseArgs& args, const DeviceShape& device,
                                     cudaStream_t stream);
[[nodiscard]] cudaError_t queue_dense(const DenseArgs& args, const DeviceShape& device,
                                      cudaStream_t stream);

// ---- Mamba-2
// -------------------------------------------------------------------------------------

// After the input projection (Output::kMamba left z, silu(conv(x | B | C)) and the clamped time
// step in `projected` [n, projected]): y = (C state + D x) * silu(z), [n, inner].
struct SsmArgs {
  MambaLayer layer;
  const Sequence* sequences = nullptr;  // [n], device
  const float* projected = nullptr;
  float* y = nullptr;
  int n = 0;
};
[[nodiscard]] cudaError_t queue_ssm(const SsmArgs& args, cudaStream_t stream);
// y = norm_weight * y / rms of its group, in place; for shapes that Input::kGrouped does not take.
[[nodiscard]] cudaError_t queue_group_norm(const MambaLayer& layer, float* y, int n,
                                           cudaStream_t stream);

// ---- attention ----------------------------------------------------------------------------------

constexpr int kSplitPositions = 256;  // of a partial result: a fixed length, so that the order of
                                      // sums depends on the sequence's length alone

struct AttentionArgs {
  AttentionLayer layer;
  KvPool kv;
  RopeTable rope;
  const Sequence* sequences = nullptr;  // [n], device
  const float* qkv = nullptr;           // [n, (n_heads + 2 n_kv_heads) * head_dim]
  float* out = nullptr;                 // [n, n_heads * head_dim]
  int n = 0;
  float* partial = nullptr;  // attention_partial_floats(splits)
  int* arrived = nullptr;    // [n * n_kv_heads * head groups], zero before and after
  int n_blocks = 0;
};
// Partial results of a step whose sequences have `splits` splits in all.
[[nodiscard]] size_t attention_partial_floats(const AttentionLayer& layer, int64_t splits);
[[nodiscard]] int attention_counters(const AttentionLayer& layer);  // of one sequence
[[nodiscard]] cudaError_t queue_attention(const AttentionArgs& args, cudaStream_t stream);

// ---- mixtures of experts ------------------------------------------------------------------------

// One sequence: the shared expert's down projection, then the chosen experts' up projections, which
// are chosen here from the router's logits.
struct ExpertsUpArgs {
  MoeLayer layer;
  const float* logits = nullptr;  // [n_experts]
  const float* x = nullptr;       // [d], residual
  const float* gain = nullptr;    // [d]
  float eps = 0;
  const float* shared_hidden = nullptr;  // [shared f]
  float* shared_out = nullptr;           // [d]
  float* hidden = nullptr;               // [n_chosen, f]
  int* chosen = nullptr;                 // [n_chosen], ascending
  float* weights = nullptr;              // [n_chosen]
};
// One sequence: residual += sum of weight * down(hidden) in ascending order of experts +
// shared_out.
struct ExpertsDownArgs {
  MoeLayer layer;
  const int* chosen = nullptr;
  const float* weights = nullptr;
  const float* hidden = nullptr;
  const float* shared_out = nullptr;  // null: none
  float* residual = nullptr;
};
// Whether the two kernels of one sequence take this mixture.
[[nodiscard]] bool has_fused_experts(const MoeLayer& layer);
[[nodiscard]] cudaError_t queue_experts_up(const ExpertsUpArgs& args, const DeviceShape& device,
                                           cudaStream_t stream);
[[nodiscard]] cudaError_t queue_experts_down(const ExpertsDownArgs& args, const DeviceShape& device,
                                             cudaStream_t stream);

// Any number of rows: pairs of (row, slot) in order of experts, eight pairs of one expert an item.
struct Item {
  int expert, first, n;  // entries [first, first + n)
};
struct Routes {
  int* ids = nullptr;        // [n, n_chosen], ascending
  float* weights = nullptr;  // [n, n_chosen]
  int* n_items = nullptr;
  Item* items = nullptr;   // [max_items]
  int* entries = nullptr;  // [n * n_chosen]: row * n_chosen + slot
};
[[nodiscard]] int max_items(const MoeLayer& layer);  // of kMaxDecodeRows rows
[[nodiscard]] cudaError_t queue_route(const MoeLayer& layer, const float* logits, int n,
                                      const Routes& routes, cudaStream_t stream);

struct ItemsArgs {
  const __nv_bfloat16* weight = nullptr;  // [n_experts, rows, columns]
  int rows = 0, columns = 0, n_chosen = 0;
  Routes routes;
  Input input = Input::kPlain;  // kPlain or kNormed
  bool by_pair = false;         // x has a row per pair; false: per sequence
  const float* x = nullptr;
  int x_stride = 0;
  const float* gain = nullptr;
  float eps = 0;
  Output output = Output::kStore;
  float* out = nullptr;  // [pairs, rows]
};
[[nodiscard]] cudaError_t queue_items(const ItemsArgs& args, const DeviceShape& device,
                                      cudaStream_t stream);

// target[r] = (adds ? target[r] : 0) + (sum over slots of weight * y[r, slot] + extra[r]).
struct CombineArgs {
  const float* weights = nullptr;  // [n, n_chosen]
  const float* y = nullptr;        // [n, n_chosen, width]
  const float* extra = nullptr;    // [n, width] or null
  float* target = nullptr;         // [n, width]
  bool adds = true;
  int n = 0, n_chosen = 0, width = 0;
};
[[nodiscard]] cudaError_t queue_combine(const CombineArgs& args, cudaStream_t stream);

// ---- ends of a step -----------------------------------------------------------------------------

// x[t] = embedding[ids[t]].
[[nodiscard]] cudaError_t queue_embed(const Matrix& embedding, const int* ids, float* x, int n,
                                      cudaStream_t stream);

struct ChooseArgs {
  const float* logits = nullptr;  // [n, vocab_size]
  int vocab_size = 0;
  int n = 0;
  const Draw* draws = nullptr;    // [n], device
  Sequence* sequences = nullptr;  // [n]: length becomes one more
  int* ids = nullptr;             // [n]: the chosen ones
  int* out = nullptr;             // [n, out_stride]: and here at `*step`
  int out_stride = 0;
  int* step = nullptr;         // becomes one more
  ulonglong2* best = nullptr;  // [n, kChooseBlocks]
  int* arrived = nullptr;      // [n + 1], zero before and after
};
constexpr int kChooseBlocks = 64;  // a multiple of 32
// Chooses the next input of every row; -1 (and input 0) where nothing can be chosen.
[[nodiscard]] cudaError_t queue_choose(const ChooseArgs& args, cudaStream_t stream);

}  // namespace logitlab::cuda
