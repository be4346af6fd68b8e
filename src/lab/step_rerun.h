// One traced step decided anew by other processors, from what the trace holds of its logits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "lab/coupling.h"
#include "logitlab/generation_config.h"
#include "logitlab/trace.h"
#include "sampling/processor_chain.h"
#include "sampling/sampler.h"

namespace logitlab {

// What is known of the tokens that the trace does not list: every number bounds all of them.
struct UnseenTokens {
  bool are_alive = false;
  int64_t n = 0;       // at most so many
  double top = 0;      // no score is above it
  double low = 0;      // log of the sum of exp(score): at least,
  double high = 0;     // at most
  bool blind = false;  // a processor changed them in a way that cannot be bounded
};

struct RerunToken {
  TokenId id = 0;
  double score = 0;  // after the processors; a common constant may be missing
  bool is_alive = true;
  bool is_sure = true;     // false: it may also have been dropped
  std::string dropped_by;  // name of the stage
};

struct RerunChoice {
  std::optional<TokenId> id;  // none: it depends on tokens that the trace does not list
  double margin = 0;          // by which its key (greedy: its score) beats the next known one
  std::vector<RerunToken> tokens;
  UnseenTokens unseen;
  // The first stage whose outcome could not be settled, and why; empty when all was.
  std::string open_stage;
  std::string open_reason;
};

struct RerunInput {
  const TracedStep* step = nullptr;
  int64_t vocab_size = 0;
  int64_t n_candidates = 0;                  // M of the trace
  SequenceView sequence;                     // prompt and the traced tokens before this one
  const GenerationConfig* config = nullptr;  // of `chain`
  // Rounds the traced logits first; kFloat32: they stay.
  LogitsDtype rounding = LogitsDtype::kFloat32;
  std::optional<Draw> draw;  // none: greedy
};

// Runs `chain` over the step's logits. With a full row the result is what a run would have done,
// bit for bit. Otherwise the tokens outside the candidates are bounded: they have logits no larger
// than the smallest candidate's and a known mass; what holds for all such rows is settled, all else
// is not. kInvalidArgument: where a run would have stopped with an error (every token banned).
[[nodiscard]] Result<RerunChoice> rerun_step(const RerunInput& input, ProcessorChain* chain);

}  // namespace logitlab
