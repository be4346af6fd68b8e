#include "backend/bandwidth.h"

#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

TEST(Bandwidth, IsPlausible) {
  ThreadPool threads(2);
  const auto rate = measure_read_bandwidth(threads, 16 << 20, 0.01);
  ASSERT_TRUE(rate.has_value());
  EXPECT_GT(*rate, 1e8);
  EXPECT_LT(*rate, 1e13);
}

TEST(Bandwidth, AProbeMeasuresAsOftenAsOneAsks) {
  ThreadPool threads(2);
  auto made = BandwidthProbe::make(&threads, (5 << 20) + 100);
  ASSERT_TRUE(made.has_value());
  BandwidthProbe probe = std::move(*made);
  EXPECT_EQ(probe.bytes(), size_t{5} << 20) << "whole pieces of 1 MiB";
  for (int i = 0; i < 3; ++i) {
    EXPECT_GT(probe.measure(0), 1e8);
  }
  EXPECT_EQ(BandwidthProbe::make(&threads, SIZE_MAX / 2).error().code,
            ErrorCode::kResourceExhausted);
}

TEST(Bandwidth, WorkStandsAgainstTheProbesAroundIt) {
  const ProbedWork once{60e9, {2}, {32e9, 48e9}};
  EXPECT_EQ(once.total_seconds(), 2);
  EXPECT_EQ(once.bandwidth(), 40e9);
  EXPECT_EQ(once.share(), 0.75);
  // A second at 40 GB/s, then three at 20: 100 GB could have been read.
  const ProbedWork twice{50e9, {1, 3}, {60e9, 20e9, 20e9}};
  EXPECT_EQ(twice.total_seconds(), 4);
  EXPECT_EQ(twice.bandwidth(), 25e9);
  EXPECT_EQ(twice.share(), 0.5);
  EXPECT_EQ(ProbedWork().bandwidth(), 0);
  EXPECT_EQ(ProbedWork().share(), 0);
  EXPECT_EQ((ProbedWork{1, {1}, {0, 0}}.share()), 0);
}

TEST(Bandwidth, AMemoryHalfAsFastLeavesTheShareAsItIs) {
  const ProbedWork fast{60e9, {1, 1}, {40e9, 40e9, 40e9}};
  const ProbedWork slowing{60e9, {1, 2}, {40e9, 40e9, 20e9}};
  EXPECT_EQ(fast.share(), 0.75);
  EXPECT_EQ(slowing.bandwidth(), 100e9 / 3);
  EXPECT_EQ(slowing.share(), 0.6) << "the change counts from the middle of its stretch";
}

}  // namespace
}  // namespace logitlab
