// What a command line changes in a study: the words of --set.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "lab/study/study.h"
#include "lab/study/study_file.h"
#include "lab/study/study_knob.h"

namespace logitlab {

// StudyOverrides, read.
struct StudyChanges {
  struct Setting {
    std::vector<Knob> values;  // one: for every run; several: the new list of a sweep
    std::string word;          // as given
  };
  std::vector<Setting> settings;  // each name once
  std::optional<std::string> prompt;
  std::optional<uint64_t> seed_base;
  std::optional<SeedPolicy> seed_policy;
  std::optional<int64_t> n_candidates;
  std::optional<int64_t> runs;
};

// kInvalidArgument: "--set WORD: ...".
[[nodiscard]] Result<StudyChanges> read_overrides(const StudyOverrides& overrides);

}  // namespace logitlab
