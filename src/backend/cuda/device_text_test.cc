#include "backend/cuda/device_text.h"

#include <array>
#include <string>

#include <gtest/gtest.h>

namespace logitlab::cuda {
namespace {

TEST(DeviceText, ALetterMeansExactlyThatCapability) {
  EXPECT_TRUE(is_compiled_for("90a", 9, 0));
  EXPECT_FALSE(is_compiled_for("90a", 9, 1));
  EXPECT_FALSE(is_compiled_for("90a", 10, 0));
  EXPECT_TRUE(is_compiled_for("90a,110,120", 11, 0));
  EXPECT_TRUE(is_compiled_for("90a,110,120", 12, 1)) << "a newer minor runs older code";
  EXPECT_FALSE(is_compiled_for("121", 12, 0));
  EXPECT_FALSE(is_compiled_for("", 9, 0));
}

TEST(DeviceText, EveryMessageSaysWhatIsThereAndWhatIsNeeded) {
  EXPECT_EQ(architecture_list("90a,110"), "sm_90a, sm_110");
  EXPECT_EQ(version_text(13020), "13.2");
  EXPECT_EQ(version_text(0), "");
  EXPECT_EQ(no_driver_message(0, "13.0"),
            "device cuda:0: there is no NVIDIA driver on this machine (libcuda.so.1 is not found), "
            "want one that knows CUDA 13.0; use cpu");
  EXPECT_EQ(old_driver_message(1, "12.4", "13.0"),
            "device cuda:1: the driver of this machine knows CUDA up to 12.4, this build needs "
            "13.0; update the driver, or use cpu");
  EXPECT_NE(no_such_device_message(0, {}).find("shows no device"), std::string::npos);
  const std::array<std::string, 2> two = {"NVIDIA H200", "NVIDIA T4"};
  EXPECT_EQ(no_such_device_message(3, two),
            "device cuda:3: this machine has 2 CUDA devices, cuda:0 to cuda:1 (NVIDIA H200, "
            "NVIDIA T4)");
  EXPECT_EQ(no_such_device_message(1, {two.data(), 1}),
            "device cuda:1: this machine has 1 CUDA device, cuda:0 (NVIDIA H200)");
  GpuDevice old;
  old.ordinal = 1;
  old.name = "NVIDIA T4";
  old.capability_major = 7;
  old.capability_minor = 5;
  EXPECT_EQ(not_compiled_message(old, "90a"),
            "device cuda:1: NVIDIA T4 has compute capability 7.5, this build has code for sm_90a; "
            "build with -DLOGITLAB_CUDA_ARCHITECTURES=75");
}

}  // namespace
}  // namespace logitlab::cuda
