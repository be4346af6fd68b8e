#include "sampling/processors/top_k.h"

#include <gtest/gtest.h>

#include "sampling/test_rows.h"

namespace logitlab {
namespace {

TEST(TopK, KeepsTheBest) {
  EXPECT_EQ(survivors(TopK(1, 1), row_a()), (Ids{0}));
  EXPECT_EQ(survivors(TopK(2, 1), row_a()), (Ids{0, 1}));
  EXPECT_EQ(survivors(TopK(3, 1), {-1, 0, 1, 2}), (Ids{1, 2, 3}));
  EXPECT_EQ(survivors(TopK(99, 1), row_a()), (Ids{0, 1, 2, 3}));  // W9
  EXPECT_EQ(survivors(TopK(4, 1), row_a()), (Ids{0, 1, 2, 3}));
}

TEST(TopK, TiesWithTheKthSurvive) {
  EXPECT_EQ(survivors(TopK(1, 1), {1, 1, 0}), (Ids{0, 1}));              // W6
  EXPECT_EQ(survivors(TopK(1, 1), {3, 3, 1}), (Ids{0, 1}));              // W7
  EXPECT_EQ(survivors(TopK(2, 1), {3, 1, 1, 1, 0}), (Ids{0, 1, 2, 3}));  // W8
}

TEST(TopK, KeepsAtLeastMinTokensToKeep) {
  EXPECT_EQ(survivors(TopK(1, 2), row_a()), (Ids{0, 1}));  // W24
}

TEST(TopK, RemovesNothingWhenTheKthIsBanned) {  // W25
  EXPECT_EQ(processed(TopK(2, 1), {5, kMinusInfinity, kMinusInfinity}),
            (Row{5, kMinusInfinity, kMinusInfinity}));
}

TEST(TopK, NanRanksAboveEveryNumber) {
  // The first of the best two is the NaN, the second is 5: 1 goes.
  Row row = processed(TopK(2, 1), {1, kNan, 5});
  EXPECT_EQ(row[0], kMinusInfinity);
  EXPECT_TRUE(std::isnan(row[1]));
  EXPECT_EQ(row[2], 5.0F);
  // The first is the NaN, and nothing compares below it.
  row = processed(TopK(1, 1), {1, kNan, 5});
  EXPECT_EQ(row[0], 1.0F);
  EXPECT_EQ(row[2], 5.0F);
}

TEST(TopK, KeepsInfinities) {
  EXPECT_EQ(survivors(TopK(1, 1), {1, kPlusInfinity, 5}), (Ids{1}));
}

}  // namespace
}  // namespace logitlab
