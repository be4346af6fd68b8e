// A study of the store as the plan that it was run by.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "lab/store/store.h"
#include "lab/study/study.h"
#include "lab/study/study_file.h"

namespace logitlab {

// --runs among the words that StudyRecord::overrides keeps; all others are those of --set.
inline constexpr std::string_view kRunsOverride = "runs=";
[[nodiscard]] StudyOverrides parse_overrides(const std::vector<std::string>& words);

// The overrides of a course are for its parts, which are studies of their own. Errors as
// parse_study.
[[nodiscard]] Result<Study> plan_of(const StudyRecord& record);

}  // namespace logitlab
