// What GPUs this machine has and what keeps them from being used. Without a CUDA build: a reason.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace logitlab {

struct GpuDevice {
  int ordinal = 0;
  std::string name;  // "NVIDIA H200"
  size_t total_bytes = 0;
  size_t free_bytes = 0;
  int n_multiprocessors = 0;
  int capability_major = 0;  // compute capability 9.0
  int capability_minor = 0;
  std::string why_not;  // empty: usable
};

struct GpuReport {
  bool is_built = false;        // this build has the CUDA code
  std::string architectures;    // that it was compiled for: "sm_90a"
  std::string runtime_version;  // of CUDA, in this build: "13.0"
  std::string driver_version;   // the newest CUDA that the driver knows: "13.0"; empty: no driver
  std::vector<GpuDevice> devices;
  std::string reason;  // why there is no device; empty when there is one
};

// Asks the driver. Opens every device, which takes some hundred milliseconds each.
[[nodiscard]] GpuReport examine_gpus();

}  // namespace logitlab
