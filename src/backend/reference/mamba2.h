// The Mamba-2 mixer in double, one token after the other.
#pragma once

#include <span>

#include "backend/backend.h"

namespace logitlab {

// As Backend::mamba2.
void reference_mamba2(ExecContext& context, const Mamba2Weights& weights, const Mamba2Shape& shape,
                      std::span<const Mamba2Span> spans, const float* projected, float* out);

}  // namespace logitlab
