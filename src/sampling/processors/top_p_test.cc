#include "sampling/processors/top_p.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "sampling/selection.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

TEST(TopP, KeepsTheSmallestSetThatReachesTheMass) {
  EXPECT_EQ(survivors(TopP(0.5, 1), row_a()), (Ids{0}));  // W1
  EXPECT_EQ(survivors(TopP(0.64, 1), row_a()), (Ids{0}));
  EXPECT_EQ(survivors(TopP(0.65, 1), row_a()), (Ids{0, 1}));  // W2
  EXPECT_EQ(survivors(TopP(0.7, 1), row_a()), (Ids{0, 1}));
  EXPECT_EQ(survivors(TopP(0.9, 1), row_a()), (Ids{0, 1, 2}));  // W3
  EXPECT_EQ(survivors(TopP(0.95, 1), row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(TopP(0.97, 1), row_a()), (Ids{0, 1, 2, 3}));
}

TEST(TopP, ZeroKeepsOneToken) {  // W4
  EXPECT_EQ(survivors(TopP(0, 1), row_a()), (Ids{0}));
}

TEST(TopP, ATieGroupIsCutAndTheLowerIdsStay) {  // W5, W6; the tie rule is ours
  const Row uniform(4, 0.0F);
  EXPECT_EQ(survivors(TopP(0.25, 1), uniform), (Ids{0}));
  EXPECT_EQ(survivors(TopP(0.3, 1), uniform), (Ids{0, 1}));
  EXPECT_EQ(survivors(TopP(0.5, 1), uniform), (Ids{0, 1}));
  EXPECT_EQ(survivors(TopP(0.75, 1), uniform), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(TopP(0.9, 1), uniform), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(survivors(TopP(0.1, 1), {1, 1, 0}), (Ids{0}));
}

TEST(TopP, TheThresholdIsTakenInDouble) {
  // One minus .9 rounds to 0.1f in double, but to 0.100000024 in float32. The second token has the
  // probability 0.10000001, which is between the two: it stays.
  const Row row = {0.0F, static_cast<float>(std::log(0.10000001 / (1 - 0.10000001)))};
  std::vector<float> probabilities;
  ASSERT_TRUE(softmax_float32(row, &probabilities));
  ASSERT_GT(probabilities[1], 0.1F);
  ASSERT_LE(probabilities[1], 1.0F - 0.9F);
  EXPECT_EQ(survivors(TopP(0.9, 1), row), (Ids{0, 1}));
}

TEST(TopP, KeepsAtLeastMinTokensToKeep) {
  EXPECT_EQ(survivors(TopP(0.1, 3), row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(TopP(0.1, 4), row_a()), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(survivors(TopP(0.1, 9), row_a()), (Ids{0, 1, 2, 3}));
  // The tokens to restore may be so unlikely that the selection never looked at them.
  Row peaked(3000, -60.0F);
  peaked[7] = 0;
  peaked[9] = -50;
  EXPECT_EQ(survivors(TopP(0.5, 3), peaked), (Ids{0, 7, 9}));
}

TEST(TopP, NeverMakesNan) {  // W25
  EXPECT_EQ(processed(TopP(0.5, 1), {5, kMinusInfinity, kMinusInfinity}),
            (Row{5, kMinusInfinity, kMinusInfinity}));
  const Row banned(3, kMinusInfinity);
  EXPECT_EQ(processed(TopP(0.5, 1), banned), banned);
}

TEST(TopP, RemovesNothingWithoutASoftmax) {
  const Row row = processed(TopP(0.1, 1), {1, kNan, 3});
  EXPECT_EQ(row[0], 1.0F);
  EXPECT_EQ(row[2], 3.0F);
  EXPECT_EQ(survivors(TopP(0.1, 1), {1, kPlusInfinity, 3}), (Ids{0, 1, 2}));
}

// The definition, with a full sort.
Ids sorted_top_p(const Row& row, double top_p) {
  std::vector<float> probabilities;
  EXPECT_TRUE(softmax_float32(row, &probabilities));
  Ids order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&row](TokenId a, TokenId b) {
    const float score_a = row[static_cast<size_t>(a)];
    const float score_b = row[static_cast<size_t>(b)];
    return score_a != score_b ? score_a < score_b : a > b;
  });
  const auto threshold = static_cast<float>(1.0 - top_p);
  double sum = 0;
  Ids kept;
  for (size_t i = 0; i < order.size(); ++i) {
    sum += static_cast<double>(probabilities[static_cast<size_t>(order[i])]);
    if (static_cast<float>(sum) > threshold || i + 1 == order.size()) {
      kept.push_back(order[i]);
    }
  }
  std::ranges::sort(kept);
  return kept;
}

TEST(TopP, TheSelectionEqualsAFullSort) {
  uint32_t state = 1;
  const auto next = [&state] {
    state = state * 1664525U + 1013904223U;
    return static_cast<float>(state >> 8) * 0x1p-24F;
  };
  for (const size_t size : {2U, 31U, 33U, 200U, 4000U}) {
    for (const float spread : {0.1F, 3.0F, 20.0F}) {
      for (const bool is_tied : {false, true}) {
        Row row(size);
        for (float& score : row) {
          score = next() * spread;
          score = is_tied ? std::round(score * 2) / 2 : score;
        }
        for (const double top_p : {0.0, 0.05, 0.37, 0.5, 0.9, 0.99, 0.99999}) {
          EXPECT_EQ(survivors(TopP(top_p, 1), row), sorted_top_p(row, top_p))
              << size << " " << spread << " " << is_tied << " " << top_p;
        }
      }
    }
  }
}

}  // namespace
}  // namespace logitlab
