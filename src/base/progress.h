// How long work tells a person how far it is. Library code reports; only apps draw.
#pragma once

#include <cstdint>
#include <string_view>

namespace logitlab {

class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  // done of total in `unit` ("bytes", "tokens"); total 0 when unknown. `detail`: what else a person
  // wants to see of it ("3/13 shards, 2.1 GB/s"), or nothing. Called from one thread.
  virtual void update(std::string_view what, uint64_t done, uint64_t total, std::string_view unit,
                      std::string_view detail) = 0;
  void update(std::string_view what, uint64_t done, uint64_t total, std::string_view unit) {
    update(what, done, total, unit, {});
  }
  virtual void finish(std::string_view what) = 0;
};

// Discards everything. One instance is enough; immutable.
ProgressSink& null_progress();

}  // namespace logitlab
