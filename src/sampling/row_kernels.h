// The passes over a row of the vocabulary that the trace makes at every step, compiled once per
// instruction set. Sixteen lanes whatever the width of the machine's vectors, and no fused
// multiply-add: the same bits everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace logitlab {

// Scores stand in blocks of this many.
constexpr size_t kRowBlock = 64;

struct RowMaxima {
  int64_t n_alive = 0;  // scores that are not -inf
  bool has_nan = false;
};

struct RowSums {
  double sum = 0;       // of exp(score - largest)
  double weighted = 0;  // of exp(score - largest) * (score - largest)
};

// block_maxima[b] = the largest of block b, NaN left out. Adds to `found`.
void find_maxima(const float* scores, size_t n_blocks, float* block_maxima, RowMaxima* found);

// exponentials[i] = exp(scores[i] - largest) with a relative error below 2e-7, 0 below e^-87;
// block_sums[b] = their sum. No score is NaN or above `largest`, which is finite. Adds to `sums`.
void sum_exponentials(const float* scores, size_t n_blocks, float largest, float* exponentials,
                      double* block_sums, RowSums* sums);

// How many scores equal `score`, and how many are at most that. NaN does neither.
[[nodiscard]] int64_t count_equal(std::span<const float> row, float score);
[[nodiscard]] int64_t count_at_most(std::span<const float> row, float score);

}  // namespace logitlab
