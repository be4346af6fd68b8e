#include "backend/backend.h"

namespace logitlab {

Result<std::unique_ptr<Backend>> make_cpu_backend(std::string_view /*isa*/) {
  return make_reference_backend();
}

std::vector<std::string> cpu_isas() {
  return {"scalar"};
}

}  // namespace logitlab
