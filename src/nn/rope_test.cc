#include "nn/rope.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

TEST(Rope, DefaultFrequenciesAreTheGeometricSeries) {
  const auto rope = Rope::make({.theta = 100000.0}, 64, RopeLayout::kHalfSplit);
  ASSERT_TRUE(rope) << rope.error().message;
  ASSERT_EQ(rope->inv_freq().size(), 32U);
  for (size_t i = 0; i < 32; ++i) {
    const double want = std::pow(100000.0, -2.0 * static_cast<double>(i) / 64.0);
    EXPECT_NEAR(rope->inv_freq()[i] / want, 1.0, 5e-7) << i;
  }
}

// Values of Llama 3.1 (d 128, factor 8) by the definition in double precision.
TEST(Rope, Llama3KeepsShortStretchesLongAndBlendsBetween) {
  const RopeConfig config{.type = "llama3",
                          .theta = 500000.0,
                          .factor = 8.0,
                          .low_freq_factor = 1.0,
                          .high_freq_factor = 4.0,
                          .original_max_position_embeddings = 8192};
  const auto rope = Rope::make(config, 128, RopeLayout::kHalfSplit);
  ASSERT_TRUE(rope);
  int kept = 0;
  int stretched = 0;
  for (size_t i = 0; i < 64; ++i) {
    const double f = std::pow(500000.0, -2.0 * static_cast<double>(i) / 128.0);
    const double wavelength = 2 * M_PI / f;
    double want = f;
    if (wavelength > 8192.0) {
      want = f / 8;
      ++stretched;
    } else if (wavelength >= 2048.0) {
      const double s = (8192.0 / wavelength - 1) / 3;
      want = (1 - s) * f / 8 + s * f;
    } else {
      ++kept;
    }
    EXPECT_NEAR(rope->inv_freq()[i] / want, 1.0, 2e-6) << i;
  }
  EXPECT_GT(kept, 20);
  EXPECT_GT(stretched, 20);
  EXPECT_LT(kept + stretched, 64);
}

TEST(Rope, YarnScalesTheAngleMagnitude) {
  const RopeConfig config{
      .type = "yarn", .theta = 1e6, .factor = 4.0, .original_max_position_embeddings = 32768};
  const auto rope = Rope::make(config, 128, RopeLayout::kHalfSplit);
  ASSERT_TRUE(rope);
  EXPECT_NEAR(rope->attention_factor(), 0.1 * std::log(4.0) + 1, 1e-6);
  EXPECT_NEAR(rope->inv_freq()[0], 1.0, 1e-7);
  EXPECT_NEAR(rope->inv_freq()[63] * std::pow(1e6, 126.0 / 128), 0.25, 1e-6);
  std::vector<float> cosine(64);
  std::vector<float> sine(64);
  const std::vector<int64_t> positions = {0};
  rope->angles(positions, cosine.data(), sine.data());
  EXPECT_FLOAT_EQ(cosine[5], rope->attention_factor());
  EXPECT_EQ(sine[5], 0.0F);
}

TEST(Rope, DivisorsDivide) {
  auto rope = Rope::make({}, 4, RopeLayout::kInterleaved);
  ASSERT_TRUE(rope);
  ASSERT_TRUE(rope->divide(std::vector<float>{1.0F, 8.0F}));
  EXPECT_FLOAT_EQ(rope->inv_freq()[1], 0.01F / 8);
  EXPECT_FALSE(rope->divide(std::vector<float>{1.0F}));
  EXPECT_FALSE(rope->divide(std::vector<float>{1.0F, 0.0F}));
}

TEST(Rope, RefusesWhatItDoesNotKnow) {
  const auto dynamic = Rope::make({.type = "dynamic", .factor = 2}, 64, RopeLayout::kHalfSplit);
  ASSERT_FALSE(dynamic);
  EXPECT_EQ(dynamic.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(dynamic.error().message.find("'dynamic'"), std::string::npos);
  EXPECT_FALSE(Rope::make({}, 63, RopeLayout::kHalfSplit));
  EXPECT_FALSE(Rope::make({.theta = std::nan("")}, 64, RopeLayout::kHalfSplit));
  EXPECT_FALSE(Rope::make({.type = "linear", .factor = 0}, 64, RopeLayout::kHalfSplit));
  EXPECT_FALSE(Rope::make({.type = "llama3", .factor = 8}, 64, RopeLayout::kHalfSplit));
}

}  // namespace
}  // namespace logitlab
