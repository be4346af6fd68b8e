// Honest statistics over small numbers of texts. Similarities are in [0, 1].
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lab/coupling.h"  // Interval

namespace logitlab {

// The words of a text: the maximal runs of ASCII letters of the lower-cased text, sorted, each
// once.
[[nodiscard]] std::vector<std::string> word_set(std::string_view text);
// Intersection over union; 1 when both are empty. Sorted sets.
[[nodiscard]] double jaccard(std::span<const std::string> first,
                             std::span<const std::string> second);

// A symmetric matrix of similarities with ones on the diagonal, n x n, row-major.
struct SimilarityMatrix {
  size_t n = 0;
  std::vector<double> values;
  [[nodiscard]] double at(size_t i, size_t j) const { return values[i * n + j]; }
};
[[nodiscard]] SimilarityMatrix jaccard_matrix(std::span<const std::string> texts);

struct SampleSummary {
  int64_t n = 0;  // pairs
  double minimum = 0;
  double mean = 0;
  double maximum = 0;
  // 95 % by the bootstrap over texts, not over pairs, which are not independent. None for fewer
  // than three texts (a group): then no interval is honest.
  std::optional<Interval> interval;
  std::optional<double> published;  // the mean over all n x n ordered pairs, self-pairs included
};

struct BootstrapOptions {
  int64_t resamples = 2'000;
  double level = 0.95;
  uint64_t seed = 0;  // of Philox: the same interval every time
};
// Pairs i < j of `group`. A resample draws texts with replacement; pairs of a text with its own
// copy are left out of it.
[[nodiscard]] SampleSummary within(const SimilarityMatrix& matrix, std::span<const size_t> group,
                                   const BootstrapOptions& options);
// All pairs of one text from each group; both groups are resampled.
[[nodiscard]] SampleSummary between(const SimilarityMatrix& matrix, std::span<const size_t> first,
                                    std::span<const size_t> second,
                                    const BootstrapOptions& options);
// The mean over i < j that belongs to a published mean over n x n ordered pairs.
[[nodiscard]] double corrected_mean(double published, int64_t n);

// "Texts of one setting are more alike than texts of two": the difference of the mean within (both
// groups pooled) and between, and the share of relabelings with a difference at least as large.
struct PermutationTest {
  double difference = 0;
  double p_value = 1;
  int64_t relabelings = 0;  // all when there are at most 20,000, else 999 or more
  bool is_exact = false;
  double smallest_p = 1;  // what this number of texts can give at best
};
[[nodiscard]] PermutationTest permutation_test(const SimilarityMatrix& matrix,
                                               std::span<const size_t> first,
                                               std::span<const size_t> second, uint64_t seed);

// How many runs a setting would need so that the difference found would be told from none with 80 %
// power at 5 %, taking the spread as it was seen. None: no difference was seen, or too few texts to
// know the spread.
[[nodiscard]] std::optional<int64_t> runs_to_settle(const SimilarityMatrix& matrix,
                                                    std::span<const size_t> first,
                                                    std::span<const size_t> second);

// 95 % interval of Clopper and Pearson for the probability behind `k` of `n` independent trials:
// [0, 1] for no trials. O(n).
[[nodiscard]] Interval share_interval(int64_t k, int64_t n);

struct NumberSummary {
  int64_t n = 0;
  double minimum = 0;
  double mean = 0;
  double median = 0;
  double maximum = 0;
};
[[nodiscard]] NumberSummary summarize(std::span<const double> values);  // n == 0: zeros

}  // namespace logitlab
