// Stands in for the CUDA backend in a build without it.
#include "backend/backend.h"

namespace logitlab {

Result<std::unique_ptr<Backend>> make_cuda_backend(int ordinal) {
  return fail(ErrorCode::kUnavailable,
              "device cuda:{}: this build has no CUDA backend; use cpu or reference", ordinal);
}

}  // namespace logitlab
