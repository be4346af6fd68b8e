// One pass sums over a row of the vocabulary: what the trace needs at every step, for a small share
// of the time that the step itself takes. Results are the same on every machine: fixed lanes, no
// fused multiply-add.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

// softmax and entropy of a row, its best tokens, the mass of any part of it. Exponentials are
// float32 with a relative error below 2e-7 (0 below e^-87 of the largest), blocks are summed in
// double. One row at a time; memory is kept. NaN ranks above every number. With a NaN, a +inf or
// nothing but -inf the distribution does not exist: probabilities, entropies and masses are NaN.
class RowStatistics {
 public:
  explicit RowStatistics(int64_t vocab_size);

  // row: [vocab_size]; valid as long as anything below is asked.
  void measure(std::span<const float> row);

  [[nodiscard]] bool exists() const { return exists_; }
  [[nodiscard]] float largest() const { return largest_; }    // NaN when there is one
  [[nodiscard]] int64_t n_alive() const { return n_alive_; }  // that are not -inf
  // Sum of exp(score - largest): 1 or more.
  [[nodiscard]] double sum() const { return sum_; }
  [[nodiscard]] double log_sum_exp() const;
  [[nodiscard]] double entropy() const;
  // Of a token with this score, in double.
  [[nodiscard]] double probability(float score) const;
  // The ids that have exactly the largest score, ascending, at most `limit` of them; returns how
  // many there are.
  int64_t tied_at_largest(int64_t limit, std::vector<TokenId>* ids) const;
  // The n best ids, best first, the lower id first among equals. `ids` keeps its memory.
  void top(int64_t n, std::vector<TokenId>* ids) const;
  // log-sum-exp of the row without `ids` (each once); -inf when nothing but -inf is left.
  [[nodiscard]] double tail_log_sum_exp(std::span<const TokenId> ids) const;
  // Share of the tokens that are not -inf in `scores` ([vocab_size]), and of the listed ones.
  [[nodiscard]] double alive_mass(std::span<const float> scores) const;
  [[nodiscard]] double mass(std::span<const TokenId> ids) const;

 private:
  void find_maxima();
  void sum_exponentials();

  std::span<const float> row_;
  std::vector<float> exponentials_;  // exp(score - largest), padded with zeros to whole blocks
  std::vector<float> block_maxima_;
  std::vector<double> block_sums_;
  mutable std::vector<float> sorted_maxima_;
  // [vocab_size] and per block; all 0 between calls.
  mutable std::vector<uint8_t> is_excluded_;
  mutable std::vector<uint8_t> has_excluded_;
  bool exists_ = false;
  bool has_nan_ = false;
  int64_t n_alive_ = 0;
  float largest_ = 0;
  double sum_ = 0;       // of the exponentials
  double weighted_ = 0;  // of exponential * (score - largest)
};

// 1 + how many scores rank above `score`, NaN above every number; 1 for NaN.
[[nodiscard]] int64_t rank_in(std::span<const float> row, float score);
// How many scores are not -inf; NaN is not.
[[nodiscard]] int64_t count_alive(std::span<const float> row);
// The smallest score above -inf; +inf when there is none.
[[nodiscard]] float lowest_alive(std::span<const float> row);
// The ids that are not -inf, ascending. `ids` keeps its memory.
void alive_ids(std::span<const float> row, std::vector<TokenId>* ids);
// The ids whose bits differ between the rows and that are not -inf in `after`, ascending.
void changed_ids(std::span<const float> before, std::span<const float> after,
                 std::vector<TokenId>* ids);

}  // namespace logitlab
