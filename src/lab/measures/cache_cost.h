// What the decode state saves: the same tokens with it and without it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

namespace logitlab {

// Seconds of every step of one run; step i reads a prefix of prompt + i + 1 tokens.
using StepSeconds = std::vector<double>;

struct CacheCost {
  std::vector<TokenId> ids;  // prompt and what greedy decoding made of it
  size_t n_prompt = 0;
  std::vector<StepSeconds> cached;    // one a repetition
  std::vector<StepSeconds> uncached;  // one a repetition
  int64_t n_same = 0;  // steps of all repetitions that chose the same token without the state

  [[nodiscard]] size_t n_steps() const { return ids.size() - n_prompt - 1; }
  // Tokens of the prefix that step i reads.
  [[nodiscard]] size_t length(size_t step) const { return n_prompt + step + 1; }
};

struct CacheCostOptions {
  int64_t new_tokens = 32;  // after the first one, which comes with the prompt either way; >= 1
  int reps = 3;             // >= 1; which side goes first alternates
  std::function<bool()> is_cancelled;  // may be empty
  std::function<void(size_t step, size_t n_steps)>
      on_step;  // of a run without the state; may be empty
};

// Generates greedily, end tokens ignored, then runs every prefix of the result anew in a fresh
// state, as a program that never made one. The time is about reps * new_tokens prefills of the
// prompt's length and more. kCancelled; errors as generate.
[[nodiscard]] Result<CacheCost> measure_cache_cost(Engine* engine, std::span<const TokenId> prompt,
                                                   const CacheCostOptions& options);

// The median of every step over the repetitions.
[[nodiscard]] StepSeconds median_steps(std::span<const StepSeconds> runs);

}  // namespace logitlab
