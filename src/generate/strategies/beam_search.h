// The bookkeeping of one prompt's beam search: which beams go on, which hypotheses are finished,
// when to stop. Knows no model: processed log-probabilities in, parents and tokens out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "generate/stopping.h"
#include "logitlab/generation_config.h"
#include "logitlab/trace.h"
#include "sampling/sampler.h"

namespace logitlab {

struct BeamSettings {
  int64_t vocab_size = 0;
  int64_t n_beams = 0;       // n
  int64_t n_candidates = 0;  // K >= n
  int64_t max_new_tokens = 0;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  double length_penalty = 1;
  std::optional<Draw> draw;  // beam sampling: seed and sequence_index; none: the best candidates
};

// A sequence on its way or finished.
struct Beam {
  std::vector<TokenId> ids;      // prompt and generated
  std::vector<int64_t> parents;  // per generated token the beam that it came from
  float score = 0;               // running: sum of log-probabilities; finished: length penalty in
  std::optional<Stop> stop;      // set: finished
};

// Scores are float32 and -1e9 means "not yet", as in transformers, so that sums round alike. Ties:
// the higher score, then the lower beam * vocab_size + id. One thread.
class BeamSearch {
 public:
  BeamSearch(const BeamSettings& settings, std::span<const TokenId> prompt,
             StoppingCriteria stopping);

  // rows: [n_beams, vocab_size] processed log-probabilities of the running beams; changed: the
  // beams' scores are added. Afterwards `parents` says which beam each running one continues.
  void advance(std::span<float> rows);

  [[nodiscard]] const std::vector<Beam>& running() const { return running_; }
  [[nodiscard]] int64_t steps() const { return steps_; }
  [[nodiscard]] bool is_done() const { return !why_.empty(); }
  // Why it ended; empty while it goes on.
  [[nodiscard]] std::string_view why() const { return why_; }

  // The n best: finished hypotheses, best first. After a search that was cut short the running
  // beams follow, by score over length.
  [[nodiscard]] std::vector<Beam> best(int64_t n) const;

  // What the last step did; prompt and step are the caller's to fill. The memory is reused.
  [[nodiscard]] TracedBeamStep& traced() { return traced_; }

 private:
  struct Candidate {
    uint64_t place = 0;  // beam * vocab_size + id
    float score = 0;
    double key = 0;  // what the choice sorts by
    std::optional<Stop> stop;
  };
  void choose_candidates(std::span<const float> table);
  void check_stops();
  void update_finished();
  void update_running();
  void update_end();
  void record(std::span<const int64_t> next);
  [[nodiscard]] Beam extended(const Candidate& candidate) const;
  [[nodiscard]] bool pool_is_full() const;
  [[nodiscard]] float penalty(int64_t length) const;

  BeamSettings settings_;
  int64_t prompt_length_;
  StoppingCriteria stopping_;
  std::vector<Beam> running_;
  std::vector<Beam> finished_;  // n, best first; without a stop: an empty place
  std::vector<Candidate> candidates_;
  std::vector<int64_t> order_;
  TracedBeamStep traced_;
  int64_t steps_ = 0;
  bool is_improvable_ = true;
  std::string_view why_;
};

}  // namespace logitlab
