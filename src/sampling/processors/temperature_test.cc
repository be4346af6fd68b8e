#include "sampling/processors/temperature.h"

#include <gtest/gtest.h>

#include "sampling/distribution.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

TEST(Temperature, DividesTheScores) {  // W20
  EXPECT_EQ(processed(Temperature(2.0), row_a()), (Row{1.0F, 0.5F, 0.0F, -0.5F}));
  const auto probabilities = softmax_probabilities(processed(Temperature(0.5), row_a()));
  const double expected[] = {0.86495, 0.11706, 0.01584, 0.00214};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(probabilities[i], expected[i], 1e-5);
  }
}

TEST(Temperature, IsADivisionByTheFloatNotAProductWithItsReciprocal) {
  // 5 / 0.7f and 5 * (1 / 0.7f) differ in the last bit.
  const float divisor = 0.7F;
  const float quotient = 5.0F / divisor;
  const float reciprocal = 1.0F / divisor;
  ASSERT_NE(quotient, 5.0F * reciprocal);
  EXPECT_EQ(processed(Temperature(0.7), {5.0F})[0], quotient);
}

TEST(Temperature, LeavesBannedTokensBannedAndNanVisible) {
  const Row row = processed(Temperature(0.5), {kMinusInfinity, kNan, 1});
  EXPECT_EQ(row[0], kMinusInfinity);
  EXPECT_TRUE(std::isnan(row[1]));
  EXPECT_EQ(row[2], 2.0F);
}

}  // namespace
}  // namespace logitlab
