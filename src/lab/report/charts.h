// The charts of a study. Each is one SVG element, empty where the study has nothing to draw.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lab/measures/study_results.h"

namespace logitlab {

// Of a setting: its name, with the prompt's where there are several.
[[nodiscard]] std::string setting_label(const StudyResults& results, const SettingFigures& setting);

[[nodiscard]] std::string similarity_chart(const StudyResults& results);  // at most 40 settings
[[nodiscard]] std::string uniqueness_chart(const StudyResults& results);
// One chart per filter that removed anything, and one of all together.
// Titles and drawings.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> survivor_charts(
    const StudyResults& results);
[[nodiscard]] std::string entropy_chart(const StudyResults& results);
[[nodiscard]] std::string divergence_chart(const StudyResults& results);
[[nodiscard]] std::string beam_chart(const BeamFigures& beams, const std::string& label);
[[nodiscard]] std::string next_token_chart(const SettingFigures& setting, const std::string& label);
[[nodiscard]] std::string cache_chart(const CacheFigures& cache);

}  // namespace logitlab
