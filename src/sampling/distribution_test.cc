#include "sampling/distribution.h"

#include <gtest/gtest.h>

#include "sampling/test_rows.h"

namespace logitlab {
namespace {

TEST(Distribution, OfRowA) {
  EXPECT_NEAR(log_sum_exp(row_a()), 2.4401896985611953, 1e-14);
  const auto probabilities = softmax_probabilities(row_a());
  const double expected[] = {0.64391426, 0.23688282, 0.08714432, 0.03205860};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(probabilities[i], expected[i], 1e-8);
  }
  EXPECT_NEAR(entropy(row_a()), 0.94753693, 1e-7);
}

TEST(Distribution, BannedTokensHaveNoProbability) {
  const Row row = {kMinusInfinity, 0, 0};
  EXPECT_EQ(softmax_probabilities(row)[0], 0.0);
  EXPECT_NEAR(entropy(row), std::log(2.0), 1e-15);
  EXPECT_EQ(entropy(Row{kMinusInfinity, 3}), 0.0);
}

TEST(Distribution, LargeLogitsDoNotOverflow) {
  EXPECT_NEAR(softmax_probabilities(Row{1e30F, 1e30F})[1], 0.5, 1e-15);
  EXPECT_NEAR(log_sum_exp(Row{-2000, -2000}), -2000 + std::log(2.0), 1e-12);
}

TEST(Distribution, DoesNotExistForNanOrNothing) {
  for (const Row& row : {Row{1, kNan}, Row{1, kPlusInfinity}, Row{kMinusInfinity}, Row{}}) {
    EXPECT_TRUE(std::isnan(log_sum_exp(row)));
    EXPECT_TRUE(std::isnan(entropy(row)));
    for (const double probability : softmax_probabilities(row)) {
      EXPECT_TRUE(std::isnan(probability));
    }
  }
}

TEST(Distribution, AlternativesAreRankedOverTheWholeRow) {
  const auto alternatives = top_alternatives(Row{0, 2, 1, 2}, 3);
  ASSERT_EQ(alternatives.size(), 3U);
  EXPECT_EQ(alternatives[0].id, 1);
  EXPECT_EQ(alternatives[1].id, 3);
  EXPECT_EQ(alternatives[2].id, 2);
  EXPECT_EQ(alternatives[2].logit, 1.0F);
  const double sum = 1 + std::exp(1.0) + 2 * std::exp(2.0);
  EXPECT_NEAR(alternatives[0].probability, std::exp(2.0) / sum, 1e-15);
  EXPECT_NEAR(alternatives[2].probability, std::exp(1.0) / sum, 1e-15);
  EXPECT_EQ(top_alternatives(row_a(), 10).size(), 4U);
  EXPECT_TRUE(top_alternatives(row_a(), 0).empty());
}

}  // namespace
}  // namespace logitlab
