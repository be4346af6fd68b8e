// The trace of one call of generate: its first line, its steps, its last line.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "generate/generator.h"
#include "generate/prompt_run.h"
#include "logitlab/trace.h"
#include "sampling/step_tracer.h"

namespace logitlab {

// What a tracer takes from its run.
struct TracedFacts {
  uint64_t seed = 0;
  int64_t vocab_size = 0;
  std::optional<ThinkingIds> thinking;
  // monotonic_seconds() at the call; none: the trace holds no time.
  std::optional<double> start;
};

// Without a sink every function returns at once. Steps allocate nothing.
class RunTracer {
 public:
  // `options` outlives it.
  RunTracer(const TraceOptions& options, const TracedFacts& facts)
      : options_(options), facts_(facts) {}

  [[nodiscard]] bool is_on() const { return options_.sink != nullptr; }
  // `sequences_per_prompt`: how many each prompt will return.
  void begin(std::span<const PromptRun> prompts, int64_t sequences_per_prompt);
  // One per sequence; null without a sink.
  [[nodiscard]] std::unique_ptr<StepTracer> make_step_tracer(std::span<const TokenId> prompt) const;
  void step(const TracedStep& step);
  void beam_step(const TracedBeamStep& step);
  void end(const GenerationResult& result);

 private:
  void note(TokenId id);

  const TraceOptions& options_;
  TracedFacts facts_;
  std::vector<bool> has_occurred_;  // [vocab_size]
};

}  // namespace logitlab
