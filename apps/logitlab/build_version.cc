#include "build_version.h"

#include "build_commit.h"

namespace logitlab {

std::string_view build_version() {
  return LOGITLAB_VERSION;
}

std::string_view build_commit() {
  return LOGITLAB_COMMIT;
}

std::string_view build_compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

std::string_view build_type() {
  return LOGITLAB_BUILD_TYPE;
}

}  // namespace logitlab
