#include "backend/cuda/model_view.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <variant>

#include <fmt/ranges.h>

#include "base/check.h"

namespace logitlab::cuda {
namespace {

constexpr size_t kAlignment = 256;
// Rows are read in 16-byte pieces.
constexpr int64_t kRowMultiple = 8;
// What the kernels are compiled for, or hold in registers and shared memory.
constexpr std::array<int64_t, 7> kHeadDims = {16, 32, 64, 80, 96, 128, 256};
constexpr int64_t kMostTaps = 8;
constexpr int64_t kMostStates = 256;
constexpr int64_t kMostExperts = 512;

// Lays out one layer after the other and refuses what the kernels cannot do.
class Builder {
 public:
  Builder(const DeviceModelSpec& spec, WeightRoom* room) : spec_(spec), room_(room) {}

  Result<ModelView> build() {
    ModelView view;
    view.hidden_size = static_cast<int>(spec_.hidden_size);
    view.vocab_size = static_cast<int>(spec_.vocab_size);
    view.norm_eps = spec_.norm_eps;
    where_ = "embedding";
    ASSIGN_OR_RETURN(view.embedding, single(spec_.embedding, nullptr));
    where_ = "head";
    view.head = view.embedding;
    if (!spec_.is_tied) {
      ASSIGN_OR_RETURN(view.head, single(spec_.head, spec_.head_bias));
    } else if (spec_.head_bias != nullptr) {
      view.head.bias = room_->floats(spec_.head_bias, spec_.vocab_size, 0);
    }
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      layer_ = fmt::format("layer {} (of {})", i, spec_.layers.size());
      ASSIGN_OR_RETURN(Layer layer, one_layer(spec_.layers[i]));
      view.layers.push_back(layer);
    }
    view.final_norm = room_->floats(spec_.final_norm, spec_.hidden_size, 1);
    view.kv.n_layers = n_attention_;
    if (attention_ != nullptr) {
      view.kv.n_kv_heads = static_cast<int>(attention_->shape.n_kv_heads);
      view.kv.head_dim = static_cast<int>(attention_->shape.head_dim);
    }
    if (!spec_.inv_freq.empty()) {
      const auto half = static_cast<int64_t>(spec_.inv_freq.size());
      view.rope.inv_freq = room_->floats(spec_.inv_freq.data(), half, 0);
      view.rope.rotary_dim = static_cast<int>(2 * half);
      view.rope.interleaved = spec_.rope_layout == RopeLayout::kInterleaved;
      view.rope.attention_factor = spec_.rope_attention_factor;
    }
    return view;
  }

 private:
  Status check(const Tensor& weight) const {
    if (weight.dtype != DType::kBF16) {
      return fail(ErrorCode::kUnsupported,
                  "{}: {} weights; the CUDA backend takes BF16: dtype bfloat16 converts them",
                  where_, name(weight.dtype));
    }
    if (weight.columns() % kRowMultiple != 0) {
      return fail(ErrorCode::kUnsupported,
                  "{}: rows of {} values; the CUDA backend wants a multiple of {}", where_,
                  weight.columns(), kRowMultiple);
    }
    return {};
  }

  Status within(int64_t value, int64_t most, std::string_view what) const {
    if (value < 1 || value > most) {
      return fail(ErrorCode::kUnsupported, "{}: {} {}; the CUDA backend takes 1 to {}", layer_,
                  value, what, most);
    }
    return {};
  }

  Result<Matrix> matrix(std::span<const Tensor> weights, std::span<const float* const> biases) {
    Matrix matrix;
    int64_t rows = 0;
    std::vector<WeightRoom::Part> parts;
    for (size_t i = 0; i < weights.size(); ++i) {
      RETURN_IF_ERROR(check(weights[i]));
      CHECK(weights[i].columns() == weights[0].columns()) << where_;
      rows += weights[i].rows();
      parts.push_back({i < biases.size() ? biases[i] : nullptr, weights[i].rows()});
    }
    CHECK(rows <= std::numeric_limits<int>::max()) << rows;
    matrix.weight = room_->matrices(weights);
    matrix.bias = room_->joined(parts);
    matrix.rows = static_cast<int>(rows);
    matrix.columns = static_cast<int>(weights[0].columns());
    return matrix;
  }
  Result<Matrix> single(const Tensor& weight, const float* bias) {
    return matrix({&weight, 1}, {&bias, 1});
  }
  Result<Matrix> linear(const DeviceLinear& linear, std::string_view part) {
    where_ = fmt::format("{}, {}", layer_, part);
    return matrix(linear.weights, linear.biases);
  }

  Result<Layer> one_layer(const DeviceLayer& from) {
    Layer layer;
    layer.norm = room_->floats(from.norm, spec_.hidden_size, 1);
    if (const auto* mamba = std::get_if<DeviceMamba>(&from.mixer)) {
      layer.kind = LayerKind::kMamba;
      ASSIGN_OR_RETURN(layer.mamba, mamba_layer(*mamba));
    } else if (const auto* attention = std::get_if<DeviceAttention>(&from.mixer)) {
      layer.kind = LayerKind::kAttention;
      ASSIGN_OR_RETURN(layer.attention, attention_layer(*attention));
    } else if (const auto* mixture = std::get_if<DeviceMixture>(&from.mixer)) {
      layer.kind = LayerKind::kMoe;
      ASSIGN_OR_RETURN(layer.moe, mixture_layer(*mixture));
    } else {
      layer.kind = LayerKind::kMlp;
      ASSIGN_OR_RETURN(layer.mlp, mlp_layer(std::get<DeviceMlp>(from.mixer)));
    }
    return layer;
  }

  Result<MambaLayer> mamba_layer(const DeviceMamba& from) {
    const Mamba2Shape& shape = from.shape;
    const Mamba2Weights& weights = from.weights;
    if (mamba_ == nullptr) {
      mamba_ = &from;
    }
    const Mamba2Shape& first = mamba_->shape;
    if (shape.conv_size() != first.conv_size() || shape.conv_kernel != first.conv_kernel ||
        shape.n_heads != first.n_heads || shape.head_dim != first.head_dim ||
        shape.state_size != first.state_size) {
      return fail(ErrorCode::kUnsupported,
                  "{}: its Mamba state has another shape than that of the first Mamba layer; the "
                  "CUDA backend wants one shape",
                  layer_);
    }
    RETURN_IF_ERROR(within(shape.conv_kernel, kMostTaps, "taps of the convolution"));
    RETURN_IF_ERROR(within(shape.state_size, kMostStates, "SSM states a channel"));
    MambaLayer layer;
    ASSIGN_OR_RETURN(layer.in_proj, linear(from.in_proj, "in_proj"));
    ASSIGN_OR_RETURN(layer.out_proj, linear(from.out_proj, "out_proj"));
    const int64_t channels = shape.conv_size();
    layer.conv_weight = room_->floats(weights.conv_weight, channels * shape.conv_kernel, 0.25F);
    layer.conv_bias = optional(weights.conv_bias, channels);
    layer.dt_bias = room_->floats(weights.dt_bias, shape.n_heads, -3);
    layer.a = room_->floats(weights.a, shape.n_heads, -1);
    layer.d = room_->floats(weights.d, shape.n_heads, 1);
    layer.norm_weight = room_->floats(weights.norm_weight, shape.inner_size(), 1);
    layer.norm_eps = weights.norm_eps;
    layer.time_step_low = weights.time_step_low;
    layer.time_step_high = weights.time_step_high;
    layer.n_heads = static_cast<int>(shape.n_heads);
    layer.head_dim = static_cast<int>(shape.head_dim);
    layer.state_size = static_cast<int>(shape.state_size);
    layer.n_groups = static_cast<int>(shape.n_groups);
    layer.conv_kernel = static_cast<int>(shape.conv_kernel);
    layer.state_layer = n_mamba_++;
    return layer;
  }

  Result<AttentionLayer> attention_layer(const DeviceAttention& from) {
    const AttentionShape& shape = from.shape;
    if (attention_ == nullptr) {
      attention_ = &from;
    }
    if (shape.n_kv_heads != attention_->shape.n_kv_heads ||
        shape.head_dim != attention_->shape.head_dim) {
      return fail(ErrorCode::kUnsupported,
                  "{}: {} key-value heads of {}, the first attention layer has {} of {}; the CUDA "
                  "backend wants one shape",
                  layer_, shape.n_kv_heads, shape.head_dim, attention_->shape.n_kv_heads,
                  attention_->shape.head_dim);
    }
    if (std::find(kHeadDims.begin(), kHeadDims.end(), shape.head_dim) == kHeadDims.end()) {
      return fail(ErrorCode::kUnsupported,
                  "{}: attention heads of {}; the CUDA backend has code for {}", layer_,
                  shape.head_dim, fmt::join(kHeadDims, ", "));
    }
    AttentionLayer layer;
    ASSIGN_OR_RETURN(layer.qkv, linear(from.qkv, "q, k, v"));
    ASSIGN_OR_RETURN(layer.o, linear(from.o, "o"));
    layer.q_norm = optional(from.q_norm, shape.head_dim);
    layer.k_norm = optional(from.k_norm, shape.head_dim);
    layer.qk_norm_eps = from.qk_norm_eps;
    layer.scale = shape.scale;
    layer.n_heads = static_cast<int>(shape.n_heads);
    layer.n_kv_heads = static_cast<int>(shape.n_kv_heads);
    layer.head_dim = static_cast<int>(shape.head_dim);
    layer.window = static_cast<int>(from.window);
    layer.has_rope = from.has_rope;
    layer.state_layer = n_attention_++;
    return layer;
  }

  Result<MlpLayer> mlp_layer(const DeviceMlp& from) {
    MlpLayer layer;
    DeviceLinear up = from.up;
    if (!from.gate.weights.empty()) {
      up.weights.insert(up.weights.begin(), from.gate.weights[0]);
      up.biases = {from.gate.biases.empty() ? nullptr : from.gate.biases[0],
                   from.up.biases.empty() ? nullptr : from.up.biases[0]};
      layer.gate = Gate::kSiluMul;
    } else {
      layer.gate = gate_of(from.activation);
    }
    ASSIGN_OR_RETURN(layer.up, linear(up, "up"));
    ASSIGN_OR_RETURN(layer.down, linear(from.down, "down"));
    return layer;
  }

  Result<MoeLayer> mixture_layer(const DeviceMixture& from) {
    RETURN_IF_ERROR(within(static_cast<int64_t>(from.up.size()), kMostExperts, "experts"));
    MoeLayer layer;
    ASSIGN_OR_RETURN(layer.router, linear(from.router, "router"));
    layer.correction = optional(from.correction, layer.router.rows);
    where_ = layer_ + ", experts";
    for (const auto* list : {&from.up, &from.down}) {
      for (const Tensor& expert : *list) {
        RETURN_IF_ERROR(check(expert));
      }
    }
    layer.up = room_->matrices(from.up);
    layer.down = room_->matrices(from.down);
    layer.n_experts = static_cast<int>(from.up.size());
    layer.n_chosen = static_cast<int>(from.n_chosen);
    layer.n_groups = static_cast<int>(from.n_groups);
    layer.kept_groups = static_cast<int>(from.kept_groups);
    layer.f = static_cast<int>(from.up[0].rows());
    layer.w = static_cast<int>(from.up[0].columns());
    layer.normalises = from.normalises;
    layer.scale = from.scale;
    layer.gate = gate_of(from.activation);
    layer.has_latent = !from.latent_in.weights.empty();
    if (layer.has_latent) {
      ASSIGN_OR_RETURN(layer.latent_in, linear(from.latent_in, "latent in"));
      ASSIGN_OR_RETURN(layer.latent_out, linear(from.latent_out, "latent out"));
    }
    layer.has_shared = from.has_shared;
    if (from.has_shared) {
      ASSIGN_OR_RETURN(layer.shared, mlp_layer(from.shared));
    }
    return layer;
  }

  static Gate gate_of(Activation activation) {
    return activation == Activation::kSilu ? Gate::kSilu : Gate::kRelu2;
  }
  const float* optional(const float* values, int64_t n) {
    return values == nullptr ? nullptr : room_->floats(values, n, 0);
  }

  const DeviceModelSpec& spec_;
  WeightRoom* room_;
  std::string layer_;
  std::string where_;
  const DeviceMamba* mamba_ = nullptr;          // the first one
  const DeviceAttention* attention_ = nullptr;  // the first one
  int n_mamba_ = 0;
  int n_attention_ = 0;
};

}  // namespace

std::byte* WeightRoom::take(size_t bytes) {
  std::byte* place = base_ + used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return place;
}

const __nv_bfloat16* WeightRoom::matrices(std::span<const Tensor> tensors) {
  size_t bytes = 0;
  for (const Tensor& tensor : tensors) {
    bytes += tensor.bytes();
  }
  std::byte* const first = take(bytes);
  std::byte* place = first;
  for (const Tensor& tensor : tensors) {
    uploads_.push_back({place, tensor.data, tensor.bytes(), n_matrices_++});
    place += tensor.bytes();
  }
  return reinterpret_cast<const __nv_bfloat16*>(first);
}

const float* WeightRoom::floats(const float* values, int64_t n, float missing) {
  if (values == nullptr) {
    values = made_.emplace_back(static_cast<size_t>(n), missing).data();
  }
  const size_t bytes = static_cast<size_t>(n) * sizeof(float);
  std::byte* const place = take(bytes);
  uploads_.push_back({place, reinterpret_cast<const std::byte*>(values), bytes, 0});
  return reinterpret_cast<const float*>(place);
}

const float* WeightRoom::joined(std::span<const Part> parts) {
  std::vector<float> all;
  bool is_there = false;
  for (const Part& part : parts) {
    is_there = is_there || part.values != nullptr;
    if (part.values != nullptr) {
      all.insert(all.end(), part.values, part.values + part.n);
    } else {
      all.resize(all.size() + static_cast<size_t>(part.n), 0.0F);
    }
  }
  if (!is_there) {
    return nullptr;
  }
  const auto n = static_cast<int64_t>(all.size());
  return floats(made_.emplace_back(std::move(all)).data(), n, 0);
}

Result<ModelView> lay_out(const DeviceModelSpec& spec, WeightRoom* room) {
  return Builder(spec, room).build();
}

}  // namespace logitlab::cuda
