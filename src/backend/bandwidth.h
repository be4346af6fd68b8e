// How fast this machine can read memory: the ceiling of decoding one token after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/thread_pool.h"

namespace logitlab {

// A buffer that all threads read, as often as one asks: the speed of memory that others use as well
// changes within seconds. One-thread, with its pool, which outlives it.
class BandwidthProbe {
 public:
  // `bytes`: choose them much larger than the last cache. kResourceExhausted when there is no
  // memory for them.
  [[nodiscard]] static Result<BandwidthProbe> make(ThreadPool* threads, size_t bytes);

  // Bytes per second of all threads' passes through the buffer, for about `seconds` and at least
  // three passes. All passes count, the slow ones too: what halts them halts other work as well.
  [[nodiscard]] double measure(double seconds);
  [[nodiscard]] size_t bytes() const;

 private:
  BandwidthProbe(ThreadPool* threads, PageMemory memory, int64_t n_pieces);

  ThreadPool* threads_;
  PageMemory memory_;
  std::vector<float> sums_;  // one per piece
};

// One measurement with a new buffer.
[[nodiscard]] Result<double> measure_read_bandwidth(ThreadPool& threads, size_t bytes,
                                                    double seconds);

// Work that reads memory, in stretches with a probe before, between and after them.
struct ProbedWork {
  double bytes = 0;             // that all stretches read
  std::vector<double> seconds;  // of every stretch
  std::vector<double> probes;   // bytes per second, one more than stretches

  [[nodiscard]] double total_seconds() const;
  // What the memory gave meanwhile: for each stretch the mean of the probes around it, these
  // weighted by seconds. 0 without stretches.
  [[nodiscard]] double bandwidth() const;
  // What the work read, over what the memory could have given in its time; 0 without stretches.
  [[nodiscard]] double share() const;
};

}  // namespace logitlab
