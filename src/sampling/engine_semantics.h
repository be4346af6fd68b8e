// The chains of vLLM and llama.cpp, for `semantics`. docs/semantics.md lists what differs, with the
// sources.
#pragma once

#include <memory>
#include <vector>

#include "base/error.h"
#include "logitlab/generation_config.h"
#include "sampling/logits_processor.h"
#include "sampling/processor_chain.h"

namespace logitlab {

// The processors in the engine's order. `effective` passed validate_generation_config and its
// semantics are not transformers'. kInvalidArgument: a setting that acts and that the engine does
// not have.
[[nodiscard]] Result<std::vector<std::unique_ptr<LogitsProcessor>>> make_engine_processors(
    const GenerationConfig& effective, const ChainOptions& options);

}  // namespace logitlab
