#include "backend/device_profile.h"

#include <gtest/gtest.h>

namespace logitlab {
namespace {

TEST(DeviceProfile, TheWholeStepIsNotAddedToItsParts) {
  const auto profile = DeviceProfile::from({{"mamba", 23, 1.25e9, 340.5},
                                            {"experts", 46, 3e9, 930},
                                            {"head", 1, 0.75e9, 150.25},
                                            {"step", 1, 5e9, 1300}});
  ASSERT_EQ(profile.phases.size(), 3U);
  EXPECT_EQ(profile.phases.back().name, "head");
  EXPECT_EQ(profile.step_microseconds, 1300);
  const DevicePhase sum = profile.sum();
  EXPECT_EQ(sum.count, 70);
  EXPECT_EQ(sum.bytes, 5e9);
  EXPECT_EQ(sum.microseconds, 1420.75);
}

TEST(DeviceProfile, NeedsNoWholeStep) {
  const auto profile = DeviceProfile::from({{"head", 1, 8, 2}});
  EXPECT_EQ(profile.sum().bytes, 8);
  EXPECT_EQ(profile.step_microseconds, 0);
  EXPECT_EQ(DeviceProfile::from({}).sum().bytes, 0);
}

}  // namespace
}  // namespace logitlab
