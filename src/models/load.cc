#include <string_view>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "formats/gguf.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"
#include "models/model.h"
#include "models/registry.h"

namespace logitlab {
namespace {

struct Described {
  const ArchitectureEntry* architecture = nullptr;
  ModelConfig config;
};

Result<Described> describe_hf(const ModelSource& source) {
  const std::string where = (source.path / "config.json").string();
  ASSIGN_OR_RETURN(const Json json, read_config(source.path));
  ASSIGN_OR_RETURN(const std::optional<std::string> model_type,
                   get_string(json, "model_type", where));
  if (!model_type) {
    return fail(ErrorCode::kInvalidArgument, "{}: no model_type", where);
  }
  ASSIGN_OR_RETURN(const Json* quantised, get_object(json, "quantization_config", where));
  if (quantised != nullptr) {
    ASSIGN_OR_RETURN(const auto method, get_string(*quantised, "quant_method", where));
    return fail(ErrorCode::kUnsupported,
                "{}: quantization_config: weights quantised by '{}' are not supported; use the "
                "unquantised checkpoint or a GGUF file",
                where, printable(method.value_or("?").substr(0, 40)));
  }
  Described described;
  auto entry = find_model_type(*model_type);
  if (!entry) {
    return fail_at(where, std::move(entry).error());
  }
  described.architecture = *entry;
  ASSIGN_OR_RETURN(described.config, described.architecture->config_from_hf(json, where));
  described.config.family = described.architecture->family;
  return described;
}

Result<Described> describe_gguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string name, file.architecture());
  Described described;
  auto entry = find_gguf_architecture(name);
  if (!entry) {
    return fail_at(file.metadata().where(), std::move(entry).error());
  }
  described.architecture = *entry;
  ASSIGN_OR_RETURN(described.config, described.architecture->config_from_gguf(file));
  described.config.family = described.architecture->family;
  return described;
}

struct Opened {
  Described described;
  Checkpoint checkpoint;
};

Result<Opened> open_model(const ModelSource& source) {
  Opened opened;
  if (source.kind == ModelKind::kGguf) {
    ASSIGN_OR_RETURN(GgufFile file, GgufFile::open(source.path));
    ASSIGN_OR_RETURN(opened.described, describe_gguf(file));
    opened.checkpoint = std::move(file).take_checkpoint();
  } else {
    ASSIGN_OR_RETURN(opened.described, describe_hf(source));
    ASSIGN_OR_RETURN(opened.checkpoint, open_safetensors(source.path));
  }
  return opened;
}

}  // namespace

std::string_view name(LayerKind kind) {
  switch (kind) {
    case LayerKind::kDecoder:
      return "decoder";
    case LayerKind::kMamba:
      return "mamba";
    case LayerKind::kAttention:
      return "attention";
    case LayerKind::kMoe:
      return "moe";
    case LayerKind::kMlp:
      return "mlp";
  }
  return "?";
}

Result<ModelConfig> read_model_config(const ModelSource& source) {
  if (source.kind == ModelKind::kGguf) {
    ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(source.path));
    ASSIGN_OR_RETURN(Described described, describe_gguf(file));
    return std::move(described.config);
  }
  ASSIGN_OR_RETURN(Described described, describe_hf(source));
  return std::move(described.config);
}

Result<ModelPlan> plan_model(const ModelSource& source, const LoadOptions& options,
                             const Backend& backend) {
  ASSIGN_OR_RETURN(Opened opened, open_model(source));
  ASSIGN_OR_RETURN(WeightStore store,
                   WeightStore::make(std::move(opened.checkpoint), options, backend));
  ASSIGN_OR_RETURN(ModelPlan plan, opened.described.architecture->plan(opened.described.config,
                                                                       source.kind, &store));
  std::unordered_set<std::string_view> used;
  for (const WeightEntry& entry : store.entries()) {
    used.insert(entry.name);
  }
  for (const TensorEntry& tensor : store.checkpoint().tensors()) {
    if (!used.contains(tensor.name)) {
      plan.unused.push_back(tensor.name);
    }
  }
  plan.config = std::move(opened.described.config);
  plan.weights = store.entries();
  plan.warnings = store.warnings();
  return plan;
}

Result<std::shared_ptr<const Model>> load_model(const ModelSource& source,
                                                const LoadOptions& options, ExecContext& context) {
  ASSIGN_OR_RETURN(Opened opened, open_model(source));
  ASSIGN_OR_RETURN(WeightStore store,
                   WeightStore::make(std::move(opened.checkpoint), options, context.backend));
  const Described& described = opened.described;
  return described.architecture->load(described.config, source.kind, std::move(store), context,
                                      options);
}

}  // namespace logitlab
