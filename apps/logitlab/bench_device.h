// bench of a model that lies on a device: prefill and decode there, and where a step's time goes.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "command.h"
#include "engine/engine.h"

namespace logitlab {

struct DeviceBench {
  std::vector<TokenId> prompt;
  int64_t new_tokens = 64;
  int reps = 3;
  int64_t batch = 1;  // sequences of one decode step
  bool profile = false;
};

// Times Model::forward of the prompt in one call, then greedy decoding of `batch` sequences that
// continue it, in steps that choose on the device. All sequences are forks of one prompt, each with
// a first token of its own. Bytes of a step are those of the phases of one more step after the
// timed ones (DevicePhase says what counts), and the mean of the keys and values of the timed ones.
// The engine's model is on a device (CHECK).
[[nodiscard]] Result<int> bench_device(const DeviceBench& bench, Engine& engine,
                                       Invocation& invocation);

}  // namespace logitlab
