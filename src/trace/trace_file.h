// Traces on disk: JSON lines, one record a line ("run", "step", "beam_step", "end"), as
// docs/trace.schema.json describes them.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "logitlab/trace.h"

namespace logitlab {

// Writes a run to a file beside `path` and gives it its name when the run has ended, so that the
// file is there whole or not at all; a device or a pipe is written straight. Allocates nothing per
// step once its buffer has grown. One thread.
class TraceFileWriter final : public TraceSink {
 public:
  // kNotFound (no such folder), kInvalidArgument (a folder), kPermissionDenied where the platform
  // says so: before any work is done.
  [[nodiscard]] static Result<std::unique_ptr<TraceFileWriter>> create(const std::string& path);
  ~TraceFileWriter() override;  // removes what was not ended

  void begin(const RunTrace& run) override;
  void step(const TracedStep& step) override;
  void beam_step(const TracedBeamStep& step) override;
  void end(const RunEnd& end) override;

  // After end(): whether all was written. kResourceExhausted: a full disk.
  [[nodiscard]] Status close();
  [[nodiscard]] size_t bytes() const;

 private:
  struct Impl;
  explicit TraceFileWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Keeps a run in memory.
class TraceMemory final : public TraceSink {
 public:
  void begin(const RunTrace& run) override { run_ = run; }
  void step(const TracedStep& step) override { steps_.push_back(step); }
  void beam_step(const TracedBeamStep& step) override { beam_steps_.push_back(step); }
  void end(const RunEnd& end) override { end_ = end; }

  [[nodiscard]] const RunTrace& run() const { return run_; }
  [[nodiscard]] const std::vector<TracedStep>& steps() const { return steps_; }
  [[nodiscard]] const std::vector<TracedBeamStep>& beam_steps() const { return beam_steps_; }
  [[nodiscard]] const RunEnd& ended() const { return end_; }

 private:
  RunTrace run_;
  std::vector<TracedStep> steps_;
  std::vector<TracedBeamStep> beam_steps_;
  RunEnd end_;
};

// Reads a whole trace into `memory`. Refuses what it does not know: another version, an unknown
// record or field, a field that is missing, numbers out of range (ids outside the vocabulary, steps
// out of order), a file without its last line. kNotFound, kDataLoss, kUnsupported (version): file,
// line, field, found, wanted.
[[nodiscard]] Status read_trace(const std::string& path, TraceMemory* memory);
// The same from text; `where` names it in messages.
[[nodiscard]] Status parse_trace(std::string_view text, std::string_view where,
                                 TraceMemory* memory);

}  // namespace logitlab
