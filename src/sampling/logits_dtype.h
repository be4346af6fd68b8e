// The precision that the logits are rounded to before anything else sees them.
#pragma once

#include <span>

#include "logitlab/generation_config.h"

namespace logitlab {

// Rounds every number of a row to the nearest that `dtype` holds, the even one when two are as
// near, in place; kFloat32 changes nothing. Beyond the range comes infinity; NaN stays NaN.
// logits: [n]. O(n).
void round_logits(std::span<float> logits, LogitsDtype dtype);

}  // namespace logitlab
