#include "tensor/tensor.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tensor/dtype.h"

namespace logitlab {
namespace {

TEST(DType, RowBytesCountWholeBlocks) {
  EXPECT_EQ(row_bytes(DType::kBF16, 7), 14U);
  EXPECT_EQ(row_bytes(DType::kQ4_1, 64), 40U);
  EXPECT_EQ(row_bytes(DType::kQ6_K, 512), 420U);
  EXPECT_DEATH((void)row_bytes(DType::kQ4_0, 33), "33 elements of Q4_0");
}

TEST(DType, EveryHalfFloatSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = f16_to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(value))));
      continue;
    }
    ASSERT_EQ(float_to_f16(value), half) << bits;
  }
}

TEST(DType, NarrowingRoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0F), 0x3F80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F808000U)), 0x3F80);  // half-way, even below
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F818000U)), 0x3F82);  // half-way, even above
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F808001U)), 0x3F81);
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::nanf("")))));
  EXPECT_EQ(float_to_f16(65519.0F), 0x7BFF);
  EXPECT_EQ(float_to_f16(65520.0F), 0x7C00);
  EXPECT_EQ(float_to_f16(-0.0F), 0x8000);
}

// One block whose bytes are all different, checked against the formats' definitions by hand.
TEST(Blocks, DecodesByTheDefinition) {
  std::vector<std::byte> block(24);
  const uint16_t d = float_to_f16(0.5F);
  const uint16_t m = float_to_f16(-3.0F);
  std::memcpy(block.data(), &d, 2);
  std::memcpy(block.data() + 2, &m, 2);
  for (int i = 0; i < 20; ++i) {
    block[static_cast<size_t>(4 + i)] = static_cast<std::byte>(i * 13 + 7);
  }
  float out[32];
  row_to_float(DType::kQ4_1, block.data(), out, 32);
  EXPECT_EQ(out[0], 0.5F * (7 & 15) - 3.0F);
  EXPECT_EQ(out[16], 0.5F * (7 >> 4) - 3.0F);
  EXPECT_EQ(out[31], 0.5F * ((15 * 13 + 7) >> 4) - 3.0F);
  row_to_float(DType::kQ5_1, block.data(), out, 32);
  uint32_t qh;
  std::memcpy(&qh, block.data() + 4, 4);
  const int first = static_cast<int>(block[8]);
  EXPECT_EQ(out[0],
            0.5F * static_cast<float>((first & 15) | static_cast<int>(qh & 1U) << 4) - 3.0F);
  EXPECT_EQ(
      out[16],
      0.5F * static_cast<float>((first >> 4) | static_cast<int>((qh >> 16) & 1U) << 4) - 3.0F);
}

TEST(Blocks, EncodersStayWithinHalfAStep) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(320);
  for (float& v : values) {
    v = normal(random);
  }
  struct Case {
    DType dtype;
    float tolerance;  // half a step for |v| < 4, plus the half-float rounding of d and m
  };
  for (const Case& c :
       {Case{DType::kQ8_0, 0.02F}, Case{DType::kQ4_1, 0.3F}, Case{DType::kQ4_0, 0.6F}}) {
    std::vector<std::byte> row(row_bytes(c.dtype, 320));
    std::vector<float> back(320);
    row_from_float(c.dtype, values.data(), row.data(), 320);
    row_to_float(c.dtype, row.data(), back.data(), 320);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], back[i], c.tolerance) << name(c.dtype) << " element " << i;
    }
  }
}

TEST(Buffer, RefusesWhatCannotBeHad) {
  const auto huge = Buffer::allocate(std::numeric_limits<size_t>::max() - 3);
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code, ErrorCode::kResourceExhausted);
  auto small = Buffer::allocate(100);
  ASSERT_TRUE(small);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(small->data()) % 64, 0U);
  EXPECT_EQ(small->data()[99], std::byte{0});
}

TEST(Tensor, RowsAndStrides) {
  std::vector<float> values = {0, 1, 2, 3, 4, 5};
  const Tensor t{reinterpret_cast<const std::byte*>(values.data()), DType::kF32, Shape{2, 3}};
  EXPECT_EQ(t.rows(), 2);
  EXPECT_EQ(t.bytes(), 24U);
  EXPECT_EQ(reinterpret_cast<const float*>(t.row(1))[0], 3.0F);
  EXPECT_EQ(t.shape.to_string(), "[2, 3]");
}

}  // namespace
}  // namespace logitlab
