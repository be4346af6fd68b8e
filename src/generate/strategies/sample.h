// Greedy decoding and sampling: one token of every live sequence per step.
#pragma once

#include <vector>

#include "base/error.h"
#include "generate/generator.h"
#include "generate/prompt_run.h"
#include "generate/run_trace.h"

namespace logitlab {

// Continues every prompt num_return_sequences times, from forks of its state; all live sequences
// go through the model as one batch. Fills sequences and the times after the prefill of `result`.
[[nodiscard]] Status run_samples(const RunSettings& settings, std::vector<PromptRun>* prompts,
                                 RunTracer* tracer, GenerationResult* result);

}  // namespace logitlab
