// Words that everything shares.
#pragma once

#include <cstdint>

namespace logitlab {

// Index of a token in a model's vocabulary; 0 <= id < vocab_size when valid.
using TokenId = int32_t;

}  // namespace logitlab
