// Runs a study on an engine into a store.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/error.h"
#include "engine/prefix_tree.h"
#include "lab/store/store.h"
#include "lab/study/study.h"

namespace logitlab {

struct StudyProgress {
  int64_t runs = 0;  // of the study
  int64_t runs_finished = 0;
  int64_t tokens_asked = 0;
  int64_t prefixes_computed = 0;
  int64_t tokens_at_most = 0;  // of all runs, by their budgets
};

struct StudyRunOptions {
  bool share_prefixes = true;
  size_t state_budget_bytes = 0;  // as TreeOptions'
  std::optional<int64_t> resume;  // a study of the store that was interrupted
  int64_t parent = 0;             // the course
  RunOrigin origin;
  std::vector<std::string> overrides;
  std::function<bool()> is_cancelled;
  std::function<void(const StudyProgress&)> on_progress;
};

// What a study would cost, without a forward pass.
struct StudyEstimate {
  int64_t runs = 0;
  int64_t prompt_tokens = 0;  // of all runs
  int64_t distinct_prompt_tokens = 0;
  int64_t new_tokens_at_most = 0;
  size_t state_bytes_at_most = 0;  // if no two runs shared a prefix
};
[[nodiscard]] Result<StudyEstimate> estimate_study(Engine* engine, const Study& study);

// Settings are checked before the first run. Returns the id of the study in the store; its status
// is "interrupted" when is_cancelled said so, and then what had finished is there.
// kInvalidArgument, kResourceExhausted (memory; disk: what had finished stays).
[[nodiscard]] Result<int64_t> run_study(Engine* engine, Store* store, const Study& study,
                                        const StudyRunOptions& options);

// The run of that PlannedRun::index once more, alone, as a study would make it, with its trace as
// text and without a store. Of the options origin, is_cancelled, on_progress and
// state_budget_bytes act. kNotFound: no such run; kCancelled; errors as run_study.
[[nodiscard]] Result<RunRecord> run_again(Engine* engine, const Study& study, int64_t index,
                                          const StudyRunOptions& options);

}  // namespace logitlab
