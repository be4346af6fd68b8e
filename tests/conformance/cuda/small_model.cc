#include "small_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "models/device_spec.h"
#include "nn/work_rows.h"

namespace logitlab {
namespace {

constexpr float kEps = 1e-5F;

}  // namespace

SmallModel::SmallModel(int64_t hidden_size, int64_t vocab_size, uint32_t seed, bool is_tied)
    : d_(hidden_size), vocab_size_(vocab_size), is_tied_(is_tied), random_(seed) {
  embedding_ = matrix(vocab_size, hidden_size);
  head_.weight = is_tied ? embedding_ : matrix(vocab_size, hidden_size);
  final_norm_ = norm(hidden_size);
}

Tensor SmallModel::matrix(int64_t rows, int64_t columns) {
  const float limit = std::sqrt(3.0F / static_cast<float>(columns));
  std::uniform_real_distribution<float> uniform(-limit, limit);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  std::generate(values.begin(), values.end(), [&] { return uniform(random_); });
  std::vector<std::byte>& bytes = matrices_.emplace_back(values.size() * 2);
  row_from_float(DType::kBF16, values.data(), bytes.data(), rows * columns);
  return {bytes.data(), DType::kBF16, Shape{rows, columns}};
}

const float* SmallModel::vector(int64_t n, float low, float high) {
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float>& values = vectors_.emplace_back(static_cast<size_t>(n));
  std::generate(values.begin(), values.end(), [&] { return uniform(random_); });
  return values.data();
}

Linear SmallModel::linear(int64_t rows, int64_t columns, bool has_bias) {
  return {matrix(rows, columns), has_bias ? vector(rows, -0.5F, 0.5F) : nullptr};
}

RmsNorm SmallModel::norm(int64_t d) {
  return {vector(d, 0.8F, 1.2F), d, kEps};
}

void SmallModel::add_mamba(const Mamba2Shape& shape, bool has_bias) {
  Mamba2 mamba;
  mamba.shape = shape;
  mamba.in_proj = linear(shape.projected_size(), d_, has_bias);
  mamba.out_proj = linear(d_, shape.inner_size(), has_bias);
  Mamba2Weights& weights = mamba.weights;
  weights.conv_weight = vector(shape.conv_size() * shape.conv_kernel, -0.5F, 0.5F);
  weights.conv_bias = vector(shape.conv_size(), -0.1F, 0.1F);
  weights.dt_bias = vector(shape.n_heads, -4, -1);
  weights.a = vector(shape.n_heads, -8, -0.5F);
  weights.d = vector(shape.n_heads, 0.5F, 1.5F);
  weights.norm_weight = vector(shape.inner_size(), 0.8F, 1.2F);
  weights.norm_eps = kEps;
  mamba_.mixer = shape;
  ++mamba_.n_layers;
  layers_.push_back({norm(d_), mamba});
}

void SmallModel::add_attention(const AttentionOptions& options) {
  const int64_t q_width = options.n_heads * options.head_dim;
  const int64_t kv_width = options.n_kv_heads * options.head_dim;
  Attention attention;
  attention.q = linear(q_width, d_, options.has_bias);
  attention.k = linear(kv_width, d_, options.has_bias);
  attention.v = linear(kv_width, d_);
  attention.o = linear(d_, q_width, options.has_bias);
  if (options.has_qk_norm) {
    attention.q_norm = norm(options.head_dim);
    attention.k_norm = norm(options.head_dim);
  }
  attention.shape = {options.n_heads, options.n_kv_heads, options.head_dim,
                     1.0F / std::sqrt(static_cast<float>(options.head_dim))};
  attention.window = options.window;
  kv_.n_kv_heads = options.n_kv_heads;
  kv_.head_dim = options.head_dim;
  ++kv_.n_layers;
  layers_.push_back({norm(d_), attention, options.has_rope});
}

void SmallModel::add_mixture(const MixtureOptions& options) {
  const int64_t w = options.latent > 0 ? options.latent : d_;
  MixtureOfExperts mixture;
  mixture.router = linear(options.n_experts, d_);
  mixture.correction = vector(options.n_experts, -0.05F, 0.05F);
  for (int64_t e = 0; e < options.n_experts; ++e) {
    mixture.up.push_back(matrix(options.width, w));
    mixture.down.push_back(matrix(w, options.width));
  }
  mixture.has_latent = options.latent > 0;
  if (mixture.has_latent) {
    mixture.latent_in = linear(w, d_);
    mixture.latent_out = linear(d_, w);
  }
  mixture.has_shared = options.shared_width > 0;
  if (mixture.has_shared) {
    mixture.shared = {linear(options.shared_width, d_), linear(d_, options.shared_width),
                      options.activation};
  }
  mixture.routing = {options.n_experts,   options.n_chosen,   options.n_groups,
                     options.kept_groups, options.normalises, options.scale};
  mixture.activation = options.activation;
  layers_.push_back({norm(d_), std::move(mixture)});
}

void SmallModel::add_mlp(int64_t width, Activation activation, bool has_bias) {
  layers_.push_back(
      {norm(d_), Mlp{linear(width, d_, has_bias), linear(d_, width, has_bias), activation}});
}

void SmallModel::add_gated_mlp(int64_t width) {
  layers_.push_back({norm(d_), GatedMlp{linear(width, d_), linear(width, d_), linear(d_, width)}});
}

void SmallModel::set_rope(int64_t head_dim, RopeLayout layout, double theta) {
  RopeConfig config;
  config.theta = theta;
  rope_ = std::make_unique<Rope>(*Rope::make(config, head_dim, layout));
}

DeviceModelSpec SmallModel::spec() const {
  ModelConfig config;
  config.hidden_size = d_;
  config.vocab_size = vocab_size_;
  config.rms_norm_eps = kEps;
  DeviceModelSpec spec = device_frame(config, embedding_, head_, is_tied_, final_norm_);
  if (rope_ != nullptr) {
    logitlab::set_rope(*rope_, &spec);
  }
  for (const Layer& layer : layers_) {
    DeviceLayer& device = spec.layers.emplace_back();
    device.norm = layer.norm.weight;
    if (const auto* mamba = std::get_if<Mamba2>(&layer.mixer)) {
      device.mixer = device_mamba(*mamba);
    } else if (const auto* attention = std::get_if<Attention>(&layer.mixer)) {
      device.mixer = device_attention(*attention, layer.has_rope);
    } else if (const auto* mixture = std::get_if<MixtureOfExperts>(&layer.mixer)) {
      device.mixer = device_mixture(*mixture);
    } else if (const auto* mlp = std::get_if<Mlp>(&layer.mixer)) {
      device.mixer = device_mlp(*mlp);
    } else {
      device.mixer = device_mlp(std::get<GatedMlp>(layer.mixer));
    }
  }
  return spec;
}

DecodeState SmallModel::make_host_state() const {
  std::vector<LayerStateKind> kinds;
  for (const Layer& layer : layers_) {
    kinds.push_back(std::holds_alternative<Mamba2>(layer.mixer)      ? LayerStateKind::kMamba
                    : std::holds_alternative<Attention>(layer.mixer) ? LayerStateKind::kKv
                                                                     : LayerStateKind::kNone);
  }
  return DecodeState(kinds, kv_, mamba_);
}

std::vector<float> SmallModel::forward(ExecContext& context, DecodeState* state,
                                       std::span<const TokenId> ids) const {
  return run(context, state, ids, nullptr);
}

std::vector<float> SmallModel::step(ExecContext& context, DecodeState* state, TokenId id,
                                    std::span<const Barred> barred,
                                    std::vector<RowChoice>* choices) const {
  choices->clear();
  const Watch watch{barred, choices};
  return run(context, state, {&id, 1}, &watch);
}

MixtureOfExperts SmallModel::watched(ExecContext& context, size_t layer, const float* x,
                                     const Watch& watch, std::vector<float>* corrections) const {
  MixtureOfExperts mixture = std::get<MixtureOfExperts>(layers_[layer].mixer);
  const auto n = static_cast<size_t>(mixture.routing.n_experts);
  corrections->assign(mixture.correction, mixture.correction + n);
  mixture.correction = corrections->data();
  if (mixture.routing.n_groups > 1) {
    return mixture;
  }
  std::vector<float> logits(n);
  const LinearPart part = mixture.router.part(logits.data());
  context.backend.linear(context, x, 1, {&part, 1});
  for (const Barred& barred : watch.barred) {
    if (barred.layer == layer) {
      (*corrections)[static_cast<size_t>(barred.expert)] = -1e9F;
    }
  }
  RowChoice choice{layer, static_cast<size_t>(mixture.routing.n_chosen), {}};
  double square = 0;
  for (int64_t i = 0; i < d_; ++i) {
    square += double{x[i]} * x[i];
  }
  std::vector<float> row(static_cast<size_t>(d_));
  for (size_t e = 0; e < n; ++e) {
    const double score = 1 / (1 + std::exp(-double{logits[e]}));
    row_to_float(mixture.router.weight.dtype,
                 mixture.router.weight.data + e * mixture.router.weight.row_stride_bytes(),
                 row.data(), d_);
    double weights = 0;
    for (const float value : row) {
      weights += double{value} * value;
    }
    choice.experts.push_back(
        {static_cast<int64_t>(e), score + (*corrections)[e],
         score * (1 - score) * std::sqrt(weights * square / static_cast<double>(d_))});
  }
  std::stable_sort(choice.experts.begin(), choice.experts.end(),
                   [](const Candidate& a, const Candidate& b) { return a.choice > b.choice; });
  watch.choices->push_back(std::move(choice));
  return mixture;
}

std::vector<float> SmallModel::run(ExecContext& context, DecodeState* state,
                                   std::span<const TokenId> ids, const Watch* watch) const {
  const auto n = static_cast<int64_t>(ids.size());
  const Status reserved = state->reserve(n);
  CHECK(reserved.has_value());
  ForwardRows rows;
  rows.rows = n;
  rows.spans.push_back({state, 0, n});
  for (int64_t i = 0; i < n; ++i) {
    rows.positions.push_back(state->length() + i);
    rows.states.push_back(state);
  }
  if (rope_ != nullptr) {
    rows.cosine.resize(static_cast<size_t>(n * rope_->rotary_dim() / 2));
    rows.sine.resize(rows.cosine.size());
    rope_->angles(rows.positions, rows.cosine.data(), rows.sine.data());
  }
  WorkRows hidden(n, d_);
  WorkRows normed(n, d_);
  context.backend.embed(context, embedding_, ids, hidden.data());
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto index = static_cast<int64_t>(i);
    layer.norm.apply(context, hidden.data(), n, normed.data());
    if (const auto* mamba = std::get_if<Mamba2>(&layer.mixer)) {
      mamba->apply(context, rows, index, normed.data(), hidden.data());
    } else if (const auto* attention = std::get_if<Attention>(&layer.mixer)) {
      attention->apply(context, layer.has_rope ? rope_.get() : nullptr, rows, index, normed.data(),
                       hidden.data());
    } else if (const auto* mixture = std::get_if<MixtureOfExperts>(&layer.mixer)) {
      std::vector<float> corrections;
      (watch != nullptr ? watched(context, i, normed.data(), *watch, &corrections) : *mixture)
          .apply(context, n, normed.data(), hidden.data());
    } else if (const auto* mlp = std::get_if<Mlp>(&layer.mixer)) {
      mlp->apply(context, n, normed.data(), hidden.data());
    } else {
      std::get<GatedMlp>(layer.mixer).apply(context, n, normed.data(), hidden.data());
    }
  }
  state->advance(n);
  final_norm_.apply(context, hidden.data(), n, hidden.data());
  std::vector<float> logits(static_cast<size_t>(n * vocab_size_));
  const LinearPart part = head_.part(logits.data());
  context.backend.linear(context, hidden.data(), n, {&part, 1});
  return logits;
}

}  // namespace logitlab
