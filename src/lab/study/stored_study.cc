#include "lab/study/stored_study.h"

#include <cstdlib>

#include <fmt/format.h>

namespace logitlab {

StudyOverrides parse_overrides(const std::vector<std::string>& words) {
  StudyOverrides overrides;
  for (const std::string& word : words) {
    if (word.rfind(kRunsOverride, 0) == 0) {
      overrides.runs = std::atoll(word.c_str() + kRunsOverride.size());
    } else {
      overrides.set.push_back(word);
    }
  }
  return overrides;
}

Result<Study> plan_of(const StudyRecord& record) {
  const std::string where = fmt::format("study {} of the store", record.id);
  ASSIGN_OR_RETURN(Study study, parse_study(record.source, where));
  if (study.is_course() || record.overrides.empty()) {
    return study;
  }
  return parse_study(record.source, where, parse_overrides(record.overrides));
}

}  // namespace logitlab
