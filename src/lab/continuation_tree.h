// All texts that a setting allows, with their exact probabilities.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "lab/coupling.h"

namespace logitlab {

struct TreeRequest {
  std::vector<TokenId> prompt;
  GenerationConfig config;    // as given; beams and guidance are refused
  double mass = 0.95;         // 0 < mass <= 1
  int64_t max_nodes = 2'000;  // forward rows
  int64_t max_rows = 64;      // of one forward pass
  std::function<bool()> is_cancelled;
  std::function<void(double mass, int64_t nodes)> on_progress;
};

struct TreeLeaf {
  std::vector<TokenId> ids;  // generated, the end token included
  double probability = 0;    // product of the final probabilities along the way
  StopReason stop_reason = StopReason::kLength;
};

struct ContinuationTree {
  std::vector<TreeLeaf> leaves;  // finished texts, likeliest first; at most kMostTexts
  static constexpr size_t kMostTexts = 10'000;
  int64_t n_texts = 0;       // all finished texts that were found
  double mass = 0;           // sum of the probabilities of all of them
  int64_t nodes = 0;         // distinct prefixes that went through the model
  int64_t replayed = 0;      // tokens computed again because memory did not suffice
  bool is_complete = false;  // the mass asked for was reached
  bool is_cancelled = false;
  // Likeliest unfinished beginnings where the budget ended the search, at most kMostOpen; the mass
  // of all of them.
  std::vector<TreeLeaf> open;
  static constexpr size_t kMostOpen = 1'000;
  double open_mass = 0;
  // Probability that two independent runs have parted after step t, [steps]: a range where not all
  // is known.
  std::vector<Interval> parted_by_step;
  // Probability that two runs give the same text.
  Interval same_text;
};

// Best first: the most probable open prefixes are expanded next, those that are nearly as probable
// with the best one in one forward pass. Under greedy decoding there is one leaf. A setting's
// max_time and seed mean nothing here. The states of open prefixes take at most a quarter of the
// free memory; what is given up goes through the model again. kInvalidArgument,
// kResourceExhausted.
[[nodiscard]] Result<ContinuationTree> expand_tree(Engine* engine, const TreeRequest& request);

// Expected number of distinct texts in n independent runs: the sum over texts of 1 - (1 - p)^n;
// what is not expanded lies between one text and n texts of vanishing probability.
[[nodiscard]] Interval expected_distinct(const ContinuationTree& tree, int64_t n);

}  // namespace logitlab
