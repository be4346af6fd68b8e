#include "lab/measures/statistics.h"

#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

using Words = std::vector<std::string>;

TEST(WordSet, AreRunsOfAsciiLettersLowered) {
  EXPECT_EQ(word_set("The cat, the CAT; a dog's 3rd B12!"),
            (Words{"a", "b", "cat", "dog", "rd", "s", "the"}));
  EXPECT_EQ(word_set("na\xC3\xAFve"), (Words{"na", "ve"}));
  EXPECT_TRUE(word_set("").empty());
  EXPECT_TRUE(word_set("12 -- 34 \n").empty());
}

TEST(Jaccard, IsIntersectionOverUnion) {
  EXPECT_DOUBLE_EQ(jaccard(Words{"a", "b", "c"}, Words{"b", "c", "d"}), 0.5);
  EXPECT_DOUBLE_EQ(jaccard(Words{"a"}, Words{"b"}), 0);
  EXPECT_DOUBLE_EQ(jaccard(Words{"a"}, Words{}), 0);
  EXPECT_DOUBLE_EQ(jaccard(Words{}, Words{}), 1);
  EXPECT_DOUBLE_EQ(jaccard(Words{"a", "b"}, Words{"a", "b"}), 1);
}

TEST(JaccardMatrix, IsSymmetric) {
  const SimilarityMatrix matrix = jaccard_matrix(Words{"a b", "b c", "x"});
  ASSERT_EQ(matrix.n, 3U);
  EXPECT_DOUBLE_EQ(matrix.at(0, 0), 1);
  EXPECT_DOUBLE_EQ(matrix.at(0, 1), 1.0 / 3);
  EXPECT_DOUBLE_EQ(matrix.at(1, 0), 1.0 / 3);
  EXPECT_DOUBLE_EQ(matrix.at(0, 2), 0);
}

// A lesson that was published with every text compared with itself too: runs of a setting, the mean
// that it gave, the mean over the pairs of different texts.
struct Published {
  const char* setting;
  int64_t runs;
  double published;
  double corrected;
};
constexpr Published kPublished[] = {
    {"sampling", 5, 0.3564, 0.1955},
    {"greedy", 5, 1.0, 1.0},
    {"temperature 0.2", 3, 0.6100, 0.4149},
    {"temperature 0.7", 3, 0.4938, 0.2407},
    {"temperature 1.0", 3, 0.4780, 0.2170},
    {"temperature 1.3", 3, 0.4584, 0.1876},
    {"temperature 1.8", 3, 0.4164, 0.1246},
    {"top_k 1", 3, 0.7835, 0.6752},
    {"top_k 2", 3, 0.4765, 0.2148},
    {"top_k 3", 3, 0.5055, 0.2582},
    {"top_k 4", 3, 0.4977, 0.2466},
    {"top_k 5", 3, 0.5247, 0.2871},
    {"top_p 0.01", 3, 1.0, 1.0},
    {"top_p 0.5", 3, 0.8125, 0.7188},
    {"top_p 0.8", 3, 0.6854, 0.5280},
    {"min_p 0.01", 3, 0.5696, 0.3544},
    {"min_p 0.1", 3, 0.4963, 0.2445},
    {"min_p 0.3", 3, 0.6051, 0.4076},
    {"min_p 0.5", 3, 0.7582, 0.6373},
    {"min_p 0.8", 3, 0.7446, 0.6169},
};

TEST(CorrectedMean, GivesTheFiguresOfThePublishedLesson) {
  for (const Published& one : kPublished) {
    // Published means are rounded to 5e-5, which the correction multiplies by n / (n - 1), at most
    // 1.5; the corrected figures are rounded to 5e-5 themselves.
    EXPECT_NEAR(corrected_mean(one.published, one.runs), one.corrected, 1.3e-4) << one.setting;
  }
}

// Similarities that a function of the pair gives.
template <typename Function>
SimilarityMatrix matrix_of(size_t n, Function function) {
  SimilarityMatrix matrix;
  matrix.n = n;
  matrix.values.assign(n * n, 1);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      matrix.values[i * n + j] = matrix.values[j * n + i] = function(i, j);
    }
  }
  return matrix;
}
std::vector<size_t> range(size_t first, size_t end) {
  std::vector<size_t> out(end - first);
  std::iota(out.begin(), out.end(), first);
  return out;
}

TEST(Within, LeavesSelfPairsOutAndGivesThePublishedFigureBesideIt) {
  // Three texts whose pairs have the means of "temperature 0.2".
  const SimilarityMatrix matrix =
      matrix_of(3, [](size_t i, size_t j) { return i == 0 && j == 1 ? 0.3 : 0.47235; });
  const SampleSummary summary = within(matrix, range(0, 3), {});
  EXPECT_EQ(summary.n, 3);
  EXPECT_DOUBLE_EQ(summary.minimum, 0.3);
  EXPECT_DOUBLE_EQ(summary.maximum, 0.47235);
  EXPECT_NEAR(summary.mean, 0.4149, 5e-5);
  EXPECT_NEAR(*summary.published, 0.6100, 1e-4);
  EXPECT_NEAR(corrected_mean(*summary.published, 3), summary.mean, 1e-12);
  ASSERT_TRUE(summary.interval);
  EXPECT_LE(summary.interval->low, summary.mean);
  EXPECT_GE(summary.interval->high, summary.mean);
}

TEST(Within, OneTextHasNoPairsAndTwoNoInterval) {
  const SimilarityMatrix matrix = matrix_of(2, [](size_t, size_t) { return 0.25; });
  const SampleSummary one = within(matrix, range(0, 1), {});
  EXPECT_EQ(one.n, 0);
  EXPECT_FALSE(one.interval);
  EXPECT_DOUBLE_EQ(*one.published, 1);
  const SampleSummary two = within(matrix, range(0, 2), {});
  EXPECT_EQ(two.n, 1);
  EXPECT_DOUBLE_EQ(two.mean, 0.25);
  EXPECT_FALSE(two.interval);
  EXPECT_EQ(within(matrix, {}, {}).n, 0);
}

TEST(Within, TheSameSeedGivesTheSameInterval) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform;
  const SimilarityMatrix matrix = matrix_of(8, [&](size_t, size_t) { return uniform(random); });
  const SampleSummary first = within(matrix, range(0, 8), {.seed = 5});
  const SampleSummary second = within(matrix, range(0, 8), {.seed = 5});
  EXPECT_EQ(first.interval->low, second.interval->low);
  EXPECT_EQ(first.interval->high, second.interval->high);
  EXPECT_NE(first.interval->low, within(matrix, range(0, 8), {.seed = 6}).interval->low);
}

// Texts are points, similarity falls with their distance: what it is on average is known.
TEST(Within, ItsIntervalCoversTheTruth) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> uniform;
  constexpr int kTrials = 300;
  constexpr double kTruth = 2.0 / 3;  // of 1 - |x - y|, x and y uniform in [0, 1]
  int covered = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> points(20);
    for (double& point : points) {
      point = uniform(random);
    }
    const SimilarityMatrix matrix =
        matrix_of(20, [&](size_t i, size_t j) { return 1 - std::abs(points[i] - points[j]); });
    const SampleSummary summary = within(matrix, range(0, 20), {.resamples = 400});
    covered += summary.interval->low <= kTruth && kTruth <= summary.interval->high ? 1 : 0;
  }
  // A percentile interval of 20 texts is somewhat too narrow: 88 % at least is asked of it. The
  // deviation of the count is sqrt(300 * 0.95 * 0.05) = 3.8; not above 99.5 % tells that it is not
  // vacuous.
  EXPECT_GE(covered, kTrials * 88 / 100);
  EXPECT_LE(covered, kTrials * 995 / 1000);
}

TEST(Between, CountsAllPairs) {
  const SimilarityMatrix matrix =
      matrix_of(6, [](size_t i, size_t j) { return 0.1 * static_cast<double>(i + j); });
  const SampleSummary summary = between(matrix, range(0, 3), range(3, 6), {});
  EXPECT_EQ(summary.n, 9);
  EXPECT_NEAR(summary.mean, 0.5, 1e-12);
  EXPECT_NEAR(summary.minimum, 0.3, 1e-12);
  EXPECT_NEAR(summary.maximum, 0.7, 1e-12);
  EXPECT_TRUE(summary.interval);
  EXPECT_FALSE(summary.published);
  EXPECT_FALSE(between(matrix, range(0, 2), range(3, 6), {}).interval);
}

TEST(PermutationTest, SmallGroupsAreCountedOut) {
  // Two groups of three, alike inside, unlike across: only the labels as they are, and exchanged,
  // have such a difference, two of C(6, 3) = 20.
  const SimilarityMatrix apart =
      matrix_of(6, [](size_t i, size_t j) { return i / 3 == j / 3 ? 0.9 : 0.1; });
  const PermutationTest test = permutation_test(apart, range(0, 3), range(3, 6), 0);
  EXPECT_TRUE(test.is_exact);
  EXPECT_EQ(test.relabelings, 20);
  EXPECT_NEAR(test.difference, 0.8, 1e-12);
  EXPECT_DOUBLE_EQ(test.p_value, 0.1);
  EXPECT_DOUBLE_EQ(test.smallest_p, 0.1);
  const SimilarityMatrix same = matrix_of(6, [](size_t, size_t) { return 0.4; });
  EXPECT_DOUBLE_EQ(permutation_test(same, range(0, 3), range(3, 6), 0).p_value, 1);
  // Groups of different sizes cannot be exchanged: one of C(5, 2) = 10.
  const SimilarityMatrix uneven =
      matrix_of(5, [](size_t i, size_t j) { return (i < 2) == (j < 2) ? 0.9 : 0.1; });
  EXPECT_DOUBLE_EQ(permutation_test(uneven, range(0, 2), range(2, 5), 0).p_value, 0.1);
  EXPECT_DOUBLE_EQ(permutation_test(uneven, range(0, 2), range(2, 5), 0).smallest_p, 0.1);
}

TEST(PermutationTest, SinglesSayNothing) {
  const SimilarityMatrix matrix = matrix_of(2, [](size_t, size_t) { return 0.5; });
  const PermutationTest test = permutation_test(matrix, range(0, 1), range(1, 2), 0);
  EXPECT_DOUBLE_EQ(test.p_value, 1);
  EXPECT_EQ(test.relabelings, 0);
}

TEST(PermutationTest, LargeGroupsAreDrawn) {
  const SimilarityMatrix apart =
      matrix_of(24, [](size_t i, size_t j) { return i / 12 == j / 12 ? 0.9 : 0.1; });
  const PermutationTest test = permutation_test(apart, range(0, 12), range(12, 24), 1);
  EXPECT_FALSE(test.is_exact);
  EXPECT_EQ(test.relabelings, 20'000);
  EXPECT_GT(test.p_value, 0);
  EXPECT_LT(test.p_value, 1e-3);
}

TEST(PermutationTest, UnderTheNullItsLevelHolds) {
  std::mt19937 random(17);
  std::uniform_real_distribution<double> uniform;
  constexpr int kTrials = 400;
  int rejected = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const SimilarityMatrix matrix = matrix_of(10, [&](size_t, size_t) { return uniform(random); });
    rejected += permutation_test(matrix, range(0, 5), range(5, 10), 0).p_value <= 0.05 ? 1 : 0;
  }
  // 20 are expected at most, with a deviation of sqrt(400 * 0.05 * 0.95) = 4.4.
  EXPECT_LE(rejected, 20 + 4 * 5);
  EXPECT_GE(rejected, 1);
}

TEST(RunsToSettle, FallsAsTheDifferenceGrows) {
  std::mt19937 random(5);
  std::normal_distribution<double> noise(0, 0.05);
  std::vector<double> jitter(12);
  for (double& one : jitter) {
    one = noise(random);
  }
  int64_t before = 1'000'000'000;
  for (const double apart : {0.01, 0.05, 0.2, 0.6}) {
    const SimilarityMatrix matrix = matrix_of(12, [&](size_t i, size_t j) {
      return 0.3 + jitter[i] + jitter[j] + (i / 6 == j / 6 ? apart : 0);
    });
    // Noise that each text brings to all its pairs cancels: only the difference is left, and the
    // least number that a test can settle.
    const auto runs = runs_to_settle(matrix, range(0, 6), range(6, 12));
    ASSERT_TRUE(runs);
    EXPECT_LE(*runs, before);
    before = *runs;
  }
  EXPECT_EQ(before, 4);
}

TEST(RunsToSettle, ItsNumberHasThePowerThatItPromises) {
  // Text i of a group: a point of its own around the group's place; similarity by distance.
  std::mt19937 random(23);
  std::normal_distribution<double> place(0, 1);
  constexpr double kApart = 1.5;
  const auto draw = [&](size_t n) {
    std::vector<double> points(2 * n);
    for (size_t i = 0; i < points.size(); ++i) {
      points[i] = place(random) + (i < n ? 0 : kApart);
    }
    return matrix_of(
        2 * n, [points](size_t i, size_t j) { return std::exp(-std::abs(points[i] - points[j])); });
  };
  const auto wanted = runs_to_settle(draw(400), range(0, 400), range(400, 800));
  ASSERT_TRUE(wanted);
  ASSERT_GE(*wanted, 4);
  ASSERT_LE(*wanted, 60);
  const auto n = static_cast<size_t>(*wanted);
  int settled = 0;
  constexpr int kTrials = 60;
  for (int trial = 0; trial < kTrials; ++trial) {
    settled += permutation_test(draw(n), range(0, n), range(n, 2 * n), 0).p_value <= 0.05 ? 1 : 0;
  }
  // 80 % is the promise of a normal approximation; 60 % and not all of them is what is asked.
  EXPECT_GE(settled, kTrials * 6 / 10);
}

TEST(RunsToSettle, SaysNothingWithoutADifferenceOrTexts) {
  const SimilarityMatrix same = matrix_of(8, [](size_t, size_t) { return 0.4; });
  EXPECT_FALSE(runs_to_settle(same, range(0, 4), range(4, 8)));
  const SimilarityMatrix turned =
      matrix_of(8, [](size_t i, size_t j) { return i / 4 == j / 4 ? 0.1 : 0.9; });
  EXPECT_FALSE(runs_to_settle(turned, range(0, 4), range(4, 8)));
  const SimilarityMatrix apart =
      matrix_of(4, [](size_t i, size_t j) { return i / 2 == j / 2 ? 0.9 : 0.1; });
  EXPECT_FALSE(runs_to_settle(apart, range(0, 2), range(2, 4)));
}

TEST(ShareInterval, IsThatOfClopperAndPearson) {
  // Closed forms at the ends: 1 - (0.025)^(1/n) for no success, and its mirror.
  EXPECT_EQ(share_interval(0, 3).low, 0);
  EXPECT_NEAR(share_interval(0, 3).high, 1 - std::pow(0.025, 1.0 / 3), 1e-12);
  EXPECT_NEAR(share_interval(3, 3).low, std::pow(0.025, 1.0 / 3), 1e-12);
  EXPECT_EQ(share_interval(3, 3).high, 1);
  // By the beta quantiles of R: binom.test(5, 10).
  EXPECT_NEAR(share_interval(5, 10).low, 0.1870860, 1e-7);
  EXPECT_NEAR(share_interval(5, 10).high, 0.8129140, 1e-7);
  EXPECT_EQ(share_interval(0, 0).low, 0);
  EXPECT_EQ(share_interval(0, 0).high, 1);
}

TEST(ShareInterval, CoversTheTruth) {
  // Exact coverage of every p, by summing over all outcomes, is at least 95 %.
  constexpr int64_t kTrials = 7;
  for (const double p : {0.02, 0.1, 0.37, 0.5, 0.9}) {
    double coverage = 0;
    for (int64_t k = 0; k <= kTrials; ++k) {
      const Interval interval = share_interval(k, kTrials);
      const double chance = std::tgamma(kTrials + 1) /
                            (std::tgamma(k + 1) * std::tgamma(kTrials - k + 1)) * std::pow(p, k) *
                            std::pow(1 - p, kTrials - k);
      coverage += interval.low <= p && p <= interval.high ? chance : 0;
    }
    EXPECT_GE(coverage, 0.95) << p;
  }
}

TEST(Summarize, IsWhatItSays) {
  const std::vector<double> values = {4, 1, 3, 2};
  const NumberSummary summary = summarize(values);
  EXPECT_EQ(summary.n, 4);
  EXPECT_DOUBLE_EQ(summary.minimum, 1);
  EXPECT_DOUBLE_EQ(summary.mean, 2.5);
  EXPECT_DOUBLE_EQ(summary.median, 2.5);
  EXPECT_DOUBLE_EQ(summary.maximum, 4);
  EXPECT_DOUBLE_EQ(summarize(std::vector<double>{7}).median, 7);
  EXPECT_EQ(summarize({}).n, 0);
}

}  // namespace
}  // namespace logitlab
