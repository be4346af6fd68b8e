// Whether a run that was made again is the one that the store holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "lab/measures/divergence.h"
#include "lab/store/store.h"

namespace logitlab {

struct Verification {
  bool has_same_tokens = false;
  bool has_same_hash = false;  // of the logits of all steps; beam search keeps none
  bool is_beam_search = false;
  bool has_same_beams = true;     // running and finished beams of every step, with their scores
  int64_t n_tokens = 0;           // of the stored run
  int64_t first_difference = -1;  // step; -1: none, or only the stored record tells one
  std::optional<Divergence> divergence;  // of tokens chosen one by one, where both traces are there
  std::string verdict;                   // one sentence
  [[nodiscard]] bool is_equal() const {
    return has_same_tokens && (is_beam_search ? has_same_beams : has_same_hash);
  }
};

// Both with their traces as text, where they have any. kDataLoss: a trace that cannot be read.
[[nodiscard]] Result<Verification> verify_run(const RunRecord& stored, const RunRecord& again);

}  // namespace logitlab
