// How long work tells a person how far it is. Library code reports; only apps draw.
#pragma once

#include <cstdint>
#include <string_view>

namespace logitlab {

class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  // done of total in `unit` ("bytes", "tokens"); total 0 when unknown. Called from one thread.
  virtual void update(std::string_view what, uint64_t done, uint64_t total,
                      std::string_view unit) = 0;
  virtual void finish(std::string_view what) = 0;
};

// Discards everything. One instance is enough; immutable.
ProgressSink& null_progress();

}  // namespace logitlab
