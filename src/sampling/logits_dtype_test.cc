#include "sampling/logits_dtype.h"

#include <limits>

#include <gtest/gtest.h>

#include "sampling/sampler.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

Row rounded(Row row, LogitsDtype dtype) {
  round_logits(row, dtype);
  return row;
}

TEST(RoundLogits, Float32ChangesNothing) {
  const Row row = {10.01F, -0.0F, 1e-40F, 3.0e38F, kMinusInfinity};
  EXPECT_EQ(rounded(row, LogitsDtype::kFloat32), row);
}

TEST(RoundLogits, Bfloat16HasEightBits) {
  // Halfway between 1 and 1 + 2^-7: the even one, which is 1; above it, 1 + 2^-6 is.
  EXPECT_EQ(rounded({1.00390625F, 1.01171875F, 1.00390637F}, LogitsDtype::kBfloat16),
            (Row{1.0F, 1.015625F, 1.0078125F}));
  EXPECT_EQ(rounded({std::numeric_limits<float>::max(), kMinusInfinity}, LogitsDtype::kBfloat16),
            (Row{kPlusInfinity, kMinusInfinity}));
  EXPECT_TRUE(std::isnan(rounded({kNan}, LogitsDtype::kBfloat16)[0]));
}

TEST(RoundLogits, Float16HasElevenBits) {
  EXPECT_EQ(
      rounded({1.00048828125F, 1.00146484375F, 65504.0F, 65520.0F, -1e6F}, LogitsDtype::kFloat16),
      (Row{1.0F, 1.001953125F, 65504.0F, kPlusInfinity, kMinusInfinity}));
  // Below the normal numbers it goes on in steps of 2^-24.
  EXPECT_EQ(rounded({0x1.8p-24F, 0x1p-26F}, LogitsDtype::kFloat16), (Row{0x1p-23F, 0.0F}));
  EXPECT_TRUE(std::isnan(rounded({kNan}, LogitsDtype::kFloat16)[0]));
}

TEST(RoundLogits, Bfloat16MakesTiesThatTheLowestIdWins) {  // G12
  const Row logits = {10.01F, 10.02F, 0, 0};
  EXPECT_EQ(arg_max(rounded(logits, LogitsDtype::kFloat32)), 1);
  const Row tied = rounded(logits, LogitsDtype::kBfloat16);
  EXPECT_EQ(tied[0], tied[1]);
  EXPECT_EQ(tied[0], 10.0F);
  EXPECT_EQ(arg_max(tied), 0);
}

}  // namespace
}  // namespace logitlab
