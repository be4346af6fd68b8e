// What each measure of a study says, in one sentence or two.
#pragma once

#include <string>

#include "lab/measures/study_results.h"

namespace logitlab {

// Empty where the figures have nothing to say of it.
[[nodiscard]] std::string answer_of(MeasureKind kind, const StudyResults& results);

// "temperature=0.7", with the prompt's name where a study has several.
[[nodiscard]] std::string name_of(const StudyResults& results, const SettingFigures& setting);

// "1 run", "3 runs".
[[nodiscard]] std::string runs_text(int64_t n);

}  // namespace logitlab
