// From the tree of a study file to the study.
#pragma once

#include <string_view>

#include "base/error.h"
#include "lab/study/study.h"
#include "lab/study/study_overrides.h"
#include "lab/study/yaml_tree.h"

namespace logitlab {

// As parse_study; `source` stays empty, and the names of a course are not looked up.
[[nodiscard]] Result<Study> read_study(const YamlNode& root, std::string_view where,
                                       const StudyChanges& changes);

}  // namespace logitlab
