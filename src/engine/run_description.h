// What a run says of itself before its first step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "logitlab/trace.h"
#include "sampling/effective_config.h"

namespace logitlab {

// The end tokens of `effective`, each with what named it.
[[nodiscard]] std::vector<TracedStopId> stop_ids_in_force(const EffectiveConfig& effective,
                                                          const std::vector<StopId>& of_model);

// A sentence about one of Engine::ignored_defaults().
[[nodiscard]] std::string not_applied(const std::string& setting);

// Device, ISA, settings with their ledger, end tokens and warnings. Model, hash and build are the
// caller's to fill; generate fills the rest. `longest_prompt`: in tokens.
[[nodiscard]] RunTrace describe_run(const Engine& engine, const EffectiveConfig& effective,
                                    int64_t n_prompts, int64_t longest_prompt);

}  // namespace logitlab
