#include "models/arch/nemotron_h.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <utility>
#include <variant>

#include <nlohmann/json.hpp>

#include "models/batch.h"
#include "models/device_spec.h"
#include "models/gguf_keys.h"
#include "models/weight_totals.h"
#include "nn/layers.h"
#include "nn/mamba2.h"
#include "nn/moe.h"
#include "nn/work_rows.h"

namespace logitlab {
namespace {

constexpr std::array<std::string_view, 1> kModelTypes = {"nemotron_h"};
constexpr std::array<std::string_view, 2> kGgufArchitectures = {"nemotron_h", "nemotron_h_moe"};

// ---- names -------------------------------------------------------------------------------------

// Where each weight is in a file of one kind. Those of a layer follow `layer_prefix` and its
// number.
struct Names {
  std::string embedding, final_norm, head, layer_prefix;
  std::string_view norm;
  // Mamba-2
  std::string_view in_proj, conv, dt_bias, a, d, gated_norm, out_proj;
  // attention
  std::string_view q, k, v, o;
  // mixture; "{}" is the expert
  std::string_view router, correction, up_stacked, down_stacked, up_single, down_single, shared_up,
      shared_down, latent_in, latent_out;
  // MLP
  std::string_view up, down;
  bool a_is_log = false;  // the file has log(-a)
};

// The root of the tensors: the hub's files and the library's own differ, and wrappers of several
// modalities put their word in front.
Names huggingface_names(const WeightStore& store) {
  Names names;
  std::string wrapper;
  std::string root = "backbone.";
  for (const std::string_view front : {"", "language_model."}) {
    for (const std::string_view inner : {"backbone.", "model."}) {
      if (store.has(fmt::format("{}{}norm_f.weight", front, inner))) {
        wrapper = front;
        root = fmt::format("{}{}", front, inner);
      }
    }
  }
  const bool is_singular = store.has(root + "embedding.weight");
  names.embedding = root + (is_singular ? "embedding" : "embeddings");
  names.final_norm = root + "norm_f";
  names.head = wrapper + "lm_head";
  names.layer_prefix = root + "layers.";
  names.norm = "norm";
  names.in_proj = "mixer.in_proj";
  names.conv = "mixer.conv1d";
  names.dt_bias = "mixer.dt_bias";
  names.a = "mixer.A_log";
  names.d = "mixer.D";
  names.gated_norm = "mixer.norm";
  names.out_proj = "mixer.out_proj";
  names.q = "mixer.q_proj";
  names.k = "mixer.k_proj";
  names.v = "mixer.v_proj";
  names.o = "mixer.o_proj";
  names.router = "mixer.gate";
  names.correction = "mixer.gate.e_score_correction_bias";
  names.up_stacked = "mixer.experts.up_proj";
  names.down_stacked = "mixer.experts.down_proj";
  names.up_single = "mixer.experts.{}.up_proj.weight";
  names.down_single = "mixer.experts.{}.down_proj.weight";
  names.shared_up = "mixer.shared_experts.up_proj";
  names.shared_down = "mixer.shared_experts.down_proj";
  names.latent_in = "mixer.fc1_latent_proj";
  names.latent_out = "mixer.fc2_latent_proj";
  names.up = "mixer.up_proj";
  names.down = "mixer.down_proj";
  names.a_is_log = true;
  return names;
}

Names gguf_names() {
  Names names;
  names.embedding = "token_embd";
  names.final_norm = "output_norm";
  names.head = "output";
  names.layer_prefix = "blk.";
  names.norm = "attn_norm";
  names.in_proj = "ssm_in";
  names.conv = "ssm_conv1d";
  names.dt_bias = "ssm_dt.bias";
  names.a = "ssm_a";
  names.d = "ssm_d";
  names.gated_norm = "ssm_norm";
  names.out_proj = "ssm_out";
  names.q = "attn_q";
  names.k = "attn_k";
  names.v = "attn_v";
  names.o = "attn_output";
  names.router = "ffn_gate_inp";
  names.correction = "exp_probs_b.bias";
  names.up_stacked = "ffn_up_exps.weight";
  names.down_stacked = "ffn_down_exps.weight";
  names.up_single = "ffn_up.{}.weight";
  names.down_single = "ffn_down.{}.weight";
  names.shared_up = "ffn_up_shexp";
  names.shared_down = "ffn_down_shexp";
  names.latent_in = "ffn_latent_down";
  names.latent_out = "ffn_latent_up";
  names.up = "ffn_up";
  names.down = "ffn_down";
  return names;
}

// ---- weights -----------------------------------------------------------------------------------

struct Layer {
  RmsNorm norm;
  std::variant<Mamba2, Attention, MixtureOfExperts, Mlp> mixer;
};

// All weights of a model, as views into the store.
struct Weights {
  Tensor embedding;
  std::vector<Layer> layers;
  RmsNorm final_norm;
  Linear head;
  bool has_own_head = true;                 // false: the embedding is the head
  std::deque<std::vector<float>> computed;  // what the mixers need and the file holds otherwise
};

// Binds the weights of one layer after the other.
class Binder {
 public:
  Binder(const ModelConfig& config, const Names& names, WeightStore* store)
      : config_(config), names_(names), store_(store) {}

  Result<Weights> bind() {
    const int64_t d = config_.hidden_size;
    const std::string embedding = names_.embedding + ".weight";
    const std::string head = names_.head + ".weight";
    ASSIGN_OR_RETURN(weights_.embedding,
                     store_->matrix(embedding, config_.vocab_size, d, Op::kEmbed));
    // transformers never ties this family: a head that is there counts, whatever the flag says.
    weights_.has_own_head = store_->has(head);
    ASSIGN_OR_RETURN(weights_.head.weight, store_->matrix(weights_.has_own_head ? head : embedding,
                                                          config_.vocab_size, d, Op::kLinear));
    for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
      prefix_ = fmt::format("{}{}.", names_.layer_prefix, i);
      ASSIGN_OR_RETURN(Layer layer, bind_layer(config_.layer_kinds[static_cast<size_t>(i)]));
      weights_.layers.push_back(std::move(layer));
    }
    ASSIGN_OR_RETURN(weights_.final_norm, norm(names_.final_norm));
    return std::move(weights_);
  }

 private:
  [[nodiscard]] std::string full(std::string_view part) const {
    return prefix_ + std::string(part);
  }

  Result<Linear> linear(std::string_view part, int64_t out, int64_t in) {
    return store_->linear(full(part) + ".weight", full(part) + ".bias", out, in);
  }
  Result<RmsNorm> norm(std::string_view stem) {
    ASSIGN_OR_RETURN(const float* weight,
                     store_->vector(fmt::format("{}.weight", stem), config_.hidden_size));
    return RmsNorm{weight, config_.hidden_size, config_.rms_norm_eps};
  }
  // One number a head: a vector, or with an axis of length one, as GGUF files have it.
  Result<const float*> per_head(std::string_view part, int64_t n) {
    const std::array<Shape, 3> shapes = {Shape{n}, Shape{n, 1}, Shape{1, n}};
    return store_->values(full(part), shapes);
  }

  Result<Layer> bind_layer(LayerKind kind) {
    Layer layer;
    ASSIGN_OR_RETURN(layer.norm, norm(full(names_.norm)));
    switch (kind) {
      case LayerKind::kMamba: {
        ASSIGN_OR_RETURN(layer.mixer, mamba());
        return layer;
      }
      case LayerKind::kAttention: {
        ASSIGN_OR_RETURN(layer.mixer, attention());
        return layer;
      }
      case LayerKind::kMoe: {
        ASSIGN_OR_RETURN(layer.mixer, mixture());
        return layer;
      }
      default: {
        ASSIGN_OR_RETURN(layer.mixer, mlp(names_.up, names_.down, config_.intermediate_size));
        return layer;
      }
    }
  }

  Result<Mamba2> mamba() {
    const MambaConfig& config = *config_.mamba;
    Mamba2 mixer;
    mixer.shape = {config.mamba_num_heads, config.mamba_head_dim, config.ssm_state_size,
                   config.n_groups, config.conv_kernel};
    const Mamba2Shape& shape = mixer.shape;
    const int64_t d = config_.hidden_size;
    ASSIGN_OR_RETURN(mixer.in_proj, linear(names_.in_proj, shape.projected_size(), d));
    ASSIGN_OR_RETURN(mixer.out_proj, linear(names_.out_proj, d, shape.inner_size()));
    Mamba2Weights& weights = mixer.weights;
    const int64_t channels = shape.conv_size();
    const std::array<Shape, 2> conv = {Shape{channels, 1, shape.conv_kernel},
                                       Shape{channels, shape.conv_kernel}};
    ASSIGN_OR_RETURN(weights.conv_weight, store_->values(full(names_.conv) + ".weight", conv));
    ASSIGN_OR_RETURN(weights.conv_bias,
                     store_->optional_vector(full(names_.conv) + ".bias", channels));
    ASSIGN_OR_RETURN(weights.dt_bias, per_head(names_.dt_bias, shape.n_heads));
    ASSIGN_OR_RETURN(weights.a, per_head(names_.a, shape.n_heads));
    if (names_.a_is_log && weights.a != nullptr) {
      std::vector<float>& a = weights_.computed.emplace_back(weights.a, weights.a + shape.n_heads);
      std::transform(a.begin(), a.end(), a.begin(), [](float log) { return -std::exp(log); });
      weights.a = a.data();
    }
    ASSIGN_OR_RETURN(weights.d, per_head(names_.d, shape.n_heads));
    const std::array<Shape, 2> norm = {Shape{shape.inner_size()},
                                       Shape{shape.n_groups, shape.inner_size() / shape.n_groups}};
    ASSIGN_OR_RETURN(weights.norm_weight,
                     store_->values(full(names_.gated_norm) + ".weight", norm));
    weights.norm_eps = config_.rms_norm_eps;
    weights.time_step_low = config.time_step_low;
    weights.time_step_high = config.time_step_high;
    return mixer;
  }

  Result<Attention> attention() {
    const int64_t d = config_.hidden_size;
    const int64_t q_width = config_.num_attention_heads * config_.head_dim;
    const int64_t kv_width = config_.num_key_value_heads * config_.head_dim;
    Attention attention;
    ASSIGN_OR_RETURN(attention.q, linear(names_.q, q_width, d));
    ASSIGN_OR_RETURN(attention.k, linear(names_.k, kv_width, d));
    ASSIGN_OR_RETURN(attention.v, linear(names_.v, kv_width, d));
    ASSIGN_OR_RETURN(attention.o, linear(names_.o, d, q_width));
    attention.shape = {config_.num_attention_heads, config_.num_key_value_heads, config_.head_dim,
                       1.0F / std::sqrt(static_cast<float>(config_.head_dim))};
    return attention;
  }

  [[nodiscard]] Activation activation() const {
    return config_.mlp_hidden_act == "silu" ? Activation::kSilu : Activation::kRelu2;
  }

  Result<Mlp> mlp(std::string_view up, std::string_view down, int64_t width) {
    Mlp mlp;
    ASSIGN_OR_RETURN(mlp.up, linear(up, width, config_.hidden_size));
    ASSIGN_OR_RETURN(mlp.down, linear(down, config_.hidden_size, width));
    mlp.activation = activation();
    return mlp;
  }

  Result<MixtureOfExperts> mixture() {
    const MoeConfig& config = *config_.moe;
    const int64_t d = config_.hidden_size;
    const int64_t n = config.n_routed_experts;
    const int64_t f = config.moe_intermediate_size;
    const int64_t w = config.moe_latent_size > 0 ? config.moe_latent_size : d;
    MixtureOfExperts moe;
    moe.routing = {n,
                   config.num_experts_per_tok,
                   config.n_group,
                   config.topk_group,
                   config.norm_topk_prob,
                   config.routed_scaling_factor};
    moe.activation = activation();
    ASSIGN_OR_RETURN(moe.router.weight,
                     store_->matrix(full(names_.router) + ".weight", n, d, Op::kLinear));
    ASSIGN_OR_RETURN(moe.correction, store_->vector(full(names_.correction), n));
    const auto single = [&](std::string_view pattern) {
      return [this, pattern](int64_t e) { return full(fmt::format(fmt::runtime(pattern), e)); };
    };
    ASSIGN_OR_RETURN(moe.up,
                     store_->experts(full(names_.up_stacked), single(names_.up_single), n, f, w));
    ASSIGN_OR_RETURN(
        moe.down, store_->experts(full(names_.down_stacked), single(names_.down_single), n, w, f));
    moe.has_shared = config.moe_shared_expert_intermediate_size > 0;
    if (moe.has_shared) {
      ASSIGN_OR_RETURN(moe.shared, mlp(names_.shared_up, names_.shared_down,
                                       config.moe_shared_expert_intermediate_size));
    }
    moe.has_latent = config.moe_latent_size > 0;
    if (moe.has_latent) {
      ASSIGN_OR_RETURN(moe.latent_in, linear(names_.latent_in, w, d));
      ASSIGN_OR_RETURN(moe.latent_out, linear(names_.latent_out, d, w));
    }
    return moe;
  }

  const ModelConfig& config_;
  const Names& names_;
  WeightStore* store_;
  std::string prefix_;
  Weights weights_;
};

Result<Weights> bind(const ModelConfig& config, ModelKind kind, WeightStore* store) {
  const Names names = kind == ModelKind::kGguf ? gguf_names() : huggingface_names(*store);
  return Binder(config, names, store).bind();
}

// ---- what it costs -----------------------------------------------------------------------------

KvShape kv_shape_of(const ModelConfig& config) {
  return {config.count(LayerKind::kAttention), config.num_key_value_heads, config.head_dim};
}

MambaStateShape mamba_shape_of(const ModelConfig& config) {
  MambaStateShape shape;
  if (config.mamba) {
    shape.n_layers = config.count(LayerKind::kMamba);
    shape.mixer = {config.mamba->mamba_num_heads, config.mamba->mamba_head_dim,
                   config.mamba->ssm_state_size, config.mamba->n_groups, config.mamba->conv_kernel};
  }
  return shape;
}

std::vector<LayerStateKind> state_kinds_of(const ModelConfig& config) {
  std::vector<LayerStateKind> kinds;
  for (const LayerKind kind : config.layer_kinds) {
    kinds.push_back(kind == LayerKind::kMamba       ? LayerStateKind::kMamba
                    : kind == LayerKind::kAttention ? LayerStateKind::kKv
                                                    : LayerStateKind::kNone);
  }
  return kinds;
}

WeightTotals totals_of(const Weights& weights, const std::vector<WeightEntry>& entries) {
  WeightTotals totals = weight_totals(entries, weights.embedding, weights.has_own_head);
  for (const Layer& layer : weights.layers) {
    if (const auto* moe = std::get_if<MixtureOfExperts>(&layer.mixer)) {
      const int64_t idle = moe->routing.n_experts - moe->routing.n_chosen;
      totals.leave_out(idle, moe->up);
      totals.leave_out(idle, moe->down);
    }
  }
  return totals;
}

// ---- the model ---------------------------------------------------------------------------------

class NemotronHModel final : public Model {
 public:
  NemotronHModel(ModelConfig config, Weights weights, WeightStore store,
                 std::unique_ptr<DeviceModel> device)
      : config_(std::move(config)),
        weights_(std::move(weights)),
        store_(std::move(store)),
        totals_(totals_of(weights_, store_.entries())),
        device_(std::move(device)) {}

  [[nodiscard]] const ModelConfig& config() const override { return config_; }
  [[nodiscard]] const std::vector<WeightEntry>& weights() const override {
    return store_.entries();
  }
  [[nodiscard]] const std::vector<std::string>& warnings() const override {
    return store_.warnings();
  }
  [[nodiscard]] const WeightStore* weight_store() const override { return &store_; }
  [[nodiscard]] int64_t parameter_count() const override { return totals_.parameter_count; }
  [[nodiscard]] size_t weight_bytes_per_token() const override {
    return totals_.weight_bytes_per_token;
  }
  [[nodiscard]] size_t state_bytes(int64_t n_positions) const override {
    if (device_ != nullptr) {
      return device_->state_bytes(n_positions);
    }
    return KvCache::bytes_for(kv_shape_of(config_), n_positions) +
           MambaState::bytes_for(mamba_shape_of(config_));
  }
  [[nodiscard]] const DeviceModel* device_model() const override { return device_.get(); }
  [[nodiscard]] DecodeState make_state() const override {
    if (device_ != nullptr) {
      return DecodeState(device_->make_state());
    }
    return DecodeState(state_kinds_of(config_), kv_shape_of(config_), mamba_shape_of(config_));
  }
  [[nodiscard]] Result<Logits> forward(ExecContext& context,
                                       std::span<const SequenceChunk> batch) const override;

 private:
  ModelConfig config_;
  Weights weights_;
  WeightStore store_;
  WeightTotals totals_;
  std::unique_ptr<DeviceModel> device_;  // null: the layers run on the host
};

Result<Logits> NemotronHModel::forward(ExecContext& context,
                                       std::span<const SequenceChunk> batch) const {
  if (device_ != nullptr) {
    return forward_on_device(*device_, config_.vocab_size, batch);
  }
  RETURN_IF_ERROR(check_batch(batch, config_.vocab_size));
  for (const SequenceChunk& chunk : batch) {
    RETURN_IF_ERROR(chunk.state->reserve(static_cast<int64_t>(chunk.ids.size())));
  }
  BatchRows flat = flatten(batch);
  ForwardRows rows;
  rows.rows = static_cast<int64_t>(flat.ids.size());
  rows.positions = std::move(flat.positions);
  rows.states = std::move(flat.states);
  rows.spans = std::move(flat.spans);
  WorkRows hidden(rows.rows, config_.hidden_size);
  WorkRows normed(rows.rows, config_.hidden_size);
  context.backend.embed(context, weights_.embedding, flat.ids, hidden.data());
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const Layer& layer = weights_.layers[i];
    const auto index = static_cast<int64_t>(i);
    layer.norm.apply(context, hidden.data(), rows.rows, normed.data());
    if (const auto* mamba = std::get_if<Mamba2>(&layer.mixer)) {
      mamba->apply(context, rows, index, normed.data(), hidden.data());
    } else if (const auto* attention = std::get_if<Attention>(&layer.mixer)) {
      attention->apply(context, /*rope=*/nullptr, rows, index, normed.data(), hidden.data());
    } else if (const auto* moe = std::get_if<MixtureOfExperts>(&layer.mixer)) {
      moe->apply(context, rows.rows, normed.data(), hidden.data());
    } else {
      std::get<Mlp>(layer.mixer).apply(context, rows.rows, normed.data(), hidden.data());
    }
  }
  for (const SequenceChunk& chunk : batch) {
    chunk.state->advance(static_cast<int64_t>(chunk.ids.size()));
  }
  return project_logits(context, weights_.final_norm, weights_.head, hidden.data(),
                        flat.logit_rows);
}

Result<ModelPlan> plan(const ModelConfig& config, ModelKind kind, WeightStore* store) {
  ASSIGN_OR_RETURN(const Weights weights, bind(config, kind, store));
  ModelPlan plan;
  totals_of(weights, store->entries()).fill(&plan);
  plan.state.fixed_bytes = MambaState::bytes_for(mamba_shape_of(config));
  plan.state.position_bytes = KvCache::bytes_for(kv_shape_of(config), KvCache::kPagePositions) /
                              static_cast<size_t>(KvCache::kPagePositions);
  if (store->backend().runs_whole_models()) {
    plan.state = device_state_cost(plan.state);
  }
  return plan;
}

DeviceModelSpec device_spec(const ModelConfig& config, const Weights& weights) {
  DeviceModelSpec spec = device_frame(config, weights.embedding, weights.head,
                                      !weights.has_own_head, weights.final_norm);
  for (const Layer& layer : weights.layers) {
    DeviceLayer& device = spec.layers.emplace_back();
    device.norm = layer.norm.weight;
    if (const auto* mamba = std::get_if<Mamba2>(&layer.mixer)) {
      device.mixer = device_mamba(*mamba);
    } else if (const auto* attention = std::get_if<Attention>(&layer.mixer)) {
      device.mixer = device_attention(*attention, /*has_rope=*/false);
    } else if (const auto* moe = std::get_if<MixtureOfExperts>(&layer.mixer)) {
      device.mixer = device_mixture(*moe);
    } else {
      device.mixer = device_mlp(std::get<Mlp>(layer.mixer));
    }
  }
  return spec;
}

Result<std::shared_ptr<const Model>> load(const ModelConfig& config, ModelKind kind,
                                          WeightStore store, ExecContext& context,
                                          const LoadOptions& options) {
  RETURN_IF_ERROR(bind(config, kind, &store));
  RETURN_IF_ERROR(store.begin_load());
  ASSIGN_OR_RETURN(Weights weights, bind(config, kind, &store));
  std::unique_ptr<DeviceModel> device;
  if (context.backend.runs_whole_models()) {
    ASSIGN_OR_RETURN(device,
                     load_on_device(device_spec(config, weights), options, &store, context));
  } else {
    RETURN_IF_ERROR(store.finish_load(context));
  }
  return std::make_shared<const NemotronHModel>(config, std::move(weights), std::move(store),
                                                std::move(device));
}

}  // namespace

ArchitectureEntry nemotron_h_architecture() {
  return {"nemotron_h",
          kModelTypes,
          kGgufArchitectures,
          nemotron_h_config_from_hf,
          nemotron_h_config_from_gguf,
          plan,
          load};
}

}  // namespace logitlab
