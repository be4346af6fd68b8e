#include "backend/cpu/kernels.h"

#include "hwy/targets.h"

namespace logitlab {

bool cpu_kernels_at(int index, CpuKernels& kernels) {
  constexpr int64_t kBestFirst[] = {HWY_AVX3, HWY_AVX2, HWY_SSE4, HWY_NEON, HWY_EMU128};
  const int64_t supported = hwy::SupportedTargets() | HWY_EMU128;
  for (const int64_t target : kBestFirst) {
    const LinearKernels* linear = linear_kernels_of(target);
    const StepKernels* step = step_kernels_of(target);
    const MambaKernels* mamba = mamba_kernels_of(target);
    if ((supported & target) == 0 || linear == nullptr || step == nullptr || mamba == nullptr) {
      continue;
    }
    if (index == 0) {
      kernels = CpuKernels{hwy::TargetName(target), linear, step, mamba};
      return true;
    }
    --index;
  }
  return false;
}

}  // namespace logitlab
