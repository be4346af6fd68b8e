// Where and with what a run is made, as the store keeps it.
#pragma once

#include "base/error.h"
#include "engine/engine.h"
#include "lab/store/store.h"

namespace logitlab {

// Of a loaded model on this machine; the command line is the caller's to add. Errors as
// model_fingerprint.
[[nodiscard]] Result<RunOrigin> origin_of(const Engine& engine);

}  // namespace logitlab
