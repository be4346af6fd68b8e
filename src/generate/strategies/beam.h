// Beam search and beam sampling, with the bookkeeping of transformers.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "generate/generator.h"
#include "generate/prompt_run.h"
#include "generate/run_trace.h"

namespace logitlab {

// kInvalidArgument: fewer tokens than the candidates that a step takes of every beam.
[[nodiscard]] Status check_beams(const GenerationConfig& config, int64_t vocab_size);

// Searches every prompt by itself; the live beams of all of them go through the model as one batch.
// Fills sequences, beam_stop and the times after the prefill of `result`.
[[nodiscard]] Status run_beams(const RunSettings& settings, std::vector<PromptRun>* prompts,
                               RunTracer* tracer, GenerationResult* result);

}  // namespace logitlab
