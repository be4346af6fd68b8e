// What the decode state saves: the same tokens with it and without it.
#pragma once

#include <cstdint>
#include <vector>

#include "command.h"
#include "engine/engine.h"

namespace logitlab {

struct NoCacheBench {
  std::vector<TokenId> prompt;
  int64_t new_tokens = 0;  // after the first one, which comes with the prompt either way
  int reps = 0;
};

// Measures and prints. The time is about reps * new_tokens prefills of the prompt's length and
// more.
[[nodiscard]] Result<int> bench_no_cache(const NoCacheBench& bench, Engine& engine,
                                         Invocation& invocation);

}  // namespace logitlab
