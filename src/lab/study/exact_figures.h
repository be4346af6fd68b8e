// The exact answer beside the samples: the tree of continuations of one setting, in figures.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/error.h"
#include "engine/engine.h"
#include "lab/study/study.h"
#include "lab/study/study_extras.h"

namespace logitlab {

struct ExactCell {
  std::string prompt_name;
  std::string setting_name;
  std::span<const TokenId> prompt;
  const GenerationConfig* config = nullptr;  // no beams
  int64_t runs = 0;                          // of the study, with this setting
};

// Errors as expand_tree.
[[nodiscard]] Result<ExactFigures> exact_figures(Engine* engine, const ExactCell& cell,
                                                 const ExactRequest& request,
                                                 const std::function<bool()>& is_cancelled);

}  // namespace logitlab
