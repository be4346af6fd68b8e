// Figures of one setting, from its runs one after the other.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "lab/measures/study_results.h"
#include "lab/store/store.h"
#include "trace/trace_file.h"

namespace logitlab {

// Takes the runs of one setting and one prompt; keeps no trace.
class SettingAccumulator {
 public:
  // kDataLoss: a trace that no run of ours has left.
  [[nodiscard]] Status add(const RunRecord& run);
  // Of all runs so far; `within` is the caller's to fill.
  [[nodiscard]] SettingFigures figures() const;
  // White space collapsed; one per run.
  [[nodiscard]] const std::vector<std::string>& texts() const { return texts_; }
  // Generated ids, one list per run.
  [[nodiscard]] const std::vector<std::vector<TokenId>>& ids() const { return ids_; }

 private:
  // Sums over runs, by step.
  struct ByStep {
    std::vector<double> sums;
    std::vector<int64_t> counts;
    void add(size_t step, double value);
    [[nodiscard]] std::vector<double> means() const;
  };
  struct Stage {
    size_t order = 0;
    std::vector<double> survivors;
    ByStep by_step;
    double mass = 0;
    double removed = 0;
    int64_t counted = 0;  // steps at which changes were counted
    double changed = 0;
    double changed_in_prompt = 0;
    double changed_in_answer = 0;
  };

  void add_steps(const TraceMemory& trace);
  Stage& add_stage(const std::string& name, size_t step, double survivors, double mass);
  void add_repeats(const RunRecord& run);
  void take_first(const RunRecord& run, const TraceMemory& trace);
  [[nodiscard]] std::vector<StageSurvivors> stages() const;

  SettingFigures first_;  // what the first run alone says
  std::vector<std::string> texts_;
  std::vector<std::vector<TokenId>> ids_;
  std::vector<double> lengths_;
  std::vector<double> thinking_;
  std::vector<double> answers_;
  std::vector<double> said_before_;
  std::vector<double> pairs_before_;
  std::map<std::string, int64_t> stops_;
  std::map<TokenId, int64_t> stopped_by_;
  std::map<std::string, Stage> stages_;
  ByStep entropy_;
  ByStep raw_entropy_;
  int64_t tied_steps_ = 0;
  int64_t overruled_steps_ = 0;
  int64_t truncated_ = 0;
  int64_t thinking_cut_ = 0;
};

// Runs of white space become one space; none at the ends.
[[nodiscard]] std::string collapse_space(std::string_view text);

}  // namespace logitlab
