// The trace of one call of generate: its first line, its steps, its last line.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generate/generator.h"
#include "generate/prompt_run.h"
#include "logitlab/trace.h"
#include "sampling/step_tracer.h"

namespace logitlab {

// Without a sink every function returns at once. Steps allocate nothing.
class RunTracer {
 public:
  explicit RunTracer(const RunSettings& settings) : settings_(settings) {}

  [[nodiscard]] bool is_on() const { return settings_.options.trace.sink != nullptr; }
  // `sequences_per_prompt`: how many each prompt will return.
  void begin(std::span<const PromptRun> prompts, int64_t sequences_per_prompt);
  // One per sequence; null without a sink.
  [[nodiscard]] std::unique_ptr<StepTracer> make_step_tracer(std::span<const TokenId> prompt) const;
  void step(const TracedStep& step);
  void beam_step(const TracedBeamStep& step);
  void end(const GenerationResult& result);

 private:
  void note(TokenId id);

  const RunSettings& settings_;
  std::vector<bool> has_occurred_;  // [vocab_size]
};

}  // namespace logitlab
