// Why two runs differ: the first differing token, and what decided it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "logitlab/trace.h"

namespace logitlab {

enum class DivergenceCause {
  kNone,      // equal tokens
  kLength,    // one is the beginning of the other: budgets or stop ids differ
  kPrompt,    // the prompts differ
  kTie,       // equal logits at the best or at a cut, and the choice among them was free
  kDraw,      // the same distribution, another random number
  kFilter,    // the token of one run was removed in the other
  kPenalty,   // a penalty, a bias or a temperature changed the scores
  kNumerics,  // logits differ though prefix and model are the same: dtype, device, build
  kCache,     // the same, and the runs were executed differently in chunks or without a cache
  kBatch,     // the same, and they differ in batch neighbours or threads
  kUnknown,   // the traces do not hold enough
};
[[nodiscard]] std::string_view name(DivergenceCause cause);  // "tie", "draw", ...

// One side of the step at which two runs part.
struct DivergenceSide {
  TokenId id = -1;
  std::string piece;
  double logit = 0;
  double probability = 0;  // final
  int64_t rank = 0;        // by final score
  bool is_known = false;   // false: the trace does not list the token
  std::string dropped_by;  // in this run; empty: it survived
};

struct Divergence {
  DivergenceCause cause = DivergenceCause::kUnknown;
  int64_t step = -1;  // of the first difference; the common length with kNone, kLength
  int64_t common_tokens = 0;
  // [run][token]: what each run knew of both tokens. Token 0 is the choice of the first run.
  DivergenceSide sides[2][2];
  double gap = 0;       // logit of token 0 minus logit of token 1, in the first run
  double gap_ulps = 0;  // the same in units of last place of the runs' logits_dtype
  int64_t survivors[2] = {0, 0};
  bool logits_equal = false;       // by hash at that step
  int64_t first_hash_change = -1;  // first step whose logits hashes differ; -1: none before `step`
  double draw[2] = {kNoNumber, kNoNumber};  // E of each run's choice
  // What the first run's choice would have had to be beaten by: its key and the other token's key.
  double key[2][2] = {{kNoNumber, kNoNumber}, {kNoNumber, kNoNumber}};
  std::vector<std::string> changed_settings;  // "top_k: 1 -> 50"
  std::string verdict;                        // one sentence
};

struct DivergenceInput {
  const RunTrace* run = nullptr;
  const std::vector<TracedStep>* steps = nullptr;  // of one sequence
  const RunEnd* end = nullptr;
  int64_t sequence = 0;
  std::string_view execution_json = "{}";  // RunRecord's
};
// The two runs may come from different settings, models or machines. kInvalidArgument: beam search,
// whose tokens are not chosen step by step.
[[nodiscard]] Result<Divergence> find_divergence(const DivergenceInput& first,
                                                 const DivergenceInput& second);

}  // namespace logitlab
