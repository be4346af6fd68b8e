// The architectures that this build can run.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "models/model.h"
#include "models/weight_store.h"

namespace logitlab {

// One family of architectures: what arch/<family>.cc offers.
struct ArchitectureEntry {
  std::string_view family;
  // config.json's model_type values, and GGUF's general.architecture values, that it runs.
  std::span<const std::string_view> model_types;
  std::span<const std::string_view> gguf_architectures;
  Result<ModelConfig> (*config_from_hf)(const Json& config, std::string_view where);
  Result<ModelConfig> (*config_from_gguf)(const GgufFile& file);
  // Binds all weights with `store` in mode kCheck: what plan_model returns, less config, weights,
  // unused and warnings, which the caller fills in.
  Result<ModelPlan> (*plan)(const ModelConfig& config, ModelKind kind, WeightStore* store);
  // Checks and loads all weights; `store` moves into the model.
  Result<std::shared_ptr<const Model>> (*load)(const ModelConfig& config, ModelKind kind,
                                               WeightStore store, ExecContext& context,
                                               const LoadOptions& options);
};

[[nodiscard]] std::span<const ArchitectureEntry> architectures();

// kUnsupported with the list of those that are known.
[[nodiscard]] Result<const ArchitectureEntry*> find_model_type(std::string_view model_type);
[[nodiscard]] Result<const ArchitectureEntry*> find_gguf_architecture(std::string_view name);

}  // namespace logitlab
