// What a study found besides its runs: exact trees and the cost of the cache. Kept with the study
// as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "lab/coupling.h"

namespace logitlab {

// The tree of continuations of one setting (lab/continuation_tree.h), in figures.
struct ExactFigures {
  std::string prompt_name;
  std::string setting_name;
  double mass = 0;  // of the texts found
  int64_t nodes = 0;
  int64_t texts = 0;
  bool is_complete = false;  // the mass asked for was reached
  Interval same_text;        // probability that two runs give the same text
  // (runs, distinct texts to be expected of them), for the number of runs of the study and some
  // round ones.
  std::vector<std::pair<int64_t, Interval>> expected_distinct;
  std::vector<Interval> parted_by_step;
  struct Text {
    double probability = 0;
    std::string text;
  };
  std::vector<Text> likeliest;  // at most kLikeliest
  static constexpr size_t kLikeliest = 20;
};

// Seconds of every step of one continuation, with the decode state and without it; medians of the
// repetitions.
struct CacheFigures {
  int64_t prompt_tokens = 0;
  std::vector<double> cached_seconds;    // [steps]
  std::vector<double> uncached_seconds;  // [steps]
  int64_t same_tokens = 0;               // steps that chose the same token either way
};

struct StudyExtras {
  std::vector<ExactFigures> exact;
  std::optional<CacheFigures> cache;
};

[[nodiscard]] std::string to_json_text(const StudyExtras& extras);
// "" gives none. kDataLoss: what to_json_text would not have written.
[[nodiscard]] Result<StudyExtras> parse_study_extras(std::string_view json);

}  // namespace logitlab
