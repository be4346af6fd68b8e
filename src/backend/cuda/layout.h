// What the kernels see: weights, states and work space in device memory. Plain structures, passed
// to kernels by value or kept in device memory. Matrices are row-major BF16 with 16-byte aligned
// rows (every input length is a multiple of 8: the loader refuses others by name).
#pragma once

#include <cstdint>
#include <vector>

#include <cuda_bf16.h>

namespace logitlab::cuda {

// y = W x + b.
struct Matrix {
  const __nv_bfloat16* weight = nullptr;  // [rows, columns]
  const float* bias = nullptr;            // [rows] or null
  int rows = 0;
  int columns = 0;
};

struct MambaLayer {
  Matrix in_proj;                      // [projected, d]: z | x | B | C | dt
  Matrix out_proj;                     // [d, inner]
  const float* conv_weight = nullptr;  // [conv_size, conv_kernel], the last tap is the newest token
  const float* conv_bias = nullptr;    // [conv_size] or null
  const float* dt_bias = nullptr;      // [n_heads]
  const float* a = nullptr;            // [n_heads], < 0
  const float* d = nullptr;            // [n_heads]
  const float* norm_weight = nullptr;  // [inner]
  float norm_eps = 0;
  float time_step_low = 0;
  float time_step_high = 0;
  int n_heads = 0, head_dim = 0, state_size = 0, n_groups = 0, conv_kernel = 0;
  int state_layer = 0;  // number among the Mamba layers

  __host__ __device__ int inner() const { return n_heads * head_dim; }
  __host__ __device__ int conv_size() const { return inner() + 2 * n_groups * state_size; }
  __host__ __device__ int projected() const { return inner() + conv_size() + n_heads; }
};

struct AttentionLayer {
  Matrix qkv;                     // rows q | k | v: [(n_heads + 2 n_kv_heads) * head_dim, d]
  Matrix o;                       // [d, n_heads * head_dim]
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;
  float qk_norm_eps = 0;
  float scale = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int window = 0;  // 0: all positions
  bool has_rope = false;
  int state_layer = 0;  // number among the attention layers
};

enum class Gate { kRelu2, kSilu, kSiluMul };  // kSiluMul: silu(gate x) * up x

struct MlpLayer {
  Matrix up;    // [f, d]; with kSiluMul [2 f, d]: the gate's rows, then up's
  Matrix down;  // [d, f]
  Gate gate = Gate::kRelu2;
};

struct MoeLayer {
  Matrix router;                        // [n_experts, d]
  const float* correction = nullptr;    // [n_experts] or null
  const __nv_bfloat16* up = nullptr;    // [n_experts, f, w]
  const __nv_bfloat16* down = nullptr;  // [n_experts, w, f]
  int n_experts = 0, n_chosen = 0, n_groups = 1, kept_groups = 1;
  int f = 0;  // width of an expert
  int w = 0;  // what an expert works on: the hidden size, or the latent size
  bool normalises = true;
  float scale = 1;
  Gate gate = Gate::kRelu2;
  bool has_shared = false;
  MlpLayer shared;
  bool has_latent = false;
  Matrix latent_in;   // [w, d]
  Matrix latent_out;  // [d, w]
};

enum class LayerKind { kMamba, kAttention, kMoe, kMlp };

struct Layer {
  LayerKind kind = LayerKind::kMlp;
  const float* norm = nullptr;  // [d]
  MambaLayer mamba;
  AttentionLayer attention;
  MoeLayer moe;
  MlpLayer mlp;
};

// Keys and values lie in pages of kPagePositions positions of all attention layers:
// page[layer][0: keys, 1: values][kv_head][position][head_dim].
constexpr int kPagePositions = 64;

struct KvPool {
  __nv_bfloat16* pages = nullptr;
  int n_layers = 0, n_kv_heads = 0, head_dim = 0;

  __host__ __device__ int64_t page_elements() const {
    return int64_t{2} * n_layers * n_kv_heads * kPagePositions * head_dim;
  }
  // First element of (page, layer, keys or values, head): kPagePositions rows of head_dim.
  __host__ __device__ __nv_bfloat16* at(int page, int layer, int value, int head) const {
    return pages + page * page_elements() +
           ((int64_t{layer} * 2 + value) * n_kv_heads + head) * kPagePositions * head_dim;
  }
};

// One sequence, as kernels find it.
struct Sequence {
  float* conv = nullptr;            // [mamba layer][conv_kernel - 1][conv_size], oldest input first
  float* ssm = nullptr;             // [mamba layer][n_heads][head_dim][state_size]
  const int* page_table = nullptr;  // [pages]: position p is in page_table[p / kPagePositions]
  int length = 0;                   // positions that it holds
};

struct RopeTable {
  const float* inv_freq = nullptr;  // [rotary_dim / 2]
  int rotary_dim = 0;               // 0: none
  bool interleaved = false;         // pairs (2i, 2i+1); false: (i, i + rotary_dim / 2)
  float attention_factor = 1;
};

// The whole model. `layers` is host memory (what its members point at is the device's).
struct ModelView {
  std::vector<Layer> layers;
  int hidden_size = 0;
  int vocab_size = 0;
  float norm_eps = 0;
  Matrix embedding;  // [vocab_size, d]
  Matrix head;       // [vocab_size, d]
  const float* final_norm = nullptr;
  KvPool kv;
  RopeTable rope;
};

}  // namespace logitlab::cuda
