#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>

#include <nlohmann/json.hpp>

#include "formats/hf_config.h"
#include "models/arch/nemotron_h.h"
#include "models/gguf_keys.h"

namespace logitlab {
namespace {

// Every way to write a layer's kind: the letter of hybrid_override_pattern, the words of
// layers_block_type and layer_types.
struct KindName {
  LayerKind kind;
  char letter;
  std::array<std::string_view, 2> words;
};
constexpr std::array<KindName, 4> kKindNames = {{
    {LayerKind::kMamba, 'M', {"mamba", "linear_attention"}},
    {LayerKind::kAttention, '*', {"attention", "full_attention"}},
    {LayerKind::kMoe, 'E', {"moe", "moe"}},
    {LayerKind::kMlp, '-', {"mlp", "mlp"}},
}};

Status check_count(size_t n, std::string_view where, std::string_view key) {
  if (n < 1 || n > static_cast<size_t>(kMaxModelLayers)) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} has {} layers, want 1 to {}", where, key, n,
                kMaxModelLayers);
  }
  return {};
}

Result<std::vector<LayerKind>> kinds_of_letters(std::string_view letters, std::string_view where) {
  RETURN_IF_ERROR(check_count(letters.size(), where, "hybrid_override_pattern"));
  std::vector<LayerKind> kinds;
  for (size_t i = 0; i < letters.size(); ++i) {
    const auto* found =
        std::find_if(kKindNames.begin(), kKindNames.end(),
                     [&](const KindName& name) { return name.letter == letters[i]; });
    if (found == kKindNames.end()) {
      return fail(ErrorCode::kUnsupported,
                  "{}: hybrid_override_pattern: layer {} is {}, which is no known kind of layer; "
                  "known are M (Mamba-2), * (attention), E (mixture of experts), - (MLP)",
                  where, i, quoted_json(Json(std::string(1, letters[i]))));
    }
    kinds.push_back(found->kind);
  }
  return kinds;
}

Result<std::vector<LayerKind>> kinds_of_words(const std::vector<std::string>& words,
                                              std::string_view where, std::string_view key) {
  RETURN_IF_ERROR(check_count(words.size(), where, key));
  std::vector<LayerKind> kinds;
  for (size_t i = 0; i < words.size(); ++i) {
    const auto* found =
        std::find_if(kKindNames.begin(), kKindNames.end(), [&](const KindName& name) {
          return std::find(name.words.begin(), name.words.end(), words[i]) != name.words.end() ||
                 words[i] == std::string_view(&name.letter, 1);
        });
    if (found == kKindNames.end()) {
      return fail(ErrorCode::kUnsupported,
                  "{}: {}[{}] is {}, which is no known kind of layer; known are mamba "
                  "(linear_attention), attention (full_attention), moe, mlp",
                  where, key, i, quoted_json(Json(words[i])));
    }
    kinds.push_back(found->kind);
  }
  return kinds;
}

// The list of layers decides how many there are; num_hidden_layers may be absent or out of date.
// Lists come before the pattern, as in transformers.
Result<std::vector<LayerKind>> layer_kinds(const Json& json, std::string_view where) {
  for (const std::string_view key : {"layers_block_type", "layer_types"}) {
    ASSIGN_OR_RETURN(const auto words, get_string_list(json, key, where));
    if (words) {
      return kinds_of_words(*words, where, key);
    }
  }
  ASSIGN_OR_RETURN(const auto pattern, get_string(json, "hybrid_override_pattern", where));
  if (pattern) {
    return kinds_of_letters(*pattern, where);
  }
  return fail(ErrorCode::kInvalidArgument,
              "{}: no list of layers; want hybrid_override_pattern, layers_block_type or "
              "layer_types",
              where);
}

// Reads sizes with transformers' defaults, under their names of today and of before.
class Fields {
 public:
  Fields(const Json& json, std::string_view where) : json_(json), where_(where) {}

  // An integer in [low, kMaxModelSize]; the first name that is there counts.
  Result<int64_t> size(std::initializer_list<std::string_view> names, int64_t missing,
                       int64_t low = 1) const {
    std::string_view used = *names.begin();
    int64_t value = missing;
    for (const std::string_view name : names) {
      ASSIGN_OR_RETURN(const auto found, get_int(json_, name, where_));
      if (found) {
        used = name;
        value = *found;
        break;
      }
    }
    if (value < low || value > kMaxModelSize) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want {} to {}", where_, used, value,
                  low, kMaxModelSize);
    }
    return value;
  }
  Result<bool> flag(std::string_view name, bool missing) const {
    ASSIGN_OR_RETURN(const auto found, get_bool(json_, name, where_));
    return found.value_or(missing);
  }
  Result<float> positive(std::string_view name, double missing) const {
    ASSIGN_OR_RETURN(const auto found, get_float(json_, name, where_));
    const double value = found.value_or(missing);
    if (!(value > 0) || !std::isfinite(value)) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want a number above 0", where_, name,
                  value);
    }
    return static_cast<float>(value);
  }
  // A name out of `known`.
  Result<std::string> choice(std::string_view name, std::string_view missing,
                             std::span<const std::string_view> known) const {
    ASSIGN_OR_RETURN(const auto found, get_string(json_, name, where_));
    const std::string value = found.value_or(std::string(missing));
    if (std::find(known.begin(), known.end(), value) == known.end()) {
      std::string list;
      for (const std::string_view item : known) {
        list += (list.empty() ? "'" : ", '") + std::string(item) + "'";
      }
      return fail(ErrorCode::kUnsupported, "{}: {} {} is not supported, want {}", where_, name,
                  quoted_json(Json(value)), list);
    }
    return value;
  }

 private:
  const Json& json_;
  std::string_view where_;
};

Status check_mamba(const MambaConfig& mamba, std::string_view where) {
  if (mamba.mamba_num_heads % mamba.n_groups != 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} Mamba heads are not a multiple of {} groups",
                where, mamba.mamba_num_heads, mamba.n_groups);
  }
  constexpr int64_t kMostTaps = 64;
  if (mamba.conv_kernel > kMostTaps) {
    return fail(ErrorCode::kInvalidArgument, "{}: conv_kernel is {}, want 1 to {}", where,
                mamba.conv_kernel, kMostTaps);
  }
  // The state of one layer, in floats; the bound keeps sums over layers far from overflow.
  constexpr double kMostFloats = 1LL << 40;
  const double floats = static_cast<double>(mamba.mamba_num_heads) *
                        static_cast<double>(mamba.mamba_head_dim) *
                        static_cast<double>(mamba.ssm_state_size);
  if (floats > kMostFloats) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: a Mamba state of {} heads x {} x {} has more numbers than a model can use",
                where, mamba.mamba_num_heads, mamba.mamba_head_dim, mamba.ssm_state_size);
  }
  if (!(mamba.time_step_low >= 0) || !(mamba.time_step_high > mamba.time_step_low)) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: time_step_limit is [{}, {}], want two ascending numbers from 0", where,
                mamba.time_step_low, mamba.time_step_high);
  }
  return {};
}

Status check_moe(const MoeConfig& moe, std::string_view where) {
  if (moe.n_routed_experts % moe.n_group != 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} experts are not a multiple of {} groups",
                where, moe.n_routed_experts, moe.n_group);
  }
  if (moe.topk_group > moe.n_group) {
    return fail(ErrorCode::kInvalidArgument, "{}: topk_group is {}, want 1 to n_group ({})", where,
                moe.topk_group, moe.n_group);
  }
  const int64_t open = moe.n_routed_experts / moe.n_group * moe.topk_group;
  if (moe.num_experts_per_tok > open) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: num_experts_per_tok is {}, want 1 to the {} experts that a token may choose "
                "from",
                where, moe.num_experts_per_tok, open);
  }
  return {};
}

Status check_attention(const ModelConfig& config, std::string_view where) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: {} attention heads are not a multiple of {} key-value heads", where,
                config.num_attention_heads, config.num_key_value_heads);
  }
  return {};
}

Result<MambaConfig> mamba_from_hf(const Json& json, std::string_view where) {
  const Fields fields(json, where);
  MambaConfig mamba;
  ASSIGN_OR_RETURN(mamba.mamba_num_heads, fields.size({"mamba_num_heads"}, 128));
  ASSIGN_OR_RETURN(mamba.mamba_head_dim, fields.size({"mamba_head_dim"}, 64));
  ASSIGN_OR_RETURN(mamba.ssm_state_size, fields.size({"ssm_state_size"}, 128));
  ASSIGN_OR_RETURN(mamba.n_groups, fields.size({"n_groups", "mamba_n_groups"}, 8));
  ASSIGN_OR_RETURN(mamba.conv_kernel, fields.size({"conv_kernel", "mamba_d_conv"}, 4));
  constexpr std::array<std::string_view, 1> kActivations = {"silu"};
  ASSIGN_OR_RETURN(const std::string act, fields.choice("mamba_hidden_act", "silu", kActivations));
  for (const std::string_view key : {"time_step_limit", "mamba_dt_limit"}) {
    ASSIGN_OR_RETURN(const auto limit, get_float_list(json, key, where));
    if (limit) {
      if (limit->size() != 2) {
        return fail(ErrorCode::kInvalidArgument, "{}: {} has {} numbers, want 2", where, key,
                    limit->size());
      }
      mamba.time_step_low = static_cast<float>((*limit)[0]);
      mamba.time_step_high = static_cast<float>((*limit)[1]);
      break;
    }
  }
  RETURN_IF_ERROR(check_mamba(mamba, where));
  return mamba;
}

Result<MoeConfig> moe_from_hf(const Json& json, std::string_view where) {
  const Fields fields(json, where);
  MoeConfig moe;
  ASSIGN_OR_RETURN(moe.n_routed_experts, fields.size({"n_routed_experts", "num_local_experts"}, 8));
  ASSIGN_OR_RETURN(moe.num_experts_per_tok, fields.size({"num_experts_per_tok"}, 2));
  ASSIGN_OR_RETURN(moe.moe_intermediate_size, fields.size({"moe_intermediate_size"}, 7688));
  ASSIGN_OR_RETURN(moe.moe_shared_expert_intermediate_size,
                   fields.size({"moe_shared_expert_intermediate_size"}, 7688, /*low=*/0));
  ASSIGN_OR_RETURN(moe.moe_latent_size, fields.size({"moe_latent_size"}, 0, /*low=*/0));
  ASSIGN_OR_RETURN(moe.n_group, fields.size({"n_group"}, 1));
  ASSIGN_OR_RETURN(moe.topk_group, fields.size({"topk_group"}, 1));
  ASSIGN_OR_RETURN(moe.norm_topk_prob, fields.flag("norm_topk_prob", true));
  ASSIGN_OR_RETURN(moe.routed_scaling_factor, fields.positive("routed_scaling_factor", 1.0));
  RETURN_IF_ERROR(check_moe(moe, where));
  return moe;
}

// Whether the file's own name of the norm's epsilon is the one of today.
std::string_view epsilon_key(const Json& json) {
  return json.contains("layer_norm_epsilon") || !json.contains("norm_eps") ? "layer_norm_epsilon"
                                                                           : "norm_eps";
}

}  // namespace

Result<ModelConfig> nemotron_h_config_from_hf(const Json& json, std::string_view where) {
  const Fields fields(json, where);
  ModelConfig config;
  ASSIGN_OR_RETURN(const auto names, get_string_list(json, "architectures", where));
  config.architecture = names && !names->empty() ? names->front() : "NemotronHForCausalLM";
  ASSIGN_OR_RETURN(config.layer_kinds, layer_kinds(json, where));
  config.num_hidden_layers = static_cast<int64_t>(config.layer_kinds.size());
  ASSIGN_OR_RETURN(config.vocab_size, require_int(json, "vocab_size", where, 1, kMaxModelSize));
  ASSIGN_OR_RETURN(config.hidden_size, require_int(json, "hidden_size", where, 1, kMaxModelSize));
  ASSIGN_OR_RETURN(config.intermediate_size, fields.size({"intermediate_size"}, 21504));
  ASSIGN_OR_RETURN(config.num_attention_heads, fields.size({"num_attention_heads"}, 32));
  ASSIGN_OR_RETURN(config.num_key_value_heads, fields.size({"num_key_value_heads"}, 8));
  ASSIGN_OR_RETURN(config.head_dim, fields.size({"head_dim", "attention_head_dim"}, 128));
  RETURN_IF_ERROR(check_attention(config, where));
  ASSIGN_OR_RETURN(config.rms_norm_eps, fields.positive(epsilon_key(json), 1e-5));
  constexpr std::array<std::string_view, 2> kActivations = {"relu2", "silu"};
  ASSIGN_OR_RETURN(config.mlp_hidden_act, fields.choice("mlp_hidden_act", "relu2", kActivations));
  if (config.count(LayerKind::kMamba) > 0) {
    ASSIGN_OR_RETURN(config.mamba, mamba_from_hf(json, where));
  }
  if (config.count(LayerKind::kMoe) > 0) {
    ASSIGN_OR_RETURN(config.moe, moe_from_hf(json, where));
  }
  ASSIGN_OR_RETURN(const auto positions, get_int(json, "max_position_embeddings", where));
  config.max_position_embeddings = std::max<int64_t>(0, positions.value_or(0));
  ASSIGN_OR_RETURN(config.tie_word_embeddings, fields.flag("tie_word_embeddings", false));
  config.rope.type = "none";
  config.layer_windows.assign(config.layer_kinds.size(), 0);
  ASSIGN_OR_RETURN(auto dtype, get_string(json, "dtype", where));
  if (!dtype) {
    ASSIGN_OR_RETURN(dtype, get_string(json, "torch_dtype", where));
  }
  config.dtype = dtype.value_or("");
  return config;
}

// ---- GGUF --------------------------------------------------------------------------------------

namespace {

// A layer with keys and values is attention, one with a feed-forward width an MLP (a mixture when
// it has a router), any other Mamba.
std::vector<LayerKind> kinds_of_widths(const GgufFile& file, const std::vector<int64_t>& kv_heads,
                                       const std::vector<int64_t>& widths) {
  std::vector<LayerKind> kinds;
  for (size_t i = 0; i < kv_heads.size(); ++i) {
    const bool has_router =
        file.checkpoint().find(fmt::format("blk.{}.ffn_gate_inp.weight", i)) != nullptr;
    kinds.push_back(widths[i] > 0     ? has_router ? LayerKind::kMoe : LayerKind::kMlp
                    : kv_heads[i] > 0 ? LayerKind::kAttention
                                      : LayerKind::kMamba);
  }
  return kinds;
}

// The one number that all layers of a kind share.
Result<int64_t> common_width(const GgufFile& file, const GgufKeys& keys,
                             const std::vector<LayerKind>& kinds, LayerKind kind,
                             const std::vector<int64_t>& values, std::string_view suffix) {
  int64_t common = 0;
  for (size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i] != kind) {
      continue;
    }
    if (common != 0 && values[i] != common) {
      return fail(ErrorCode::kUnsupported,
                  "{}: {} differs between layers of one kind ({} and {}), which is not supported",
                  file.metadata().where(), keys.key(suffix), common, values[i]);
    }
    common = values[i];
  }
  return common;
}

Result<MambaConfig> mamba_from_gguf(const GgufKeys& keys, std::string_view where) {
  MambaConfig mamba;
  ASSIGN_OR_RETURN(const int64_t inner, keys.size("ssm.inner_size", -1));
  ASSIGN_OR_RETURN(mamba.mamba_num_heads, keys.size("ssm.time_step_rank", -1));
  ASSIGN_OR_RETURN(mamba.ssm_state_size, keys.size("ssm.state_size", -1));
  ASSIGN_OR_RETURN(mamba.n_groups, keys.size("ssm.group_count", -1));
  ASSIGN_OR_RETURN(mamba.conv_kernel, keys.size("ssm.conv_kernel", -1));
  if (inner % mamba.mamba_num_heads != 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want a multiple of the {} heads", where,
                keys.key("ssm.inner_size"), inner, mamba.mamba_num_heads);
  }
  mamba.mamba_head_dim = inner / mamba.mamba_num_heads;
  RETURN_IF_ERROR(check_mamba(mamba, where));
  return mamba;
}

Result<MoeConfig> moe_from_gguf(const GgufMetadata& metadata, const GgufKeys& keys,
                                int64_t expert_width) {
  MoeConfig moe;
  ASSIGN_OR_RETURN(moe.n_routed_experts, keys.size("expert_count", -1));
  ASSIGN_OR_RETURN(moe.num_experts_per_tok, keys.size("expert_used_count", -1));
  ASSIGN_OR_RETURN(moe.moe_intermediate_size,
                   keys.size("expert_feed_forward_length", expert_width));
  ASSIGN_OR_RETURN(moe.moe_shared_expert_intermediate_size,
                   keys.size("expert_shared_feed_forward_length", 0, kMaxModelSize, /*low=*/0));
  ASSIGN_OR_RETURN(moe.moe_latent_size, keys.size("moe_latent_size", 0, kMaxModelSize, /*low=*/0));
  // Some writers say 0 for "no groups".
  ASSIGN_OR_RETURN(const int64_t groups,
                   keys.size("expert_group_count", 1, kMaxModelSize, /*low=*/0));
  ASSIGN_OR_RETURN(const int64_t kept,
                   keys.size("expert_group_used_count", 1, kMaxModelSize, /*low=*/0));
  moe.n_group = std::max<int64_t>(1, groups);
  moe.topk_group = std::max<int64_t>(1, kept);
  ASSIGN_OR_RETURN(const auto normalises, metadata.get_bool(keys.key("expert_weights_norm")));
  moe.norm_topk_prob = normalises.value_or(false);
  ASSIGN_OR_RETURN(const double scale, keys.positive("expert_weights_scale", 1.0));
  moe.routed_scaling_factor = static_cast<float>(scale);
  RETURN_IF_ERROR(check_moe(moe, metadata.where()));
  return moe;
}

Status read_gguf_layers(const GgufFile& file, const GgufKeys& keys, ModelConfig* config) {
  ASSIGN_OR_RETURN(const int64_t blocks, keys.size("block_count", -1, kMaxModelLayers));
  ASSIGN_OR_RETURN(const int64_t drafts, keys.size("nextn_predict_layers", 0, blocks - 1, 0));
  config->num_hidden_layers = blocks - drafts;
  ASSIGN_OR_RETURN(const auto kv_heads,
                   keys.per_layer("attention.head_count_kv", config->num_hidden_layers, -1));
  ASSIGN_OR_RETURN(const auto heads,
                   keys.per_layer("attention.head_count", config->num_hidden_layers, -1));
  ASSIGN_OR_RETURN(const auto widths,
                   keys.per_layer("feed_forward_length", config->num_hidden_layers, -1));
  config->layer_kinds = kinds_of_widths(file, kv_heads, widths);
  const auto common = [&](LayerKind kind, const std::vector<int64_t>& values,
                          std::string_view suffix) {
    return common_width(file, keys, config->layer_kinds, kind, values, suffix);
  };
  ASSIGN_OR_RETURN(config->num_key_value_heads,
                   common(LayerKind::kAttention, kv_heads, "attention.head_count_kv"));
  ASSIGN_OR_RETURN(config->num_attention_heads,
                   common(LayerKind::kAttention, heads, "attention.head_count"));
  ASSIGN_OR_RETURN(config->intermediate_size,
                   common(LayerKind::kMlp, widths, "feed_forward_length"));
  ASSIGN_OR_RETURN(const int64_t expert_width,
                   common(LayerKind::kMoe, widths, "feed_forward_length"));
  const std::string& where = file.metadata().where();
  if (config->count(LayerKind::kAttention) > 0) {
    if (config->num_attention_heads < 1) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} is 0 in an attention layer, want at least 1",
                  where, keys.key("attention.head_count"));
    }
    RETURN_IF_ERROR(check_attention(*config, where));
  }
  if (config->count(LayerKind::kMamba) > 0) {
    ASSIGN_OR_RETURN(config->mamba, mamba_from_gguf(keys, where));
  }
  if (config->count(LayerKind::kMoe) > 0) {
    ASSIGN_OR_RETURN(config->moe, moe_from_gguf(file.metadata(), keys, expert_width));
  }
  return {};
}

}  // namespace

Result<ModelConfig> nemotron_h_config_from_gguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  const std::string& where = metadata.where();
  ModelConfig config;
  ASSIGN_OR_RETURN(config.architecture, metadata.architecture());
  const GgufKeys keys(metadata, config.architecture);
  ASSIGN_OR_RETURN(config.hidden_size, keys.size("embedding_length", -1));
  RETURN_IF_ERROR(read_gguf_layers(file, keys, &config));
  // The converter writes a constant for hybrids without positions; it is the file's word all the
  // same.
  ASSIGN_OR_RETURN(config.max_position_embeddings,
                   keys.size("context_length", 0, int64_t{1} << 40, /*low=*/0));
  const int64_t even =
      std::max<int64_t>(1, config.hidden_size / std::max<int64_t>(1, config.num_attention_heads));
  ASSIGN_OR_RETURN(config.head_dim, keys.size("attention.key_length", even));
  ASSIGN_OR_RETURN(const int64_t value_dim, keys.size("attention.value_length", config.head_dim));
  if (value_dim != config.head_dim) {
    return fail(ErrorCode::kUnsupported, "{}: head sizes key {}, value {} differ, want the same",
                where, config.head_dim, value_dim);
  }
  ASSIGN_OR_RETURN(const double fallback, keys.positive("attention.layer_norm_epsilon", 1e-5));
  ASSIGN_OR_RETURN(const double eps, keys.positive("attention.layer_norm_rms_epsilon", fallback));
  config.rms_norm_eps = static_cast<float>(eps);
  config.mlp_hidden_act = "relu2";
  config.rope.type = "none";
  config.layer_windows.assign(config.layer_kinds.size(), 0);
  const TensorEntry* embedding = file.checkpoint().find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2) {
    return fail(ErrorCode::kNotFound, "{}: no matrix token_embd.weight", where);
  }
  config.vocab_size = embedding->shape[0];
  if (config.vocab_size < 1 || config.vocab_size > kMaxModelSize) {
    return fail(ErrorCode::kInvalidArgument, "{}: token_embd.weight has {} rows, want 1 to {}",
                where, config.vocab_size, kMaxModelSize);
  }
  config.tie_word_embeddings = file.checkpoint().find("output.weight") == nullptr;
  config.dtype = std::string(name(embedding->dtype));
  return config;
}

}  // namespace logitlab
