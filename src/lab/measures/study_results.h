// The figures of a study, from its stored runs alone. What every view of a study shows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "lab/measures/divergence.h"
#include "lab/measures/statistics.h"
#include "lab/store/store.h"
#include "lab/study/study_extras.h"

namespace logitlab {

// Survivors of one stage, or of all (name "all"), over the steps of a setting's runs.
struct StageSurvivors {
  std::string name;
  NumberSummary survivors;
  double share_above_one = 0;   // of the steps
  std::vector<double> by_step;  // mean over the runs that reached the step
  double mean_mass = 0;         // raw probability that was kept
  double mean_removed = 0;      // tokens a step
  // Tokens a step whose score the stage changed; of these, those of the prompt and those of the
  // answer alone. NaN where it does not count them.
  double mean_changed = 0;
  double mean_changed_in_prompt = 0;
  double mean_changed_in_answer = 0;
};

// A token at which a run may end.
struct StopFigures {
  TokenId id = 0;
  std::string piece;   // empty where no run met it
  std::string origin;  // "given", "generation_config.json"
  int64_t runs = 0;    // that it ended
};

struct NextToken {
  TokenId id = 0;
  std::string piece;
  double raw_probability = 0;
  double probability = 0;  // final: 0 when it was dropped
};

struct BeamFigures {
  struct Hypothesis {
    std::vector<TokenId> ids;
    std::string text;
    double score = 0;
    std::vector<int64_t> beam_indices;
  };
  std::vector<Hypothesis> hypotheses;  // best first
  std::string stopped_because;
  std::vector<TracedBeamStep> steps;
};

struct SettingFigures {
  std::string prompt_name;
  std::string name;
  std::vector<SweptValue> swept;
  bool is_control = false;
  int64_t runs = 0;
  std::vector<int64_t> run_ids;  // in the store
  int64_t unique_ids = 0;
  int64_t unique_texts = 0;                                   // white space collapsed
  std::optional<SampleSummary> within;                        // none with one run
  NumberSummary lengths;                                      // generated tokens
  std::vector<std::pair<std::string, int64_t>> stop_reasons;  // most frequent first
  std::vector<StopFigures> stop_ids;                          // in force in the first run
  std::vector<std::string> idle_settings;  // given and without effect: "temperature=0.2: why"
  NumberSummary said_before;               // share of a run's tokens that prompt or answer held
  NumberSummary pairs_before;              // the same of pairs of neighbours
  int64_t truncated = 0;                   // ended by length or time
  NumberSummary thinking_tokens;
  NumberSummary answer_tokens;
  int64_t thinking_cut = 0;  // runs that ended inside the thinking
  std::vector<StageSurvivors> stages;
  std::vector<double> entropy_by_step;  // nats, of the final distribution
  std::vector<double> raw_entropy_by_step;
  int64_t overruled_steps = 0;         // steps whose token was not the model's likeliest
  double log_probability = kNoNumber;  // of the first run, by the model alone; NaN with beams
  int64_t tied_steps = 0;              // steps with a tie at the maximum, over all runs
  std::vector<NextToken> next_tokens;  // of step 0, likeliest first, at most 10
  std::vector<uint64_t> hashes;        // one per run
  std::optional<BeamFigures> beams;    // of the first run
  std::string sample_text;             // of the first run
};

struct PairFigures {
  size_t first = 0;  // into settings
  size_t second = 0;
  bool is_adjacent = false;
  SampleSummary between;
  PermutationTest test;
  std::optional<int64_t> runs_to_settle;
  int64_t equal_texts = 0;  // pairs of runs with the same ids
};

// Samples beside the exact tree: how often the text that is the likeliest by the tree came.
struct ExactAgreement {
  size_t setting = 0;  // into settings
  int64_t runs = 0;
  int64_t hits = 0;
  Interval sampled;  // 95 % interval of the share of hits
  double exact = 0;  // probability of the text
  [[nodiscard]] bool agrees() const { return sampled.low <= exact && exact <= sampled.high; }
};

struct DivergenceFigures {
  int64_t first_run = 0;  // ids in the store
  int64_t second_run = 0;
  std::string first_name;  // "top_k=1 #2"
  std::string second_name;
  Divergence divergence;
};

struct StudyResults {
  StudyRecord study;
  Study plan;                            // parsed from the record
  std::vector<SettingFigures> settings;  // prompts outermost
  std::vector<PairFigures> pairs;        // of one prompt: adjacent ones and those with a control;
                                         // all pairs when there are at most 12 settings
  std::vector<DivergenceFigures> divergences;  // runs that differ in one setting, then first runs
                                               // of adjacent settings; at most 40
  int64_t compared_runs = 0;  // likeness is that of the first so many runs of a setting; 0: of all
  SimilarityMatrix similarity;  // settings x settings: mean between, within on the diagonal
  StudyExtras extras;           // exact trees, the cost of the cache
  std::vector<ExactAgreement> agreement;  // of the settings whose tree found a whole text
  std::string headline;                   // the answer in one sentence
  std::vector<std::string> findings;      // further sentences, each true by the figures
  std::vector<std::string> warnings;      // "three runs settle nothing: ..."
};

// Reads the runs one by one: memory grows with the number of runs and steps, not with their traces.
[[nodiscard]] Result<StudyResults> analyse_study(Store* store, int64_t study);
void add(StudyTotals* sum, const StudyTotals& part);
// Tokens that went through the model for one that was asked for; a token counts as asked for by
// every run, the prompt's too.
[[nodiscard]] double computed_share(const StudyTotals& totals);
// The same as one JSON document.
[[nodiscard]] std::string to_json_text(const StudyResults& results);

}  // namespace logitlab
