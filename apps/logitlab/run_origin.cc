#include "run_origin.h"

#include <fmt/format.h>

#include "build_version.h"
#include "model_options.h"

namespace logitlab {

Result<RunOrigin> origin_of(const Engine& engine) {
  RunOrigin origin;
  origin.model = short_name(engine.source());
  ASSIGN_OR_RETURN(origin.model_hash, model_fingerprint(engine.source()));
  origin.device = std::string(engine.backend().name());
  origin.isa = std::string(engine.backend().isa());
  origin.build = fmt::format("{} {}", build_version(), build_commit());
  origin.threads = engine.n_threads();
  return origin;
}

}  // namespace logitlab
