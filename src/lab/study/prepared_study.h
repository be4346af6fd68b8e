// A study made ready for one model: prompts as ids, settings checked, one entry per run.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "lab/study/study.h"
#include "logitlab/trace.h"
#include "sampling/effective_config.h"

namespace logitlab {

// One prompt with one setting of the template.
struct PreparedPrompt {
  std::string text;  // after the template
  std::vector<TokenId> ids;
};

// One setting with one prompt.
struct PreparedCell {
  size_t prompt = 0;        // into Study::prompts
  size_t setting = 0;       // into Study::settings
  size_t ids = 0;           // into PreparedStudy::prompts
  GenerationConfig config;  // as given; no seed
  RunTrace description;     // of any of its runs; config_json holds no seed
  int64_t max_new_tokens = 0;
  bool has_beams = false;
};

struct PreparedRun {
  PlannedRun plan;
  size_t cell = 0;  // into PreparedStudy::cells
};

struct PreparedStudy {
  std::vector<PreparedPrompt> prompts;
  std::vector<PreparedCell> cells;
  std::vector<PreparedRun> runs;  // in the order of plan_runs
};

// Renders the prompts, checks every setting as a run of it would. Nothing goes through the model.
// A text with `is_chat` is used as it is when the model has no template. kInvalidArgument: names
// the setting or the prompt.
[[nodiscard]] Result<PreparedStudy> prepare_study(const Engine& engine, const Study& study);

}  // namespace logitlab
