// Takes one step apart: what every processor did to the whole vocabulary, what the choice saw.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "logitlab/trace.h"
#include "sampling/processor_chain.h"
#include "sampling/sampler.h"

namespace logitlab {

struct StepTracerOptions {
  int64_t vocab_size = 0;
  int64_t n_candidates = 20;  // M, 0 to 1000
  bool full_rows = false;     // keep the whole row of logits
};

// One thread. Per step: begin_step, the chain with the tracer as its observer,
// then end_step. Probabilities agree with double arithmetic within 1e-6 (relative): exponentials
// are float32, sums double; in a stage's mass, a token below e^-87 of the best one counts as 0.
// Nothing is allocated after the first step.
class StepTracer final : public StageObserver {
 public:
  explicit StepTracer(const StepTracerOptions& options);
  ~StepTracer() override;

  // The ids that count as "in the prompt", and those that count as generated; forgets the ones of
  // before. Cheap, so that one tracer can serve many sequences step by step.
  void begin_sequence(std::span<const TokenId> prompt, std::span<const TokenId> generated = {});
  // logits: [vocab_size], raw (after logits_dtype); valid until end_step.
  void begin_step(std::span<const float> logits);
  // The same where what enters the first processor is not the logits: beam search begins with their
  // log-softmax. entering: [vocab_size], as valid as the logits.
  void begin_step(std::span<const float> logits, std::span<const float> entering);
  void after_stage(int64_t stage, const LogitsProcessor& processor,
                   std::span<const float> scores) override;
  // The choice from `scores` ([vocab_size], as the chain left them); `draw`: none under greedy
  // decoding. The result is valid until the next begin_step or end_step; sequence and step are the
  // caller's to fill. May be called again with the same scores and another choice, as when several
  // runs have come the same way: each result is what it would be alone. The last `id` counts as
  // generated from the next begin_step on.
  TracedStep& end_step(std::span<const float> scores, TokenId id, const std::optional<Draw>& draw);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// 64 bits that tell rows apart, the same on every machine: eight lanes over the row's little-endian
// 64-bit words (an odd last one is filled up with zeros; word w goes to lane w % 8 and lane j
// starts at (j + 1) * K), lane = (lane ^ word) * K with K = 0x9E3779B97F4A7C15; then, from the
// number of logits on, hash = (hash ^ lane ^ lane >> 32) * K and hash ^= hash >> 29 for every lane.
// Not against malice.
[[nodiscard]] uint64_t hash_logits(std::span<const float> logits);

}  // namespace logitlab
