#include "backend/cuda/decode_plan.h"

namespace logitlab::cuda {
namespace {

double bytes_of(const Matrix& m) {
  return 2.0 * m.rows * m.columns;
}

Output output_of(Gate gate) {
  return gate == Gate::kSilu ? Output::kSilu : Output::kRelu2;
}

// Collects the phases of one step.
class Planner {
 public:
  Planner(const ModelView& model, const DecodeBuffers& buffers, const DeviceShape& device, int n)
      : model_(model), b_(buffers), device_(device), n_(n) {}

  std::vector<DecodePhase> step() {
    const Matrix embedding = model_.embedding;
    const DecodeBuffers b = b_;
    const int n = n_;
    add("embedding", 2.0 * n * model_.hidden_size,
        [=](cudaStream_t s) { return queue_embed(embedding, b.ids, b.x, n, s); });
    for (const Layer& layer : model_.layers) {
      switch (layer.kind) {
        case LayerKind::kMamba:
          mamba(layer);
          break;
        case LayerKind::kAttention:
          attention(layer);
          break;
        case LayerKind::kMoe:
          mixture(layer);
          break;
        case LayerKind::kMlp:
          mlp(layer);
          break;
      }
    }
    head(b_.x);
    return std::move(phases_);
  }

  DecodePhase head_of(const float* residual) {
    head(residual);
    return std::move(phases_.back());
  }

 private:
  void add(std::string_view kind, double bytes, std::function<cudaError_t(cudaStream_t)> queue,
           int mixture = -1) {
    phases_.push_back({kind, bytes, mixture, std::move(queue)});
  }

  void add_dense(std::string_view kind, const DenseArgs& args) {
    double bytes = 0;
    for (int m = 0; m < args.n_matrices; ++m) {
      bytes += bytes_of(args.matrix[m]);
    }
    const DeviceShape device = device_;
    add(kind, bytes, [=](cudaStream_t s) { return queue_dense(args, device, s); });
  }

  [[nodiscard]] DenseArgs dense(const Matrix& matrix, Output output, float* out,
                                int out_stride) const {
    DenseArgs args;
    args.matrix[0] = matrix;
    args.output[0] = output;
    args.out[0] = out;
    args.out_stride[0] = out_stride;
    args.n = n_;
    args.packed = b_.packed;
    args.squares = b_.squares;
    args.sequences = b_.sequences;
    return args;
  }
  [[nodiscard]] DenseArgs normed(const Matrix& matrix, const float* norm, Output output, float* out,
                                 int out_stride) const {
    DenseArgs args = dense(matrix, output, out, out_stride);
    args.input = Input::kNormed;
    args.x = b_.x;
    args.x_stride = model_.hidden_size;
    args.gain = norm;
    args.eps = model_.norm_eps;
    return args;
  }
  [[nodiscard]] DenseArgs plain(const Matrix& matrix, const float* x, Output output, float* out,
                                int out_stride) const {
    DenseArgs args = dense(matrix, output, out, out_stride);
    args.x = x;
    args.x_stride = matrix.columns;
    return args;
  }
  [[nodiscard]] DenseArgs to_residual(const Matrix& matrix, const float* x) const {
    return plain(matrix, x, Output::kAdd, b_.x, model_.hidden_size);
  }

  void mamba(const Layer& layer) {
    const MambaLayer& m = layer.mamba;
    DenseArgs in = normed(m.in_proj, layer.norm, Output::kMamba, b_.projected, m.projected());
    in.mamba = m;
    add_dense("mamba in_proj", in);
    const SsmArgs ssm{m, b_.sequences, b_.projected, b_.y, n_};
    add("mamba state", 8.0 * n_ * m.inner() * m.state_size,
        [=](cudaStream_t s) { return queue_ssm(ssm, s); });
    DenseArgs out = to_residual(m.out_proj, b_.y);
    if (is_slice_norm(m.inner(), m.n_groups)) {
      out.input = Input::kGrouped;
      out.gain = m.norm_weight;
      out.eps = m.norm_eps;
    } else {
      float* y = b_.y;
      const int n = n_;
      add("mamba norm", 0, [=](cudaStream_t s) { return queue_group_norm(m, y, n, s); });
    }
    add_dense("mamba out_proj", out);
  }

  void attention(const Layer& layer) {
    const AttentionLayer& a = layer.attention;
    add_dense("attention qkv", normed(a.qkv, layer.norm, Output::kStore, b_.projected, a.qkv.rows));
    AttentionArgs args;
    args.layer = a;
    args.kv = model_.kv;
    args.rope = model_.rope;
    args.sequences = b_.sequences;
    args.qkv = b_.projected;
    args.out = b_.y;
    args.n = n_;
    args.partial = b_.attention_partial;
    args.arrived = b_.attention_arrived;
    args.n_blocks = device_.n_blocks;
    add("attention", 0, [=](cudaStream_t s) { return queue_attention(args, s); });
    add_dense("attention o_proj", to_residual(a.o, b_.y));
  }

  void mlp(const Layer& layer) {
    const MlpLayer& m = layer.mlp;
    add_dense("mlp up", mlp_up(m, layer.norm, b_.hidden));
    add_dense("mlp down", to_residual(m.down, b_.hidden));
  }

  // The first half of an MLP on the normed residual.
  [[nodiscard]] DenseArgs mlp_up(const MlpLayer& m, const float* norm, float* hidden) const {
    const int f = m.down.columns;
    if (m.gate != Gate::kSiluMul) {
      return normed(m.up, norm, output_of(m.gate), hidden, f);
    }
    Matrix gate = m.up;
    gate.rows = f;
    DenseArgs args = normed(gate, norm, Output::kSiluMul, hidden, f);
    args.n_matrices = 2;
    args.matrix[1] = gate;
    args.matrix[1].weight = m.up.weight + static_cast<size_t>(f) * m.up.columns;
    args.matrix[1].bias = m.up.bias == nullptr ? nullptr : m.up.bias + f;
    args.output[1] = Output::kSiluMul;
    args.out[1] = hidden;
    args.out_stride[1] = f;
    return args;
  }

  void mixture(const Layer& layer) {
    const MoeLayer& m = layer.moe;
    ++mixture_;
    routes_ = b_.routes_of_mixture.empty() ? b_.routes
                                           : b_.routes_of_mixture[static_cast<size_t>(mixture_)];
    DenseArgs first = normed(m.router, layer.norm, Output::kStore, b_.router_logits, m.n_experts);
    if (m.has_shared && m.shared.gate != Gate::kSiluMul) {
      first.n_matrices = 2;
      first.matrix[1] = m.shared.up;
      first.output[1] = output_of(m.shared.gate);
      first.out[1] = b_.shared_hidden;
      first.out_stride[1] = m.shared.down.columns;
    }
    add_dense("moe router, shared up", first);
    if (m.has_shared && m.shared.gate == Gate::kSiluMul) {
      add_dense("moe shared up", mlp_up(m.shared, layer.norm, b_.shared_hidden));
    }
    if (n_ == 1 && has_fused_experts(m)) {
      fused_experts(layer);
    } else {
      routed_experts(layer);
    }
  }

  void fused_experts(const Layer& layer) {
    const MoeLayer& m = layer.moe;
    const DeviceShape device = device_;
    const double expert_bytes = 2.0 * m.n_chosen * m.f * m.w;
    ExpertsUpArgs up;
    up.layer = m;
    up.logits = b_.router_logits;
    up.x = b_.x;
    up.gain = layer.norm;
    up.eps = model_.norm_eps;
    up.shared_hidden = b_.shared_hidden;
    up.shared_out = b_.shared_out;
    up.hidden = b_.hidden;
    up.chosen = routes_.ids;
    up.weights = routes_.weights;
    add("moe shared down, experts up",
        expert_bytes + (m.has_shared ? bytes_of(m.shared.down) : 0.0),
        [=](cudaStream_t s) { return queue_experts_up(up, device, s); });
    ExpertsDownArgs down;
    down.layer = m;
    down.chosen = routes_.ids;
    down.weights = routes_.weights;
    down.hidden = b_.hidden;
    down.shared_out = m.has_shared ? b_.shared_out : nullptr;
    down.residual = b_.x;
    add("moe experts down", expert_bytes,
        [=](cudaStream_t s) { return queue_experts_down(down, device, s); });
  }

  [[nodiscard]] ItemsArgs items(const MoeLayer& m, const __nv_bfloat16* weight, int rows,
                                int columns) const {
    ItemsArgs args;
    args.weight = weight;
    args.rows = rows;
    args.columns = columns;
    args.n_chosen = m.n_chosen;
    args.routes = routes_;
    args.x_stride = columns;
    return args;
  }

  void routed_experts(const Layer& layer) {
    const MoeLayer& m = layer.moe;
    const DeviceShape device = device_;
    const DecodeBuffers& b = b_;
    const float* logits = b.router_logits;
    const Routes routes = routes_;
    const int n = n_;
    add("moe route", 0, [=](cudaStream_t s) { return queue_route(m, logits, n, routes, s); });
    if (m.has_shared) {
      add_dense("moe shared down", plain(m.shared.down, b_.shared_hidden, Output::kStore,
                                         b_.shared_out, model_.hidden_size));
    }
    if (m.has_latent) {
      add_dense("moe latent", normed(m.latent_in, layer.norm, Output::kStore, b_.latent, m.w));
    }
    ItemsArgs up = items(m, m.up, m.f, m.w);
    up.input = m.has_latent ? Input::kPlain : Input::kNormed;
    up.x = m.has_latent ? b_.latent : b_.x;
    up.gain = layer.norm;
    up.eps = model_.norm_eps;
    up.output = output_of(m.gate);
    up.out = b_.hidden;
    const double item_bytes = 2.0 * m.f * m.w;
    add(
        "moe experts up", item_bytes, [=](cudaStream_t s) { return queue_items(up, device, s); },
        mixture_);
    ItemsArgs down = items(m, m.down, m.w, m.f);
    down.by_pair = true;
    down.x = b_.hidden;
    down.out = b_.expert_out;
    add(
        "moe experts down", item_bytes,
        [=](cudaStream_t s) { return queue_items(down, device, s); }, mixture_);
    CombineArgs sum;
    sum.weights = routes_.weights;
    sum.y = b_.expert_out;
    sum.extra = m.has_shared && !m.has_latent ? b_.shared_out : nullptr;
    sum.target = m.has_latent ? b_.mixed : b_.x;
    sum.adds = !m.has_latent;
    sum.n = n_;
    sum.n_chosen = m.n_chosen;
    sum.width = m.w;
    add("moe combine", 0, [=](cudaStream_t s) { return queue_combine(sum, s); });
    if (m.has_latent) {
      if (m.has_shared) {
        CombineArgs shared;
        shared.extra = b_.shared_out;
        shared.target = b_.x;
        shared.n = n_;
        shared.width = model_.hidden_size;
        add("moe combine", 0, [=](cudaStream_t s) { return queue_combine(shared, s); });
      }
      add_dense("moe latent", to_residual(m.latent_out, b_.mixed));
    }
  }

  void head(const float* residual) {
    DenseArgs args =
        normed(model_.head, model_.final_norm, Output::kStore, b_.logits, model_.vocab_size);
    args.x = residual;
    add_dense("head", args);
  }

  const ModelView& model_;
  const DecodeBuffers& b_;
  const DeviceShape& device_;
  int n_;
  int mixture_ = -1;  // the last one's number
  Routes routes_;     // and its routes
  std::vector<DecodePhase> phases_;
};

}  // namespace

std::vector<DecodePhase> plan_step(const ModelView& model, const DecodeBuffers& buffers,
                                   const DeviceShape& device, int n) {
  return Planner(model, buffers, device, n).step();
}

DecodePhase plan_head(const ModelView& model, const DecodeBuffers& buffers,
                      const DeviceShape& device, const float* residual, int n) {
  return Planner(model, buffers, device, n).head_of(residual);
}

}  // namespace logitlab::cuda
