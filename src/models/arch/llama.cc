#include "models/arch/llama.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "formats/hf_config.h"
#include "models/batch.h"
#include "models/device_spec.h"
#include "models/gguf_keys.h"
#include "models/weight_totals.h"
#include "nn/layers.h"

namespace logitlab {
namespace {

constexpr std::array<std::string_view, 4> kModelTypes = {"llama", "mistral", "qwen2", "qwen3"};
constexpr std::array<std::string_view, 3> kGgufArchitectures = {"llama", "qwen2", "qwen3"};

constexpr int64_t kMaxSize = kMaxModelSize;
constexpr int64_t kMaxLayers = kMaxModelLayers;

// What transformers' config classes fill in when a key is missing.
struct FamilyDefaults {
  std::string_view model_type;
  int64_t num_key_value_heads;  // 0: as many as num_attention_heads
  int64_t head_dim;             // 0: hidden_size / num_attention_heads
  int64_t sliding_window;       // of a missing key; 0: none
  bool window_needs_switch;     // use_sliding_window must be true
};
constexpr std::array<FamilyDefaults, 4> kFamilies = {{
    {"llama", 0, 0, 0, true},
    {"mistral", 8, 0, 4096, false},
    {"qwen2", 32, 0, 4096, true},
    {"qwen3", 32, 128, 4096, true},
}};

// ---- config.json -----------------------------------------------------------------------------

Result<double> positive_float(const Json& object, std::string_view key, std::string_view where,
                              double missing) {
  ASSIGN_OR_RETURN(const std::optional<double> value, get_float(object, key, where));
  const double number = value.value_or(missing);
  if (!(number > 0) || !std::isfinite(number)) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want a number above 0", where, key,
                number);
  }
  return number;
}

// Reads the scaling keys of rope_scaling (4.x files) or rope_parameters (5.x files).
Status read_rope_object(const Json& object, std::string_view where, RopeConfig* rope) {
  ASSIGN_OR_RETURN(std::optional<std::string> type, get_string(object, "rope_type", where));
  if (!type) {
    ASSIGN_OR_RETURN(type, get_string(object, "type", where));
  }
  rope->type = type.value_or("default");
  struct Number {
    std::string_view key;
    double* value;
  };
  for (const Number& number :
       {Number{"rope_theta", &rope->theta}, Number{"factor", &rope->factor},
        Number{"low_freq_factor", &rope->low_freq_factor},
        Number{"high_freq_factor", &rope->high_freq_factor}, Number{"beta_fast", &rope->beta_fast},
        Number{"beta_slow", &rope->beta_slow}}) {
    ASSIGN_OR_RETURN(*number.value, positive_float(object, number.key, where, *number.value));
  }
  ASSIGN_OR_RETURN(const auto partial, positive_float(object, "partial_rotary_factor", where, 1.0));
  if (partial != 1.0) {
    return fail(ErrorCode::kUnsupported, "{}: partial_rotary_factor {} is not supported, want 1.0",
                where, partial);
  }
  ASSIGN_OR_RETURN(const auto original, get_int(object, "original_max_position_embeddings", where));
  rope->original_max_position_embeddings =
      original.value_or(rope->original_max_position_embeddings);
  ASSIGN_OR_RETURN(const auto truncate, get_bool(object, "truncate", where));
  rope->truncate = truncate.value_or(true);
  ASSIGN_OR_RETURN(rope->attention_factor, get_float(object, "attention_factor", where));
  ASSIGN_OR_RETURN(rope->mscale, get_float(object, "mscale", where));
  ASSIGN_OR_RETURN(rope->mscale_all_dim, get_float(object, "mscale_all_dim", where));
  const bool lacks_factor = !object.contains("factor") || object["factor"].is_null();
  if (rope->type == "yarn" && lacks_factor) {
    // max_position_embeddings over the original length; the caller fills it in.
    rope->factor = 0;
  }
  return {};
}

Result<RopeConfig> rope_from_hf(const Json& json, std::string_view where,
                                int64_t max_position_embeddings) {
  RopeConfig rope;
  rope.original_max_position_embeddings = max_position_embeddings;
  ASSIGN_OR_RETURN(rope.theta, positive_float(json, "rope_theta", where, rope.theta));
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    ASSIGN_OR_RETURN(const Json* object, get_object(json, key, where));
    if (object != nullptr) {
      RETURN_IF_ERROR(read_rope_object(*object, fmt::format("{}: {}", where, key), &rope));
    }
  }
  if (rope.type == "yarn" && rope.factor == 0 && rope.original_max_position_embeddings > 0) {
    rope.factor = static_cast<double>(max_position_embeddings) /
                  static_cast<double>(rope.original_max_position_embeddings);
  }
  return rope;
}

Result<std::vector<int64_t>> windows_from_hf(const Json& json, std::string_view where,
                                             const FamilyDefaults& family, int64_t n_layers) {
  std::vector<int64_t> windows(static_cast<size_t>(n_layers), 0);
  if (family.sliding_window == 0) {
    return windows;
  }
  int64_t window = 0;
  if (!json.contains("sliding_window")) {
    window = family.sliding_window;
  } else {
    ASSIGN_OR_RETURN(const auto value, get_int(json, "sliding_window", where));
    window = value.value_or(0);
  }
  if (window < 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: sliding_window {}, want a number above 0", where,
                window);
  }
  int64_t first = 0;
  if (family.window_needs_switch) {
    ASSIGN_OR_RETURN(const auto used, get_bool(json, "use_sliding_window", where));
    if (!used.value_or(false)) {
      return windows;
    }
    ASSIGN_OR_RETURN(const auto from, get_int(json, "max_window_layers", where));
    first = from.value_or(28);
  }
  ASSIGN_OR_RETURN(const auto types, get_string_list(json, "layer_types", where));
  const bool by_type = family.window_needs_switch && types.has_value();
  if (by_type && types->size() != windows.size()) {
    return fail(ErrorCode::kInvalidArgument, "{}: layer_types has {} entries, want {}", where,
                types->size(), n_layers);
  }
  for (size_t i = 0; i < windows.size(); ++i) {
    const bool slides =
        by_type ? (*types)[i] == "sliding_attention" : static_cast<int64_t>(i) >= first;
    windows[i] = slides ? window : 0;
  }
  return windows;
}

Status check_divisions(const ModelConfig& config, std::string_view where) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: {} attention heads are not a multiple of {} key-value heads", where,
                config.num_attention_heads, config.num_key_value_heads);
  }
  if (config.head_dim <= 0 || config.head_dim % 2 != 0 || config.head_dim > kMaxSize) {
    return fail(ErrorCode::kInvalidArgument, "{}: head_dim {}, want an even number above 0", where,
                config.head_dim);
  }
  return {};
}

Result<ModelConfig> config_from_hf(const Json& json, std::string_view where) {
  ModelConfig config;
  ASSIGN_OR_RETURN(const auto model_type, get_string(json, "model_type", where));
  const auto* family = std::find_if(
      kFamilies.begin(), kFamilies.end(),
      [&](const FamilyDefaults& f) { return f.model_type == model_type.value_or(""); });
  CHECK(family != kFamilies.end()) << "the registry gave a model_type that is not ours";
  ASSIGN_OR_RETURN(const auto names, get_string_list(json, "architectures", where));
  config.architecture = names && !names->empty() ? names->front() : std::string(*model_type);

  ASSIGN_OR_RETURN(config.vocab_size, require_int(json, "vocab_size", where, 1, kMaxSize));
  ASSIGN_OR_RETURN(config.hidden_size, require_int(json, "hidden_size", where, 1, kMaxSize));
  ASSIGN_OR_RETURN(config.intermediate_size,
                   require_int(json, "intermediate_size", where, 1, kMaxSize));
  ASSIGN_OR_RETURN(config.num_hidden_layers,
                   require_int(json, "num_hidden_layers", where, 1, kMaxLayers));
  ASSIGN_OR_RETURN(config.num_attention_heads,
                   require_int(json, "num_attention_heads", where, 1, kMaxSize));
  ASSIGN_OR_RETURN(const auto n_kv, get_int(json, "num_key_value_heads", where));
  const int64_t missing_kv = family->num_key_value_heads;
  config.num_key_value_heads =
      n_kv.value_or(missing_kv == 0 ? config.num_attention_heads : missing_kv);
  if (config.num_key_value_heads < 1) {
    return fail(ErrorCode::kInvalidArgument, "{}: num_key_value_heads {}, want at least 1", where,
                config.num_key_value_heads);
  }
  ASSIGN_OR_RETURN(const auto head_dim, get_int(json, "head_dim", where));
  const int64_t missing_dim =
      family->head_dim != 0 ? family->head_dim : config.hidden_size / config.num_attention_heads;
  config.head_dim = head_dim.value_or(missing_dim);
  RETURN_IF_ERROR(check_divisions(config, where));

  ASSIGN_OR_RETURN(const double eps, positive_float(json, "rms_norm_eps", where, 1e-6));
  config.rms_norm_eps = static_cast<float>(eps);
  ASSIGN_OR_RETURN(const auto positions, get_int(json, "max_position_embeddings", where));
  config.max_position_embeddings = std::max<int64_t>(0, positions.value_or(0));
  ASSIGN_OR_RETURN(const auto tied, get_bool(json, "tie_word_embeddings", where));
  config.tie_word_embeddings = tied.value_or(false);
  ASSIGN_OR_RETURN(const auto activation, get_string(json, "hidden_act", where));
  if (activation.value_or("silu") != "silu") {
    return fail(ErrorCode::kUnsupported, "{}: hidden_act '{}' is not supported, want 'silu'", where,
                *activation);
  }
  ASSIGN_OR_RETURN(config.rope, rope_from_hf(json, where, config.max_position_embeddings));
  ASSIGN_OR_RETURN(config.layer_windows,
                   windows_from_hf(json, where, *family, config.num_hidden_layers));
  ASSIGN_OR_RETURN(auto dtype, get_string(json, "dtype", where));
  if (!dtype) {
    ASSIGN_OR_RETURN(dtype, get_string(json, "torch_dtype", where));
  }
  config.dtype = dtype.value_or("");
  config.layer_kinds.assign(static_cast<size_t>(config.num_hidden_layers), LayerKind::kDecoder);
  return config;
}

// ---- GGUF --------------------------------------------------------------------------------------

Result<RopeConfig> rope_from_gguf(const GgufMetadata& metadata, const GgufKeys& keys,
                                  int64_t max_position_embeddings) {
  RopeConfig rope;
  ASSIGN_OR_RETURN(rope.theta, keys.number("rope.freq_base", rope.theta));
  ASSIGN_OR_RETURN(const auto type, metadata.get_string(keys.key("rope.scaling.type")));
  if (!type || *type == "none") {
    return rope;
  }
  rope.type = std::string(*type);
  ASSIGN_OR_RETURN(rope.factor, keys.number("rope.scaling.factor", 1.0));
  ASSIGN_OR_RETURN(rope.original_max_position_embeddings,
                   keys.size("rope.scaling.original_context_length",
                             std::max<int64_t>(1, max_position_embeddings)));
  ASSIGN_OR_RETURN(rope.beta_fast, keys.number("rope.scaling.yarn_beta_fast", rope.beta_fast));
  ASSIGN_OR_RETURN(rope.beta_slow, keys.number("rope.scaling.yarn_beta_slow", rope.beta_slow));
  ASSIGN_OR_RETURN(const double scale, keys.number("rope.scaling.attn_factor", 1.0));
  if (rope.type == "yarn" && rope.factor > 1.0) {
    rope.attention_factor = scale * (0.1 * std::log(rope.factor) + 1.0);
  }
  return rope;
}

Result<ModelConfig> config_from_gguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  const std::string& where = metadata.where();
  ModelConfig config;
  ASSIGN_OR_RETURN(config.architecture, metadata.architecture());
  const GgufKeys keys(metadata, config.architecture);
  ASSIGN_OR_RETURN(const auto experts, metadata.get_int(keys.key("expert_count")));
  if (experts.value_or(0) != 0) {
    return fail(ErrorCode::kUnsupported,
                "{}: {} is {}: mixtures of experts are not supported in this architecture", where,
                keys.key("expert_count"), *experts);
  }
  ASSIGN_OR_RETURN(config.num_hidden_layers, keys.size("block_count", -1, kMaxLayers));
  ASSIGN_OR_RETURN(config.hidden_size, keys.size("embedding_length", -1));
  ASSIGN_OR_RETURN(config.intermediate_size, keys.size("feed_forward_length", -1));
  ASSIGN_OR_RETURN(config.num_attention_heads, keys.size("attention.head_count", -1));
  ASSIGN_OR_RETURN(config.num_key_value_heads,
                   keys.size("attention.head_count_kv", config.num_attention_heads));
  ASSIGN_OR_RETURN(config.max_position_embeddings,
                   keys.size("context_length", -1, int64_t{1} << 40));
  const int64_t even = std::max<int64_t>(1, config.hidden_size / config.num_attention_heads);
  ASSIGN_OR_RETURN(config.head_dim, keys.size("attention.key_length", even));
  ASSIGN_OR_RETURN(const int64_t value_dim, keys.size("attention.value_length", config.head_dim));
  ASSIGN_OR_RETURN(const int64_t rotary, keys.size("rope.dimension_count", config.head_dim));
  if (value_dim != config.head_dim || rotary != config.head_dim) {
    return fail(ErrorCode::kUnsupported,
                "{}: head sizes key {}, value {}, rotary {} differ; they must be the same", where,
                config.head_dim, value_dim, rotary);
  }
  RETURN_IF_ERROR(check_divisions(config, where));
  ASSIGN_OR_RETURN(const double eps, keys.positive("attention.layer_norm_rms_epsilon", 1e-6));
  config.rms_norm_eps = static_cast<float>(eps);
  ASSIGN_OR_RETURN(config.rope, rope_from_gguf(metadata, keys, config.max_position_embeddings));
  config.layer_windows.assign(static_cast<size_t>(config.num_hidden_layers), 0);
  const TensorEntry* embedding = file.checkpoint().find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2) {
    return fail(ErrorCode::kNotFound, "{}: no matrix token_embd.weight", where);
  }
  config.vocab_size = embedding->shape[0];
  if (config.vocab_size < 1 || config.vocab_size > kMaxSize) {
    return fail(ErrorCode::kInvalidArgument, "{}: token_embd.weight has {} rows, want 1 to {}",
                where, config.vocab_size, kMaxSize);
  }
  config.tie_word_embeddings = file.checkpoint().find("output.weight") == nullptr;
  config.dtype = std::string(name(embedding->dtype));
  config.layer_kinds.assign(static_cast<size_t>(config.num_hidden_layers), LayerKind::kDecoder);
  return config;
}

// ---- weights -----------------------------------------------------------------------------------

// Where each weight is in a file of one kind; "{}" is the layer.
struct Names {
  std::string_view embedding, final_norm, head;
  std::string_view layer_prefix;
  std::string_view input_norm, q, k, v, o, q_norm, k_norm, mlp_norm, gate, up, down;
};

constexpr Names kHfNames = {"model.embed_tokens", "model.norm",       "lm_head",
                            "model.layers.",      "input_layernorm",  "self_attn.q_proj",
                            "self_attn.k_proj",   "self_attn.v_proj", "self_attn.o_proj",
                            "self_attn.q_norm",   "self_attn.k_norm", "post_attention_layernorm",
                            "mlp.gate_proj",      "mlp.up_proj",      "mlp.down_proj"};

constexpr Names kGgufNames = {"token_embd",  "output_norm", "output",      "blk.",
                              "attn_norm",   "attn_q",      "attn_k",      "attn_v",
                              "attn_output", "attn_q_norm", "attn_k_norm", "ffn_norm",
                              "ffn_gate",    "ffn_up",      "ffn_down"};

struct Layer {
  RmsNorm input_norm;
  Attention attention;
  RmsNorm mlp_norm;
  GatedMlp mlp;
};

// All weights of a model, as views into the store.
struct Weights {
  Tensor embedding;
  std::vector<Layer> layers;
  RmsNorm final_norm;
  Linear head;
  bool is_tied = false;
};

std::string weight_name(std::string_view stem) {
  return fmt::format("{}.weight", stem);
}

Result<RmsNorm> norm(const ModelConfig& config, WeightStore* store, std::string_view stem,
                     int64_t d) {
  ASSIGN_OR_RETURN(const float* weight, store->vector(weight_name(stem), d));
  return RmsNorm{weight, d, config.rms_norm_eps};
}

Result<Layer> bind_layer(const ModelConfig& config, const Names& names, int64_t index,
                         WeightStore* store) {
  const auto stem = [&](std::string_view part) {
    return fmt::format("{}{}.{}", names.layer_prefix, index, part);
  };
  const auto linear = [&](std::string_view part, int64_t out, int64_t in) {
    return store->linear(stem(part) + ".weight", stem(part) + ".bias", out, in);
  };
  const int64_t d = config.hidden_size;
  const int64_t f = config.intermediate_size;
  const int64_t q_width = config.num_attention_heads * config.head_dim;
  const int64_t kv_width = config.num_key_value_heads * config.head_dim;
  Layer layer;
  ASSIGN_OR_RETURN(layer.input_norm, norm(config, store, stem(names.input_norm), d));
  ASSIGN_OR_RETURN(layer.mlp_norm, norm(config, store, stem(names.mlp_norm), d));
  Attention& attention = layer.attention;
  ASSIGN_OR_RETURN(attention.q, linear(names.q, q_width, d));
  ASSIGN_OR_RETURN(attention.k, linear(names.k, kv_width, d));
  ASSIGN_OR_RETURN(attention.v, linear(names.v, kv_width, d));
  ASSIGN_OR_RETURN(attention.o, linear(names.o, d, q_width));
  if (store->has(weight_name(stem(names.q_norm)))) {
    ASSIGN_OR_RETURN(attention.q_norm, norm(config, store, stem(names.q_norm), config.head_dim));
    ASSIGN_OR_RETURN(attention.k_norm, norm(config, store, stem(names.k_norm), config.head_dim));
  }
  attention.shape = {config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                     1.0F / std::sqrt(static_cast<float>(config.head_dim))};
  attention.window = config.layer_windows[static_cast<size_t>(index)];
  ASSIGN_OR_RETURN(layer.mlp.gate, linear(names.gate, f, d));
  ASSIGN_OR_RETURN(layer.mlp.up, linear(names.up, f, d));
  ASSIGN_OR_RETURN(layer.mlp.down, linear(names.down, d, f));
  return layer;
}

Result<Weights> bind(const ModelConfig& config, const Names& names, WeightStore* store) {
  Weights weights;
  const int64_t d = config.hidden_size;
  const std::string embedding = weight_name(names.embedding);
  ASSIGN_OR_RETURN(weights.embedding, store->matrix(embedding, config.vocab_size, d, Op::kEmbed));
  // A file without a head is tied, whatever its flag says; a tied one's own head does not count.
  weights.is_tied = config.tie_word_embeddings || !store->has(weight_name(names.head));
  ASSIGN_OR_RETURN(weights.head.weight,
                   store->matrix(weights.is_tied ? embedding : weight_name(names.head),
                                 config.vocab_size, d, Op::kLinear));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    ASSIGN_OR_RETURN(Layer layer, bind_layer(config, names, i, store));
    weights.layers.push_back(layer);
  }
  ASSIGN_OR_RETURN(weights.final_norm, norm(config, store, names.final_norm, d));
  return weights;
}

// ---- the model ---------------------------------------------------------------------------------

class LlamaModel final : public Model {
 public:
  LlamaModel(ModelConfig config, Weights weights, Rope rope, WeightStore store,
             std::unique_ptr<DeviceModel> device)
      : config_(std::move(config)),
        weights_(std::move(weights)),
        rope_(std::move(rope)),
        store_(std::move(store)),
        totals_(weight_totals(store_.entries(), weights_.embedding, !weights_.is_tied)),
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
    return device_ ? device_->state_bytes(n_positions)
                   : KvCache::bytes_for(kv_shape(), n_positions);
  }
  [[nodiscard]] const DeviceModel* device_model() const override { return device_.get(); }
  [[nodiscard]] DecodeState make_state() const override {
    if (device_ != nullptr) {
      return DecodeState(device_->make_state());
    }
    return DecodeState(std::vector<LayerStateKind>(static_cast<size_t>(config_.num_hidden_layers),
                                                   LayerStateKind::kKv),
                       kv_shape());
  }
  [[nodiscard]] Result<Logits> forward(ExecContext& context,
                                       std::span<const SequenceChunk> batch) const override;

 private:
  [[nodiscard]] KvShape kv_shape() const {
    return {config_.num_hidden_layers, config_.num_key_value_heads, config_.head_dim};
  }

  ModelConfig config_;
  Weights weights_;
  Rope rope_;
  WeightStore store_;
  WeightTotals totals_;
  std::unique_ptr<DeviceModel> device_;  // null: the layers run on the host
};

Result<Logits> LlamaModel::forward(ExecContext& context,
                                   std::span<const SequenceChunk> batch) const {
  if (device_ != nullptr) {
    return forward_on_device(*device_, config_.vocab_size, batch);
  }
  RETURN_IF_ERROR(check_batch(batch, config_.vocab_size));
  for (const SequenceChunk& chunk : batch) {
    RETURN_IF_ERROR(chunk.state->reserve(static_cast<int64_t>(chunk.ids.size())));
  }
  const BatchRows flat = flatten(batch);
  ForwardRows rows;
  rows.rows = static_cast<int64_t>(flat.ids.size());
  rows.positions = flat.positions;
  rows.states = flat.states;
  rows.cosine.resize(flat.ids.size() * static_cast<size_t>(rope_.rotary_dim() / 2));
  rows.sine.resize(rows.cosine.size());
  rope_.angles(rows.positions, rows.cosine.data(), rows.sine.data());

  const auto d = static_cast<size_t>(config_.hidden_size);
  std::vector<float> hidden(flat.ids.size() * d);
  std::vector<float> normed(hidden.size());
  context.backend.embed(context, weights_.embedding, flat.ids, hidden.data());
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const Layer& layer = weights_.layers[i];
    layer.input_norm.apply(context, hidden.data(), rows.rows, normed.data());
    layer.attention.apply(context, &rope_, rows, static_cast<int64_t>(i), normed.data(),
                          hidden.data());
    layer.mlp_norm.apply(context, hidden.data(), rows.rows, normed.data());
    layer.mlp.apply(context, rows.rows, normed.data(), hidden.data());
  }
  for (const SequenceChunk& chunk : batch) {
    chunk.state->advance(static_cast<int64_t>(chunk.ids.size()));
  }
  return project_logits(context, weights_.final_norm, weights_.head, hidden.data(),
                        flat.logit_rows);
}

// Frequencies, with a GGUF's divisors when it has them.
Result<Rope> make_rope(const ModelConfig& config, ModelKind kind, WeightStore* store) {
  // GGUF's llama files have their q and k rows permuted for the interleaved rotation.
  const bool is_permuted = kind == ModelKind::kGguf && config.architecture == kGgufArchitectures[0];
  ASSIGN_OR_RETURN(Rope rope,
                   Rope::make(config.rope, config.head_dim,
                              is_permuted ? RopeLayout::kInterleaved : RopeLayout::kHalfSplit));
  if (kind == ModelKind::kGguf) {
    const int64_t half = config.head_dim / 2;
    ASSIGN_OR_RETURN(const float* divisors, store->optional_vector("rope_freqs.weight", half));
    if (divisors != nullptr) {
      RETURN_IF_ERROR(rope.divide({divisors, static_cast<size_t>(half)}));
    }
  }
  return rope;
}

KvShape kv_shape_of(const ModelConfig& config) {
  return {config.num_hidden_layers, config.num_key_value_heads, config.head_dim};
}

Result<ModelPlan> plan(const ModelConfig& config, ModelKind kind, WeightStore* store) {
  ASSIGN_OR_RETURN(const Weights weights,
                   bind(config, kind == ModelKind::kGguf ? kGgufNames : kHfNames, store));
  ASSIGN_OR_RETURN(const Rope rope, make_rope(config, kind, store));
  ModelPlan plan;
  weight_totals(store->entries(), weights.embedding, !weights.is_tied).fill(&plan);
  plan.state.position_bytes = KvCache::bytes_for(kv_shape_of(config), KvCache::kPagePositions) /
                              static_cast<size_t>(KvCache::kPagePositions);
  if (store->backend().runs_whole_models()) {
    plan.state = device_state_cost(plan.state);
  }
  return plan;
}

// A decoder layer is two of a device's: attention, then the MLP, each with its norm.
DeviceModelSpec device_spec(const ModelConfig& config, const Weights& weights, const Rope& rope) {
  DeviceModelSpec spec =
      device_frame(config, weights.embedding, weights.head, weights.is_tied, weights.final_norm);
  set_rope(rope, &spec);
  for (const Layer& layer : weights.layers) {
    spec.layers.push_back(
        {layer.input_norm.weight, device_attention(layer.attention, /*has_rope=*/true)});
    spec.layers.push_back({layer.mlp_norm.weight, device_mlp(layer.mlp)});
  }
  return spec;
}

Result<std::shared_ptr<const Model>> load(const ModelConfig& config, ModelKind kind,
                                          WeightStore store, ExecContext& context,
                                          const LoadOptions& options) {
  const Names& names = kind == ModelKind::kGguf ? kGgufNames : kHfNames;
  RETURN_IF_ERROR(bind(config, names, &store));
  if (auto rope = Rope::make(config.rope, config.head_dim, RopeLayout::kHalfSplit); !rope) {
    const std::string& file = store.checkpoint().files().front().path.string();
    return fail_at(fmt::format("configuration of {}", file), std::move(rope).error());
  }
  RETURN_IF_ERROR(store.begin_load());
  ASSIGN_OR_RETURN(Weights weights, bind(config, names, &store));
  ASSIGN_OR_RETURN(Rope rope, make_rope(config, kind, &store));
  std::unique_ptr<DeviceModel> device;
  if (context.backend.runs_whole_models()) {
    ASSIGN_OR_RETURN(device,
                     load_on_device(device_spec(config, weights, rope), options, &store, context));
  } else {
    RETURN_IF_ERROR(store.finish_load(context));
  }
  return std::make_shared<const LlamaModel>(config, std::move(weights), std::move(rope),
                                            std::move(store), std::move(device));
}

}  // namespace

ArchitectureEntry llama_architecture() {
  return {"llama", kModelTypes, kGgufArchitectures, config_from_hf, config_from_gguf, plan, load};
}

}  // namespace logitlab
