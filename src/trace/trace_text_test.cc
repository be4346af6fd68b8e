#include "trace/trace_text.h"

#include <filesystem>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"
#include "trace/test_runs.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

std::string file_text() {
  const fs::path path =
      fs::path(::testing::TempDir()) / ("trace_text_" + std::to_string(::getpid()) + ".jsonl");
  auto writer = TraceFileWriter::create(path);
  EXPECT_TRUE(writer) << writer.error().message;
  record_test_run(writer->get());
  EXPECT_TRUE((*writer)->close());
  auto text = read_text_file(path, size_t{1} << 24);
  fs::remove(path);
  EXPECT_TRUE(text) << text.error().message;
  return text.value_or("");
}

// A step whose numbers differ from every other step's, as those of real runs do.
TracedStep varied_step(int64_t step, uint64_t* state) {
  TracedStep out = test_step(0, step);
  const auto next = [state] {
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<double>(*state >> 11) * 0x1p-53;
  };
  out.raw_entropy = next();
  out.log_sum_exp = next();
  out.candidates.resize(10, out.candidates[0]);
  for (TracedCandidate& candidate : out.candidates) {
    candidate.logit = static_cast<float>(20 * next());
    candidate.score = candidate.logit;
    candidate.raw_probability = next();
    candidate.probability = next();
  }
  return out;
}

void record_long_run(int64_t n_steps, uint64_t seed, TraceSink* sink) {
  RunTrace run = test_run();
  run.n_candidates = 10;
  sink->begin(run);
  for (int64_t i = 0; i < n_steps; ++i) {
    sink->step(varied_step(i, &seed));
  }
  RunEnd end = test_end();
  end.sequences[0].ids.assign(static_cast<size_t>(n_steps), 5);
  sink->end(end);
}

TEST(TraceText, IsTheTextOfTheFile) {
  TraceCompressor compressor;
  TraceText trace(&compressor);
  record_test_run(&trace);
  EXPECT_TRUE(trace.has_ended());
  const std::string want = file_text();
  EXPECT_EQ(trace.bytes(), want.size());
  EXPECT_EQ(trace.take(), want);
}

TEST(TraceText, BothWaysOfTakingItGiveTheSameText) {
  TraceCompressor compressor;
  TraceText first(&compressor);
  TraceText second(&compressor);
  record_long_run(100, 1, &first);
  record_long_run(100, 1, &second);
  const size_t bytes = first.bytes();
  EXPECT_GT(bytes, size_t{64} << 10);
  const std::string text = first.take();
  EXPECT_EQ(text.size(), bytes);
  const auto again = decompress_trace(second.take_zstd(), "trace");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, text);
  TraceMemory memory;
  const auto parsed = parse_trace(text, "trace", &memory);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(memory.steps().size(), 100U);
}

TEST(TraceText, IsEmptyAfterTakingAndTakesAnotherRun) {
  TraceCompressor compressor;
  TraceText trace(&compressor);
  EXPECT_EQ(trace.take(), "");
  EXPECT_EQ(trace.take_zstd(), "");
  record_long_run(50, 7, &trace);
  const std::string first = trace.take_zstd();
  EXPECT_EQ(trace.bytes(), 0U);
  EXPECT_FALSE(trace.has_ended());
  record_long_run(50, 7, &trace);
  EXPECT_EQ(trace.take_zstd(), first);
}

TEST(TraceText, ManyRunsShareACompressorWhileTheyGrow) {
  TraceCompressor compressor;
  std::vector<std::unique_ptr<TraceText>> traces;
  std::vector<uint64_t> states;
  for (uint64_t i = 0; i < 20; ++i) {
    traces.push_back(std::make_unique<TraceText>(&compressor));
    traces.back()->begin(test_run());
    states.push_back(i);
  }
  for (int64_t step = 0; step < 40; ++step) {
    for (size_t i = 0; i < traces.size(); ++i) {
      traces[i]->step(varied_step(step, &states[i]));
    }
  }
  for (size_t i = 0; i < traces.size(); ++i) {
    TraceText alone(&compressor);
    alone.begin(test_run());
    uint64_t state = i;
    for (int64_t step = 0; step < 40; ++step) {
      alone.step(varied_step(step, &state));
    }
    EXPECT_EQ(traces[i]->take(), alone.take()) << i;
  }
}

TEST(TraceText, OldPartsAreKeptCompressed) {
  TraceCompressor compressor;
  TraceText trace(&compressor);
  record_long_run(400, 3, &trace);
  EXPECT_GT(trace.bytes(), size_t{512} << 10);
  // The last piece is at most 16 KiB and one record, in a buffer that grows by half; these numbers
  // are random, and digits of random numbers need no more than 4 bits of 8.
  EXPECT_LT(trace.memory_bytes(), trace.bytes() / 2 + (size_t{32} << 10));
}

TEST(DecompressTrace, NoFramesGiveNoText) {
  const auto text = decompress_trace("", "trace");
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, "");
}

TEST(DecompressTrace, RefusesWhatWasCutOrAltered) {
  TraceCompressor compressor;
  std::string zstd;
  compressor.append(std::string(5000, 'a') + "tail", &zstd);
  compressor.append("the second frame", &zstd);
  ASSERT_TRUE(decompress_trace(zstd, "trace"));
  const size_t first = zstd.find("\x28\xb5\x2f\xfd", 1);  // where the second frame begins
  ASSERT_NE(first, std::string::npos);
  for (size_t n = 1; n < zstd.size(); ++n) {
    const auto cut = decompress_trace(zstd.substr(0, n), "run 7");
    if (n == first) {
      EXPECT_TRUE(cut);  // whole frames: only the reader of the trace misses its end
      continue;
    }
    ASSERT_FALSE(cut) << n;
    EXPECT_EQ(cut.error().code, ErrorCode::kDataLoss);
    EXPECT_EQ(cut.error().message.rfind("run 7: ", 0), 0U) << cut.error().message;
  }
  std::string altered = zstd;
  altered[altered.size() - 8] = static_cast<char>(altered[altered.size() - 8] ^ 1);
  EXPECT_FALSE(decompress_trace(altered, "trace"));
  EXPECT_FALSE(decompress_trace("{\"record\":\"run\"}", "trace"));
}

TEST(DecompressTrace, RefusesALengthThatWouldFillTheMemory) {
  // A frame header that promises 2^40 bytes, then a block of one byte.
  const std::string bomb("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x00\x01\x00\x00\x09\x00\x00x", 17);
  const auto text = decompress_trace(bomb, "trace");
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kResourceExhausted) << text.error().message;
}

}  // namespace
}  // namespace logitlab
