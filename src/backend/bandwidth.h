// How fast this machine can read memory: the ceiling of decoding one token after the other.
#pragma once

#include <cstddef>

#include "base/error.h"
#include "base/thread_pool.h"

namespace logitlab {

// Bytes per second: the median over passes of all threads through one buffer of `bytes` (choose it
// much larger than the last cache), for about `seconds` and at least three passes.
// kResourceExhausted when there is no memory for the buffer.
[[nodiscard]] Result<double> measure_read_bandwidth(ThreadPool& threads, size_t bytes,
                                                    double seconds);

}  // namespace logitlab
