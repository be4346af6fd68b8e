#include "sampling/selection.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "sampling/test_rows.h"

namespace logitlab {
namespace {

Ids best(const Row& row, int64_t n) {
  Ids ids = {99, 98};  // overwritten
  top_ids(row, n, &ids);
  return ids;
}

TEST(TopIds, BestFirstLowerIdFirst) {
  EXPECT_EQ(best({1, 3, 2, 3}, 3), (Ids{1, 3, 2}));
  EXPECT_EQ(best({1, 3, 2, 3}, 1), (Ids{1}));
  EXPECT_EQ(best({1, 3, 2, 3}, 9), (Ids{1, 3, 2, 0}));
  EXPECT_EQ(best({1, 3}, 0), Ids{});
  EXPECT_EQ(best({}, 3), Ids{});
}

TEST(TopIds, NanBeforeNumbersAndBannedLast) {
  EXPECT_EQ(best({kMinusInfinity, kPlusInfinity, kNan, 0, kNan}, 5), (Ids{2, 4, 1, 3, 0}));
}

TEST(TopIds, EqualsAStableSortForEveryLength) {
  Row row(700);
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<float>(i * 7919 % 101);  // every value about seven times
  }
  Ids sorted(row.size());
  std::iota(sorted.begin(), sorted.end(), 0);
  std::ranges::stable_sort(sorted, [&row](TokenId a, TokenId b) {
    return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
  });
  for (const int64_t n : {1, 2, 10, 43, 44, 300, 699, 700}) {
    EXPECT_EQ(best(row, n), Ids(sorted.begin(), sorted.begin() + n)) << n;
  }
}

TEST(SoftmaxFloat32, AddsUpToOne) {
  std::vector<float> probabilities;
  ASSERT_TRUE(softmax_float32(row_a(), &probabilities));
  EXPECT_NEAR(probabilities[0], 0.64391F, 1e-5);
  EXPECT_NEAR(probabilities[3], 0.03206F, 1e-5);
  EXPECT_NEAR(std::accumulate(probabilities.begin(), probabilities.end(), 0.0), 1.0, 1e-6);
  // Far beyond the range of exp.
  ASSERT_TRUE(softmax_float32(Row{3e38F, -3e38F}, &probabilities));
  EXPECT_EQ(probabilities, (Row{1, 0}));
}

TEST(SoftmaxFloat32, SaysWhenThereIsNone) {
  std::vector<float> probabilities;
  EXPECT_FALSE(softmax_float32(Row{1, kNan}, &probabilities));
  EXPECT_FALSE(softmax_float32(Row{1, kPlusInfinity}, &probabilities));
  EXPECT_FALSE(softmax_float32(Row{kMinusInfinity, kMinusInfinity}, &probabilities));
  EXPECT_TRUE(softmax_float32(Row{kMinusInfinity, 0}, &probabilities));
}

}  // namespace
}  // namespace logitlab
