// What other settings would have chosen in a stored run, without the model: every traced step is
// decided anew from its logits, with the random draw that it had.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "lab/coupling.h"
#include "logitlab/generation_config.h"
#include "sampling/effective_config.h"
#include "trace/trace_file.h"

namespace logitlab {

enum class Verdict {
  kSame,
  kDiffers,
  kUndecided,  // it depends on what the trace does not hold
};
// "same", "differs", "undecided".
[[nodiscard]] std::string_view name(Verdict verdict);

struct WhatIfStep {
  int64_t sequence = 0;
  int64_t step = 0;
  TokenId old_id = 0;
  std::optional<TokenId> new_id;  // none: undecided
  Verdict verdict = Verdict::kSame;
  // Whether an earlier step of the sequence did or may have changed: then this one tells what would
  // have happened had the prefix been the same.
  bool is_hypothetical = false;
  // Probability that the two settings choose differently here: with one draw for both, as with the
  // same seed (with another seed the draws are independent), and with independent draws. A point
  // where nothing is unknown.
  Interval flip;
  Interval independent_flip;
  std::string why;  // one clause; empty for kSame
};

struct WhatIf {
  EffectiveConfig settings;  // of the question: kGiven is what was asked for
  std::vector<WhatIfStep> steps;
  std::vector<size_t> first_changes;  // per sequence that has one, the first step that is not kSame
  std::vector<std::string> notes;     // where the answer ends, what could not be asked
  std::string remedy;                 // what would settle the undecided steps; empty when none is
};

// `other` lays its settings over those of the run. A token outside the traced candidates has a
// logit no larger than theirs and a known share of the mass; a verdict that could depend on more
// than that is kUndecided, with the bounds of its probability. kInvalidArgument: settings out of
// range, or such as change the logits themselves (num_beams, guidance_scale, a finer logits_dtype);
// kDataLoss: the trace contradicts itself.
[[nodiscard]] Result<WhatIf> what_if(const TraceMemory& trace, const GenerationConfig& other);

}  // namespace logitlab
