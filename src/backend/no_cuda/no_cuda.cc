// Stands in for the CUDA backend in a build without it.
#include "backend/backend.h"
#include "backend/gpu.h"

namespace logitlab {

Result<std::unique_ptr<Backend>> make_cuda_backend(int ordinal) {
  return fail(ErrorCode::kUnavailable,
              "device cuda:{}: this build has no CUDA backend (`./lab build cuda` makes one that "
              "has); use cpu or reference",
              ordinal);
}

GpuReport examine_gpus() {
  GpuReport report;
  report.reason = "this build has no CUDA backend; `./lab build cuda` makes one that has";
  return report;
}

}  // namespace logitlab
