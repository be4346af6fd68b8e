// The Llama family: RMSNorm, RoPE, grouped-query attention, gated SiLU MLP.
#pragma once

#include "models/registry.h"

namespace logitlab {

[[nodiscard]] ArchitectureEntry llama_architecture();

}  // namespace logitlab
