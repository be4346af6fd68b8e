// Many runs at the cost of their distinct prefixes: one forward for each, the distinct prefixes of
// a depth in one batch.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "generate/generator.h"
#include "logitlab/generation_config.h"
#include "logitlab/trace.h"

namespace logitlab {

// One run: what Engine::generate would be called with, alone. num_return_sequences must be 1 or
// unset, unless beams are searched (then the run gives that many sequences).
struct TreeRun {
  std::span<const TokenId> prompt;
  const GenerationConfig* config = nullptr;  // merged over the model's defaults; seed included
  uint32_t sequence_index = 0;
  TraceOptions trace;  // one sink per run
};

struct TreeOptions {
  int64_t prefill_chunk = 0;  // as GenerateOptions'
  // States of more than this are not kept at once: branches wait, and a branch that gave up its
  // state goes through the model again. 0: a quarter of the available memory.
  size_t state_budget_bytes = 0;
  int64_t max_rows = 64;       // distinct prefixes in one forward pass, >= 1
  bool share_prefixes = true;  // false: every run alone, one after the other, as generate does it
  std::function<bool()> is_cancelled;
  // A run has ended (not called for those that are cancelled): its result, with times of zero when
  // prefixes are shared. Called in the order of ending. Not ok: nothing more is run.
  std::function<Status(size_t run, const GenerationResult& result)> on_finished;
  // After every forward pass.
  std::function<void(const struct TreeProgress&)> on_progress;
};

struct TreeProgress {
  int64_t runs_finished = 0;
  int64_t tokens_asked = 0;       // generated tokens of all runs so far
  int64_t prefixes_computed = 0;  // rows of decode steps so far
};

struct TreeTotals {
  int64_t runs_finished = 0;
  int64_t prompt_tokens_asked = 0;  // each run for itself
  int64_t new_tokens_asked = 0;
  int64_t prefill_tokens = 0;  // that went through the model
  int64_t decode_rows = 0;     // the same of decode steps, replayed_rows among them
  int64_t replayed_rows = 0;
  int64_t forward_passes = 0;
  size_t peak_state_bytes = 0;
  double prefill_seconds = 0;
  double seconds = 0;
  bool is_cancelled = false;
};

// max_time counts from the call. Runs that share prefixes have no time of their own: their traces
// hold 0 seconds.
// Every run gets the tokens, traces and logits hashes that it would have alone, bit for bit,
// whatever the budget. A prompt is prefilled once, in the chunks that a single run would use. Runs
// with beams or guidance share the prompt alone and are then generated one after the other.
// Errors as generate, and the first that on_finished returns; runs that ended before were given.
[[nodiscard]] Result<TreeTotals> run_tree(Engine* engine, std::span<const TreeRun> runs,
                                          const TreeOptions& options);

}  // namespace logitlab
