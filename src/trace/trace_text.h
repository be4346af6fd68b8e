// Traces in memory and in a store: the JSON lines of trace_file.h as text, compressed while they
// grow.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/error.h"
#include "logitlab/trace.h"

namespace logitlab {

// Makes zstd frames. Concatenated frames are a frame file of the concatenated texts, so that a
// trace can be compressed piece by piece. One thread; one of it serves any number of traces.
class TraceCompressor {
 public:
  TraceCompressor();  // about 1 MiB, once it was used
  ~TraceCompressor();
  TraceCompressor(const TraceCompressor&) = delete;
  TraceCompressor& operator=(const TraceCompressor&) = delete;

  // Appends one frame with the text's length and checksum. An empty text appends nothing.
  void append(std::string_view text, std::string* zstd);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The text of concatenated frames; "" of none. kDataLoss: cut off, altered, or no frames of ours;
// kResourceExhausted: more than 2 GiB, before any of it is read. `where` names it in messages.
[[nodiscard]] Result<std::string> decompress_trace(std::string_view zstd, std::string_view where);
// The text's length, by what the frames say of themselves. Errors as far as they are seen there.
[[nodiscard]] Result<size_t> decompressed_trace_bytes(std::string_view zstd,
                                                      std::string_view where);

// Holds one run as the text that TraceFileWriter would write, small enough for 10,000 of them at
// once: what is older than the last 16 KiB is kept compressed. One thread.
//
//   TraceCompressor compressor;           // one for all runs
//   TraceText trace(&compressor);         // one per run: TraceOptions::sink
//   ... generate ...
//   record.trace_zstd = trace.take_zstd();  // what Store::add_run takes as it is
class TraceText final : public TraceSink {
 public:
  explicit TraceText(TraceCompressor* compressor) : compressor_(*compressor) {}

  void begin(const RunTrace& run) override;
  void step(const TracedStep& step) override;
  void beam_step(const TracedBeamStep& step) override;
  void end(const RunEnd& end) override;

  [[nodiscard]] bool has_ended() const { return has_ended_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }  // of the text
  [[nodiscard]] size_t memory_bytes() const;             // that this object holds now

  // Both leave it empty and ready for another run. A run that has not ended gives what is there,
  // which no reader takes for a trace.
  [[nodiscard]] std::string take();       // the JSON lines
  [[nodiscard]] std::string take_zstd();  // frames of them

 private:
  template <typename Record>
  void write(const Record& record);
  void compress_pending();

  TraceCompressor& compressor_;
  std::string zstd_;
  fmt::memory_buffer pending_;
  size_t bytes_ = 0;
  bool has_ended_ = false;
};

}  // namespace logitlab
