// Nemotron-H: hybrids of Mamba-2, attention without positions, mixtures of experts and plain MLPs.
#pragma once

#include "base/error.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "models/model.h"
#include "models/registry.h"

namespace logitlab {

[[nodiscard]] ArchitectureEntry nemotron_h_architecture();

// In nemotron_h_config.cc.
[[nodiscard]] Result<ModelConfig> nemotron_h_config_from_hf(const Json& config,
                                                            std::string_view where);
[[nodiscard]] Result<ModelConfig> nemotron_h_config_from_gguf(const GgufFile& file);

}  // namespace logitlab
