// The settings ledger: every setting with its value, where it comes from, and whether it can change
// anything in this run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "logitlab/trace.h"
#include "sampling/effective_config.h"

namespace logitlab {

// What a run knows beyond its settings; what is unset is taken as not known, and never makes a
// setting act or not.
struct LedgerFacts {
  std::optional<int64_t> prompt_length;  // of the only prompt, or of the longest
  int64_t n_prompts = 1;
  bool model_thinks = false;  // the model has tokens that open and close its thinking
  // Names of settings whose value the chat template brought: their origin is "template".
  std::vector<std::string> from_template;
  std::vector<TracedStopId> stop_ids;  // the end tokens in force, with what named them
};

// One entry for each of generation_fields(), in its order.
[[nodiscard]] std::vector<LedgerEntry> settings_ledger(const EffectiveConfig& effective,
                                                       const LedgerFacts& facts);

}  // namespace logitlab
