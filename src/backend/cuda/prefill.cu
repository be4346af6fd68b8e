#include <algorithm>

#include "backend/cuda/prefill.h"
#include "backend/cuda/prefill_ops.h"

namespace logitlab::cuda {
namespace chunk {
namespace {

// Hands out aligned pieces of the work space; from a null base it only counts.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <typename T>
  T* take(int64_t n) {
    constexpr size_t kAlignment = 256;
    char* const piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (static_cast<size_t>(n) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(piece);
  }

  [[nodiscard]] size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// Stride of float rows of any length, so that they can be read by fours.
int padded(int n) {
  return (n + 7) / 8 * 8;
}

// What all layers have; the layers' own buffers follow it and share their place.
struct CommonBuffers {
  __nv_bfloat16* normed;      // [rows, d]
  __nv_bfloat16* normed_low;  // [rows, d]

  CommonBuffers(const ModelView& model, int rows, Arena* arena)
      : normed(arena->take<__nv_bfloat16>(int64_t{rows} * model.hidden_size)),
        normed_low(arena->take<__nv_bfloat16>(int64_t{rows} * model.hidden_size)) {}
};

struct AttentionBuffers {
  int ld_qkv;
  float* qkv;              // [rows, ld_qkv]
  __nv_bfloat16* queries;  // [rows, n_heads * head_dim]
  __nv_bfloat16* mixed;    // likewise

  AttentionBuffers(const AttentionLayer& layer, int rows, Arena* arena)
      : ld_qkv(padded(layer.qkv.rows)),
        qkv(arena->take<float>(int64_t{rows} * ld_qkv)),
        queries(arena->take<__nv_bfloat16>(int64_t{rows} * layer.n_heads * layer.head_dim)),
        mixed(arena->take<__nv_bfloat16>(int64_t{rows} * layer.n_heads * layer.head_dim)) {}
};

MambaRows take_mamba(const MambaLayer& layer, int rows, Arena* arena) {
  MambaRows buffers;
  buffers.rows = rows;
  buffers.ld_projected = padded(layer.projected());
  buffers.ld_x = padded(layer.inner());
  buffers.padded_states = padded(layer.state_size);
  buffers.ld_parts = 2 * layer.n_groups * buffers.padded_states;
  buffers.projected = arena->take<float>(int64_t{rows} * buffers.ld_projected);
  buffers.x = arena->take<float>(int64_t{rows} * buffers.ld_x);
  buffers.parts = arena->take<__nv_bfloat16>(int64_t{rows} * 2 * buffers.ld_parts);
  buffers.grams =
      arena->take<float>(int64_t{most_scan_chunks(rows)} * layer.n_groups * kScanRows * kScanRows);
  buffers.steps = arena->take<float2>(int64_t{rows} * layer.n_heads);
  buffers.out = arena->take<__nv_bfloat16>(int64_t{rows} * layer.inner());
  return buffers;
}

struct MoeBuffers {
  int ld_logits;
  float* logits;  // [rows, ld_logits]
  Dispatch dispatch;
  __nv_bfloat16* latent;         // [rows, w] or null
  __nv_bfloat16* mixed;          // [rows, w] or null
  __nv_bfloat16* hidden;         // [n_pairs, f] in expert order
  float* outputs;                // [n_pairs, w] in expert order
  __nv_bfloat16* shared_hidden;  // [rows, shared f] or null

  MoeBuffers(const MoeLayer& layer, int rows, Arena* arena) {
    const int64_t n_pairs = int64_t{rows} * layer.n_chosen;
    const int n = layer.n_experts;
    ld_logits = padded(n);
    logits = arena->take<float>(int64_t{rows} * ld_logits);
    dispatch.chosen = arena->take<int>(n_pairs);
    dispatch.weights = arena->take<float>(n_pairs);
    dispatch.ranks = arena->take<int>(n_pairs);
    dispatch.places = arena->take<int>(n_pairs);
    dispatch.sources = arena->take<int>(n_pairs);
    dispatch.counts = arena->take<int>(n);
    dispatch.offsets = arena->take<int>(n + 1);
    dispatch.tiles_64 = arena->take<int>(n + 1);
    dispatch.tiles_128 = arena->take<int>(n + 1);
    const int64_t latent_size = layer.has_latent ? int64_t{rows} * layer.w : 0;
    latent = arena->take<__nv_bfloat16>(latent_size);
    mixed = arena->take<__nv_bfloat16>(latent_size);
    hidden = arena->take<__nv_bfloat16>(n_pairs * layer.f);
    outputs = arena->take<float>(n_pairs * layer.w);
    shared_hidden = arena->take<__nv_bfloat16>(
        layer.has_shared ? int64_t{rows} * layer.shared.down.columns : 0);
  }
};

size_t bytes_of(const ModelView& model, const Layer& layer, int rows) {
  Arena arena(nullptr);
  const CommonBuffers common(model, rows, &arena);
  switch (layer.kind) {
    case LayerKind::kMamba:
      take_mamba(layer.mamba, rows, &arena);
      break;
    case LayerKind::kAttention:
      AttentionBuffers(layer.attention, rows, &arena);
      break;
    case LayerKind::kMoe:
      MoeBuffers(layer.moe, rows, &arena);
      break;
    case LayerKind::kMlp:
      arena.take<__nv_bfloat16>(int64_t{rows} * layer.mlp.down.columns);
      break;
  }
  return arena.used();
}

Sink sink_of(Gate gate) {
  switch (gate) {
    case Gate::kRelu2:
      return Sink::kRelu2;
    case Gate::kSilu:
      return Sink::kSilu;
    case Gate::kSiluMul:
      break;
  }
  return Sink::kSiluMul;
}

// Queues one chunk. After the first error nothing more is queued.
class Chunk {
 public:
  Chunk(const ModelView& model, const Sequence& sequence, int rows, void* workspace,
        float* residual, cudaStream_t stream, PrefillProbe* probe)
      : model_(model),
        sequence_(sequence),
        rows_(rows),
        arena_(workspace),
        common_(model, rows, &arena_),
        residual_(residual),
        stream_(stream),
        probe_(probe) {}

  cudaError_t run(const int* ids) {
    note("", read_limits(&limits_));
    note("embedding",
         embed(model_.embedding.weight, ids, rows_, model_.hidden_size, residual_, stream_));
    for (const Layer& layer : model_.layers) {
      if (error_ != cudaSuccess) {
        break;
      }
      const bool needs_low = layer.kind == LayerKind::kMoe;
      note("norm", norm_rows(residual_, layer.norm, model_.norm_eps, rows_, model_.hidden_size,
                             common_.normed, needs_low ? common_.normed_low : nullptr, stream_));
      switch (layer.kind) {
        case LayerKind::kMamba:
          run_mamba(layer.mamba);
          break;
        case LayerKind::kAttention:
          run_attention(layer.attention);
          break;
        case LayerKind::kMoe:
          run_moe(layer.moe);
          break;
        case LayerKind::kMlp: {
          Arena arena = arena_;
          run_mlp(layer.mlp, arena.take<__nv_bfloat16>(int64_t{rows_} * layer.mlp.down.columns),
                  "mlp");
          break;
        }
      }
    }
    return error_;
  }

 private:
  void note(const char* kind, cudaError_t error) {
    error_ = error_ != cudaSuccess ? error_ : error;
    if (probe_ != nullptr && *kind != 0) {
      probe_->queued(kind, stream_);
    }
  }

  // out = sink(a matrix^T): the common case of a dense product of all rows.
  void multiply(const char* kind, const Matrix& matrix, const __nv_bfloat16* a, Sink sink,
                void* out, int ldo, const __nv_bfloat16* a_low = nullptr) {
    Product product;
    product.a = a;
    product.a_low = a_low;
    product.lda = matrix.columns;
    product.b = matrix.weight;
    product.bias = matrix.bias;
    product.out = out;
    product.ldo = ldo;
    product.m = rows_;
    product.n = sink == Sink::kSiluMul ? matrix.rows / 2 : matrix.rows;
    product.k = matrix.columns;
    product.sink = sink;
    note(kind, multiply_rows(limits_, product, stream_));
  }

  void add_product(const char* kind, const Matrix& matrix, const __nv_bfloat16* a) {
    multiply(kind, matrix, a, Sink::kAdd, residual_, model_.hidden_size);
  }

  void run_mlp(const MlpLayer& layer, __nv_bfloat16* hidden, const char* kind) {
    multiply(kind, layer.up, common_.normed, sink_of(layer.gate), hidden, layer.down.columns);
    add_product(kind, layer.down, hidden);
  }

  void run_mamba(const MambaLayer& layer) {
    Arena arena = arena_;
    const MambaRows buffers = take_mamba(layer, rows_, &arena);
    multiply("mamba_in", layer.in_proj, common_.normed, Sink::kFloat, buffers.projected,
             buffers.ld_projected);
    note("mamba_conv", convolve(layer, sequence_, buffers, stream_));
    note("mamba_scan", scan(limits_, layer, sequence_, buffers, stream_));
    note("mamba_gate", gate_and_norm(layer, buffers, stream_));
    add_product("mamba_out", layer.out_proj, buffers.out);
  }

  void run_attention(const AttentionLayer& layer) {
    Arena arena = arena_;
    const AttentionBuffers buffers(layer, rows_, &arena);
    multiply("attention_qkv", layer.qkv, common_.normed, Sink::kFloat, buffers.qkv, buffers.ld_qkv);
    note("attention_place", place_keys(layer, model_.rope, model_.kv, sequence_, buffers.qkv,
                                       buffers.ld_qkv, rows_, buffers.queries, stream_));
    note("attention",
         attend(layer, model_.kv, sequence_, buffers.queries, rows_, buffers.mixed, stream_));
    add_product("attention_out", layer.o, buffers.mixed);
  }

  // out = sink(a b[expert]^T) for the rows of each expert. b: [n_experts, n, k].
  void multiply_grouped(const char* kind, const MoeLayer& layer, const Dispatch& dispatch,
                        const __nv_bfloat16* a, const int* a_rows, const __nv_bfloat16* b, int n,
                        int k, Sink sink, void* out) {
    Product product;
    product.a = a;
    product.a_rows = a_rows;
    product.lda = k;
    product.b = b;
    product.b_stride = int64_t{n} * k;
    product.out = out;
    product.ldo = n;
    product.m = rows_ * layer.n_chosen;
    product.n = n;
    product.k = k;
    product.sink = sink;
    product.groups = {dispatch.offsets, dispatch.tiles_64, dispatch.tiles_128, layer.n_experts};
    note(kind, multiply_rows(limits_, product, stream_));
  }

  void run_moe(const MoeLayer& layer) {
    Arena arena = arena_;
    const MoeBuffers buffers(layer, rows_, &arena);
    const Dispatch& dispatch = buffers.dispatch;
    multiply("moe_router", layer.router, common_.normed, Sink::kFloat, buffers.logits,
             buffers.ld_logits, common_.normed_low);
    note("moe_dispatch",
         build_dispatch(layer, buffers.logits, buffers.ld_logits, rows_, dispatch, stream_));
    const __nv_bfloat16* input = common_.normed;
    if (layer.has_latent) {
      multiply("moe_latent", layer.latent_in, common_.normed, Sink::kBf16, buffers.latent, layer.w);
      input = buffers.latent;
    }
    multiply_grouped("moe_up", layer, dispatch, input, dispatch.sources, layer.up, layer.f, layer.w,
                     sink_of(layer.gate), buffers.hidden);
    multiply_grouped("moe_down", layer, dispatch, buffers.hidden, nullptr, layer.down, layer.w,
                     layer.f, Sink::kFloat, buffers.outputs);
    if (layer.has_shared) {
      run_mlp(layer.shared, buffers.shared_hidden, "moe_shared");
    }
    note("moe_combine", combine(layer, dispatch, buffers.outputs, rows_, residual_,
                                layer.has_latent ? buffers.mixed : nullptr, stream_));
    if (layer.has_latent) {
      add_product("moe_latent", layer.latent_out, buffers.mixed);
    }
  }

  const ModelView& model_;
  const Sequence& sequence_;
  int rows_;
  Arena arena_;
  CommonBuffers common_;
  float* residual_;
  cudaStream_t stream_;
  PrefillProbe* probe_;
  DeviceLimits limits_;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

cudaError_t prefill_probed(const ModelView& model, const Sequence& sequence, const int* ids,
                           int rows, void* workspace, float* residual, cudaStream_t stream,
                           PrefillProbe* probe) {
  if (rows < 1 || rows > kMaxPrefillRows) {
    return cudaErrorInvalidValue;
  }
  return Chunk(model, sequence, rows, workspace, residual, stream, probe).run(ids);
}

}  // namespace chunk

size_t prefill_workspace_bytes(const ModelView& model, int rows) {
  size_t most = 0;
  for (const Layer& layer : model.layers) {
    most = std::max(most, chunk::bytes_of(model, layer, rows));
  }
  return most;
}

cudaError_t prefill(const ModelView& model, const Sequence& sequence, const int* ids, int rows,
                    void* workspace, float* residual, cudaStream_t stream) {
  return chunk::prefill_probed(model, sequence, ids, rows, workspace, residual, stream, nullptr);
}

}  // namespace logitlab::cuda
