#include "sampling/processors/min_p.h"

#include <gtest/gtest.h>

#include "sampling/test_rows.h"

namespace logitlab {
namespace {

TEST(MinP, RemovesWhatIsBelowTheShareOfTheBest) {  // W10
  EXPECT_EQ(survivors(MinP(0.0, 1), row_a()), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(survivors(MinP(0.05, 1), row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(MinP(0.1, 1), row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(MinP(0.2, 1), row_a()), (Ids{0, 1}));
  EXPECT_EQ(survivors(MinP(0.5, 1), row_a()), (Ids{0}));
  EXPECT_EQ(survivors(MinP(1, 1), row_a()), (Ids{0}));
}

TEST(MinP, OneKeepsAllThatTieForTheMaximum) {  // W11
  EXPECT_EQ(survivors(MinP(1, 1), {1, 1, 0}), (Ids{0, 1}));
}

TEST(MinP, KeepsAtLeastMinTokensToKeep) {
  EXPECT_EQ(survivors(MinP(1, 2), row_a()), (Ids{0, 1}));
  EXPECT_EQ(survivors(MinP(0.05, 2), row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(MinP(1, 2), {0, 5, 0}), (Ids{0, 1}));  // equal: the lower id
  EXPECT_EQ(survivors(MinP(1, 9), row_a()), (Ids{0, 1, 2, 3}));
}

TEST(MinP, NeverMakesNan) {  // W25
  EXPECT_EQ(processed(MinP(0.5, 1), {5, kMinusInfinity, kMinusInfinity}),
            (Row{5, kMinusInfinity, kMinusInfinity}));
  EXPECT_EQ(processed(MinP(0.5, 3), {5, kMinusInfinity, kMinusInfinity}),
            (Row{5, kMinusInfinity, kMinusInfinity}));
}

TEST(MinP, RemovesNothingWithoutASoftmax) {
  EXPECT_EQ(survivors(MinP(1, 1), {1, kNan, 3}), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(MinP(1, 1), {1, kPlusInfinity, 3}), (Ids{0, 1, 2}));
}

}  // namespace
}  // namespace logitlab
