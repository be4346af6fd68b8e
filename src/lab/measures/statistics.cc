#include "lab/measures/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/philox.h"

namespace logitlab {
namespace {

constexpr size_t kFewestForAnInterval = 3;
constexpr int64_t kMostRelabelings = 20'000;
// Drawn ones are fewer where each looks at many pairs.
constexpr int64_t kFewestRelabelings = 999;
constexpr int64_t kMostPairsLookedAt = 20'000'000;
// Differences of means of at most some thousand similarities in [0, 1], summed in two orders.
constexpr double kEqual = 1e-12;
// One-sided 5 % and a power of 80 %: quantiles of the normal distribution.
constexpr double kSignificance = 1.644854;
constexpr double kPower = 0.841621;
// With n texts in each of two groups the smallest p is 2 / C(2n, n): 0.1 for 3, 0.029 for 4.
constexpr int64_t kFewestToSettle = 4;

// Numbers that are the same every time. The last word of the counter tells them from the draws of
// tokens (0) and of beams (1).
class Numbers {
 public:
  explicit Numbers(uint64_t seed)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)} {}

  // 0 to n - 1. The remainder's bias is below n / 2^32.
  size_t below(size_t n) {
    if (at_ == block_.size()) {
      block_ = philox4x32(
          {static_cast<uint32_t>(n_blocks_), static_cast<uint32_t>(n_blocks_ >> 32), 0, 2}, key_);
      ++n_blocks_;
      at_ = 0;
    }
    return static_cast<size_t>(uint64_t{block_[at_++]} * n >> 32);
  }

 private:
  std::array<uint32_t, 2> key_;
  PhiloxBlock block_{};
  size_t at_ = 4;
  uint64_t n_blocks_ = 0;
};

// Sum and number of similarities.
struct Mean {
  double sum = 0;
  int64_t n = 0;
  void add(double value) {
    sum += value;
    ++n;
  }
  [[nodiscard]] double value() const { return n == 0 ? 0.0 : sum / static_cast<double>(n); }
};

Mean mean_within(const SimilarityMatrix& matrix, std::span<const size_t> group) {
  Mean mean;
  for (size_t i = 0; i < group.size(); ++i) {
    for (size_t j = i + 1; j < group.size(); ++j) {
      // A text drawn twice would be compared with itself.
      if (group[i] != group[j]) {
        mean.add(matrix.at(group[i], group[j]));
      }
    }
  }
  return mean;
}

Mean mean_between(const SimilarityMatrix& matrix, std::span<const size_t> first,
                  std::span<const size_t> second) {
  Mean mean;
  for (const size_t i : first) {
    for (const size_t j : second) {
      mean.add(matrix.at(i, j));
    }
  }
  return mean;
}

void draw_again(std::span<const size_t> group, Numbers* numbers, std::vector<size_t>* out) {
  out->clear();
  for (size_t k = 0; k < group.size(); ++k) {
    out->push_back(group[numbers->below(group.size())]);
  }
}

std::optional<Interval> percentiles(std::vector<double> values, double level) {
  if (values.empty()) {
    return std::nullopt;
  }
  std::sort(values.begin(), values.end());
  const auto at = [&values](double share) {
    const double position = share * static_cast<double>(values.size() - 1);
    const auto low = static_cast<size_t>(position);
    const size_t high = std::min(low + 1, values.size() - 1);
    return values[low] + (values[high] - values[low]) * (position - static_cast<double>(low));
  };
  return Interval{at((1 - level) / 2), at((1 + level) / 2)};
}

void count_range(SampleSummary* summary, double value) {
  summary->minimum = summary->n == 0 ? value : std::min(summary->minimum, value);
  summary->maximum = summary->n == 0 ? value : std::max(summary->maximum, value);
  ++summary->n;
}

double difference_of(const SimilarityMatrix& matrix, std::span<const size_t> first,
                     std::span<const size_t> second) {
  Mean inside = mean_within(matrix, first);
  const Mean other = mean_within(matrix, second);
  inside.sum += other.sum;
  inside.n += other.n;
  return inside.value() - mean_between(matrix, first, second).value();
}

// C(n, k), or more than `most`.
int64_t choices(size_t n, size_t k, int64_t most) {
  double count = 1;
  for (size_t i = 1; i <= k; ++i) {
    count = count * static_cast<double>(n - k + i) / static_cast<double>(i);
    if (count > static_cast<double>(most)) {
      return most + 1;
    }
  }
  return std::llround(count);
}

struct Relabeling {
  const SimilarityMatrix& matrix;
  std::vector<size_t> all;  // texts of both groups, the first group's first

  double found = 0;
  int64_t as_large = 0;
  std::vector<size_t> first;
  std::vector<size_t> second;

  // `chosen`: for each of `all`, whether it belongs to the first group.
  void count(const std::vector<bool>& chosen) {
    first.clear();
    second.clear();
    for (size_t i = 0; i < all.size(); ++i) {
      (chosen[i] ? first : second).push_back(all[i]);
    }
    as_large += difference_of(matrix, first, second) >= found - kEqual ? 1 : 0;
  }
};

// The variance of what each text of `group` adds to the difference, over the texts.
double spread(const SimilarityMatrix& matrix, std::span<const size_t> group,
              std::span<const size_t> other) {
  std::vector<double> parts;
  for (const size_t i : group) {
    Mean own;
    for (const size_t j : group) {
      if (j != i) {
        own.add(matrix.at(i, j));
      }
    }
    Mean foreign;
    for (const size_t j : other) {
      foreign.add(matrix.at(i, j));
    }
    parts.push_back(own.value() - foreign.value());
  }
  const double n = static_cast<double>(parts.size());
  const double mean = std::accumulate(parts.begin(), parts.end(), 0.0) / n;
  double squares = 0;
  for (const double part : parts) {
    squares += (part - mean) * (part - mean);
  }
  return squares / (n - 1);
}

// Probability of at least k successes in n trials of probability p.
double upper_tail(int64_t k, int64_t n, double p) {
  const auto trials = static_cast<double>(n);
  double sum = 0;
  for (int64_t i = k; i <= n; ++i) {
    const auto successes = static_cast<double>(i);
    sum += std::exp(std::lgamma(trials + 1) - std::lgamma(successes + 1) -
                    std::lgamma(trials - successes + 1) + successes * std::log(p) +
                    (trials - successes) * std::log1p(-p));
  }
  return std::min(1.0, sum);
}

// The p at which upper_tail, which grows with p, reaches `level`.
double where_tail_is(double level, int64_t k, int64_t n) {
  constexpr int kHalvings = 60;  // to the last bit of a double near 1
  double low = 0;
  double high = 1;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (upper_tail(k, n, middle) < level ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace

std::vector<std::string> word_set(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  };
  for (const char c : text) {
    const bool is_upper = c >= 'A' && c <= 'Z';
    if (is_upper || (c >= 'a' && c <= 'z')) {
      word.push_back(is_upper ? static_cast<char>(c - 'A' + 'a') : c);
    } else {
      end_word();
    }
  }
  end_word();
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

double jaccard(std::span<const std::string> first, std::span<const std::string> second) {
  if (first.empty() && second.empty()) {
    return 1;
  }
  size_t common = 0;
  for (auto a = first.begin(), b = second.begin(); a != first.end() && b != second.end();) {
    const int order = a->compare(*b);
    common += order == 0 ? 1 : 0;
    a += order <= 0 ? 1 : 0;
    b += order >= 0 ? 1 : 0;
  }
  return static_cast<double>(common) / static_cast<double>(first.size() + second.size() - common);
}

SimilarityMatrix jaccard_matrix(std::span<const std::string> texts) {
  std::vector<std::vector<std::string>> words;
  words.reserve(texts.size());
  for (const std::string& text : texts) {
    words.push_back(word_set(text));
  }
  SimilarityMatrix matrix;
  matrix.n = texts.size();
  matrix.values.assign(matrix.n * matrix.n, 1.0);
  for (size_t i = 0; i < matrix.n; ++i) {
    for (size_t j = i + 1; j < matrix.n; ++j) {
      const double value = jaccard(words[i], words[j]);
      matrix.values[i * matrix.n + j] = value;
      matrix.values[j * matrix.n + i] = value;
    }
  }
  return matrix;
}

SampleSummary within(const SimilarityMatrix& matrix, std::span<const size_t> group,
                     const BootstrapOptions& options) {
  SampleSummary summary;
  for (size_t i = 0; i < group.size(); ++i) {
    for (size_t j = i + 1; j < group.size(); ++j) {
      count_range(&summary, matrix.at(group[i], group[j]));
    }
  }
  const Mean mean = mean_within(matrix, group);
  summary.mean = mean.value();
  const auto n = static_cast<double>(group.size());
  if (!group.empty()) {
    summary.published = (2 * mean.sum + n) / (n * n);
  }
  if (group.size() < kFewestForAnInterval) {
    return summary;
  }
  Numbers numbers(options.seed);
  std::vector<size_t> drawn;
  std::vector<double> means;
  for (int64_t k = 0; k < options.resamples; ++k) {
    draw_again(group, &numbers, &drawn);
    // Without two different texts there is nothing to compare.
    if (const Mean one = mean_within(matrix, drawn); one.n > 0) {
      means.push_back(one.value());
    }
  }
  summary.interval = percentiles(std::move(means), options.level);
  return summary;
}

SampleSummary between(const SimilarityMatrix& matrix, std::span<const size_t> first,
                      std::span<const size_t> second, const BootstrapOptions& options) {
  SampleSummary summary;
  for (const size_t i : first) {
    for (const size_t j : second) {
      count_range(&summary, matrix.at(i, j));
    }
  }
  summary.mean = mean_between(matrix, first, second).value();
  if (std::min(first.size(), second.size()) < kFewestForAnInterval) {
    return summary;
  }
  Numbers numbers(options.seed);
  std::vector<size_t> drawn_first;
  std::vector<size_t> drawn_second;
  std::vector<double> means;
  for (int64_t k = 0; k < options.resamples; ++k) {
    draw_again(first, &numbers, &drawn_first);
    draw_again(second, &numbers, &drawn_second);
    means.push_back(mean_between(matrix, drawn_first, drawn_second).value());
  }
  summary.interval = percentiles(std::move(means), options.level);
  return summary;
}

double corrected_mean(double published, int64_t n) {
  CHECK(n >= 2) << n;
  const auto count = static_cast<double>(n);
  return (published * count * count - count) / (count * (count - 1));
}

PermutationTest permutation_test(const SimilarityMatrix& matrix, std::span<const size_t> first,
                                 std::span<const size_t> second, uint64_t seed) {
  PermutationTest test;
  const size_t n = first.size() + second.size();
  if (first.empty() || second.empty() || n < 3) {
    return test;  // no pair within a group
  }
  test.difference = difference_of(matrix, first, second);
  Relabeling relabeling{matrix, {first.begin(), first.end()}, test.difference, 0, {}, {}};
  relabeling.all.insert(relabeling.all.end(), second.begin(), second.end());
  const int64_t count = choices(n, first.size(), kMostRelabelings);
  std::vector<bool> chosen(n, false);
  test.is_exact = count <= kMostRelabelings;
  if (test.is_exact) {
    std::fill(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(first.size()), true);
    do {
      relabeling.count(chosen);
    } while (std::prev_permutation(chosen.begin(), chosen.end()));
    test.relabelings = count;
    const auto all = static_cast<double>(count);
    test.p_value = static_cast<double>(relabeling.as_large) / all;
    // Groups of one size can be exchanged, which changes nothing.
    test.smallest_p = (first.size() == second.size() ? 2 : 1) / all;
    return test;
  }
  Numbers numbers(seed);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  const auto n_pairs = static_cast<int64_t>(n * (n - 1) / 2);
  const int64_t drawn =
      std::clamp(kMostPairsLookedAt / n_pairs, kFewestRelabelings, kMostRelabelings);
  for (int64_t k = 0; k < drawn; ++k) {
    std::fill(chosen.begin(), chosen.end(), false);
    for (size_t i = 0; i < first.size(); ++i) {
      std::swap(order[i], order[i + numbers.below(n - i)]);
      chosen[order[i]] = true;
    }
    relabeling.count(chosen);
  }
  test.relabelings = drawn;
  // The labels as they are count as one relabeling: so p is never 0.
  const auto all = static_cast<double>(drawn + 1);
  test.p_value = static_cast<double>(relabeling.as_large + 1) / all;
  test.smallest_p = 1 / all;
  return test;
}

std::optional<int64_t> runs_to_settle(const SimilarityMatrix& matrix, std::span<const size_t> first,
                                      std::span<const size_t> second) {
  if (std::min(first.size(), second.size()) < kFewestForAnInterval) {
    return std::nullopt;
  }
  const double difference = difference_of(matrix, first, second);
  if (difference <= kEqual) {
    return std::nullopt;
  }
  // With n texts in each group the difference is, to first order, a mean over the texts of what
  // each adds to it: its variance is (s1^2 + s2^2) / n.
  const double variance = spread(matrix, first, second) + spread(matrix, second, first);
  const double quantiles = kSignificance + kPower;
  const double wanted = std::ceil(quantiles * quantiles * variance / (difference * difference));
  constexpr double kMost = 1e9;
  return std::max(kFewestToSettle, static_cast<int64_t>(std::min(wanted, kMost)));
}

Interval share_interval(int64_t k, int64_t n) {
  CHECK(k >= 0 && k <= n) << k << " of " << n;
  constexpr double kTail = 0.025;
  return {k == 0 ? 0.0 : where_tail_is(kTail, k, n),
          k == n ? 1.0 : where_tail_is(1 - kTail, k + 1, n)};
}

NumberSummary summarize(std::span<const double> values) {
  NumberSummary summary;
  if (values.empty()) {
    return summary;
  }
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  summary.n = static_cast<int64_t>(sorted.size());
  summary.minimum = sorted.front();
  summary.maximum = sorted.back();
  const size_t half = sorted.size() / 2;
  summary.median = sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  summary.mean =
      std::accumulate(sorted.begin(), sorted.end(), 0.0) / static_cast<double>(sorted.size());
  return summary;
}

}  // namespace logitlab
