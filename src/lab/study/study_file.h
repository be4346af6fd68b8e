// Study files: YAML, as docs/study.schema.json describes them, and the ones built in.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "lab/study/study.h"

namespace logitlab {

struct StudyOverrides {
  // "temperature=0.7" replaces a setting of every run (and takes it out of a sweep);
  // "top_k=1,5,50" replaces a sweep's list; "prompt=TEXT", "base=7" (seed), "policy=running".
  std::vector<std::string> set;
  std::optional<int64_t> runs;  // per setting, >= 1
};

// Reads a study. `where` names it in messages: "FILE:LINE: name: found, wanted". Refuses unknown
// keys (with the nearest known one), wrong types, values out of the settings' ranges, names that
// occur twice, more than kMostRuns runs, aliases that expand, files above 1 MiB. kInvalidArgument.
inline constexpr int64_t kMostRuns = 100'000;
[[nodiscard]] Result<Study> parse_study(std::string_view yaml, std::string_view where,
                                        const StudyOverrides& overrides = {});
// kNotFound, kInvalidArgument.
[[nodiscard]] Result<Study> read_study_file(const std::string& path,
                                            const StudyOverrides& overrides = {});

struct BundledStudy {
  std::string_view name;
  std::string_view yaml;
};
// In the order of lesson-01, which is the last one. Static data.
[[nodiscard]] std::span<const BundledStudy> bundled_studies();
// A bundled study by name, else the file of that name (when it has a '/' or ends in .yaml or .yml).
// kNotFound: the nearest names.
[[nodiscard]] Result<Study> find_study(std::string_view name_or_path,
                                       const StudyOverrides& overrides = {});

}  // namespace logitlab
