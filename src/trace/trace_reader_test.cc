#include <filesystem>
#include <functional>
#include <sstream>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "trace/test_runs.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

constexpr size_t kRun = 0;
constexpr size_t kStep = 1;
constexpr size_t kBeam = 3;
constexpr size_t kEnd = 4;

std::vector<Json> good_lines() {
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) /
                                     ("reader_" + std::to_string(::getpid()) + ".jsonl");
  auto writer = TraceFileWriter::create(path);
  EXPECT_TRUE(writer);
  record_test_run(writer->get());
  EXPECT_TRUE((*writer)->close());
  const auto text = read_text_file(path, 1 << 20);
  EXPECT_TRUE(text);
  std::filesystem::remove(path);
  std::vector<Json> lines;
  std::istringstream stream(text.value_or(""));
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(parse_json(line, "line").value_or(Json()));
  }
  EXPECT_EQ(lines.size(), 5U);
  return lines;
}

std::string text_of(const std::vector<Json>& lines) {
  std::string text;
  for (const Json& line : lines) {
    text += dump_json(line) + "\n";
  }
  return text;
}

void expect_refused(const std::string& text, const std::string& message,
                    ErrorCode code = ErrorCode::kDataLoss) {
  TraceMemory memory;
  const auto read = parse_trace(text, "t.jsonl", &memory);
  ASSERT_FALSE(read) << "want: " << message;
  EXPECT_EQ(read.error().message.find("t.jsonl: " + message), 0U)
      << "found: " << read.error().message << "\nwant:  t.jsonl: " << message;
  EXPECT_EQ(read.error().code, code) << read.error().message;
}

// A change of one good line, and how the message goes on after the file's name.
struct Planted {
  size_t line;
  std::function<void(Json&)> change;
  std::string message;
};

void expect_all_refused(const std::vector<Planted>& cases) {
  const std::vector<Json> good = good_lines();
  for (const Planted& one : cases) {
    std::vector<Json> lines = good;
    one.change(lines[one.line]);
    // As text: to the library, -1 equals the largest unsigned number.
    ASSERT_NE(dump_json(lines[one.line]), dump_json(good[one.line])) << one.message;
    expect_refused(text_of(lines), "line " + std::to_string(one.line + 1) + ": " + one.message);
  }
}

TEST(TraceReader, ReadsWhatTheWriterWrote) {
  TraceMemory memory;
  const auto read = parse_trace(text_of(good_lines()), "t.jsonl", &memory);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(memory.steps().size(), 2U);
  EXPECT_EQ(memory.ended().seconds, 0.125);
}

TEST(TraceReader, RefusesAnotherVersion) {
  std::vector<Json> lines = good_lines();
  lines[kRun]["schema"] = "logitlab.trace/2";
  lines[kRun]["new_field"] = 1;
  expect_refused(text_of(lines),
                 "line 1: run.schema: found \"logitlab.trace/2\", want \"logitlab.trace/1\"",
                 ErrorCode::kUnsupported);
}

// Every field of every record, once without it and once with a value of a type that it never has.
TEST(TraceReader, RefusesAnyMissingFieldAndAnyWrongType) {
  const std::vector<Json> good = good_lines();
  const auto visit_objects = [](Json& record, const auto& visit) {
    visit(record);
    for (auto& item : record.items()) {
      if (item.value().is_array() && !item.value().empty() && item.value()[0].is_object()) {
        visit(item.value()[0]);
      }
    }
  };
  size_t n_tried = 0;
  for (size_t line = 0; line < good.size(); ++line) {
    std::vector<std::string> texts;
    Json copy = good[line];
    visit_objects(copy, [&](Json& object) {
      const Json original = object;
      for (const auto& item : original.items()) {
        object.erase(item.key());
        texts.push_back(dump_json(copy));
        object = original;
        object[item.key()] = Json::array({Json::object({{"no", "such"}})});
        texts.push_back(dump_json(copy));
        object = original;
      }
      object["surplus"] = 1;
      texts.push_back(dump_json(copy));
      object = original;
    });
    for (const std::string& text : texts) {
      std::string whole;
      for (size_t i = 0; i < good.size(); ++i) {
        whole += (i == line ? text : dump_json(good[i])) + "\n";
      }
      TraceMemory memory;
      const auto read = parse_trace(whole, "t.jsonl", &memory);
      EXPECT_FALSE(read) << text;
      ++n_tried;
    }
  }
  EXPECT_GT(n_tried, 200U);
}

TEST(TraceReader, RefusesWrongRuns) {
  expect_all_refused({
      {kRun, [](Json& r) { r.erase("schema"); }, "run: no field \"schema\""},
      {kRun, [](Json& r) { r.erase("seed"); }, "run: no field \"seed\""},
      {kRun, [](Json& r) { r["x"] = 1; }, "run: unknown field \"x\""},
      {kRun, [](Json& r) { r["seed"] = -1; }, "run.seed: found -1, want a whole number, 0 to"},
      {kRun, [](Json& r) { r["seed"] = 1.5; }, "run.seed: found 1.5"},
      {kRun, [](Json& r) { r["vocab_size"] = 0; }, "run.vocab_size: found 0, want 1 to"},
      {kRun, [](Json& r) { r["n_candidates"] = 1001; }, "run.n_candidates: found 1001, want 0 to"},
      {kRun, [](Json& r) { r["prompts"][0][1] = 8; }, "run.prompts: found 8, want 0 to 7"},
      {kRun, [](Json& r) { r["prompts"][0][1] = "a"; }, "run.prompts[0][1]: found \"a\""},
      {kRun, [](Json& r) { r["sequence_prompts"][1] = 2; }, "run.sequence_prompts: found 2"},
      {kRun, [](Json& r) { r["config"] = 3; }, "run.config: found 3, want an object"},
      {kRun, [](Json& r) { r["think_open"] = 9; }, "run.think_open: found 9, want -1 to 7"},
      {kRun, [](Json& r) { r["ledger"][0]["acts"] = 1; }, "run.ledger[0].acts: found 1"},
      {kRun, [](Json& r) { r["ledger"][0]["y"] = 1; }, "run.ledger[0]: unknown field \"y\""},
  });
}

TEST(TraceReader, RefusesWrongSteps) {
  expect_all_refused({
      {kStep, [](Json& r) { r["record"] = "leap"; }, "record: found \"leap\", want"},
      {kStep, [](Json& r) { r["record"] = "run"; }, "record: found \"run\", want one \"run\""},
      {kStep, [](Json& r) { r["step"] = 1; }, "step.step: found 1 of sequence 0, want 0"},
      {kStep, [](Json& r) { r["sequence"] = 2; }, "step.sequence: found 2, want 0 to 1"},
      {kStep, [](Json& r) { r["id"] = 8; }, "step.id: found 8, want 0 to 7"},
      {kStep, [](Json& r) { r["id"] = int64_t{1} << 40; }, "step.id: found 1099511627776, want"},
      {kStep, [](Json& r) { r["rank"] = 0; }, "step.rank: found 0, want 1 to 8"},
      {kStep, [](Json& r) { r["draw"] = "nan"; }, "step.draw: found \"nan\", want a number"},
      {kStep, [](Json& r) { r["logit"] = 1e39; }, "step.logit: found 1e+39, want a number"},
      {kStep, [](Json& r) { r["logits_hash"] = "12"; }, "step.logits_hash: found \"12\""},
      {kStep,
       [](Json& r) {
         r["logits"] = {1, 2};
       },
       "step.logits: their number: found 2, want 8"},
      {kStep, [](Json& r) { r["tied_at_max"][0] = -1; }, "step.tied_at_max: found -1"},
      {kStep, [](Json& r) { r["stages"][0]["survivors"] = 9; }, "step.stages.survivors: found 9"},
      {kStep, [](Json& r) { r["candidates"][2]["dropped_by"] = 3; },
       "step.candidates.dropped_by: found 3, want -1 to 2"},
      {kStep, [](Json& r) { r["candidates"][0]["id"] = 8; }, "step.candidates.id: found 8"},
      {kStep, [](Json& r) { r["candidates"].push_back(r["candidates"][0]); },
       "step.candidates: their number: found 4, want 0 to 3"},
  });
}

TEST(TraceReader, RefusesWrongBeamsAndEnds) {
  expect_all_refused({
      {kBeam, [](Json& r) { r["prompt"] = 2; }, "beam_step.prompt: found 2"},
      {kBeam, [](Json& r) { r["step"] = 1; }, "beam_step.step: found 1 of prompt 1, want 0"},
      {kBeam, [](Json& r) { r["running"][0]["id"] = 8; }, "beam_step.running: found 8"},
      {kBeam, [](Json& r) { r["candidates"][0]["parent"] = -1; }, "beam_step.candidates: found -1"},
      {kBeam, [](Json& r) { r["candidate_stops"] = {true}; },
       "beam_step.candidate_stops: their number: found 1, want 2"},
      {kEnd, [](Json& r) { r["sequences"].erase(1); }, "end.sequences: their number: found 1"},
      {kEnd, [](Json& r) { r["sequences"][1]["sequence"] = 0; }, "end.sequences.sequence: found 0"},
      {kEnd, [](Json& r) { r["sequences"][1]["prompt"] = 0; }, "end.sequences.prompt: found 0"},
      {kEnd,
       [](Json& r) {
         r["sequences"][0]["ids"] = {5, 4};
       },
       "end.sequences.ids: found other ids"},
      {kEnd, [](Json& r) { r["sequences"][0]["thinking_tokens"] = 3; },
       "end.sequences.thinking_tokens: found 3"},
      {kEnd, [](Json& r) { r["pieces"][0] = 3; }, "end.pieces[0]: found 3, want an id and its"},
      {kEnd, [](Json& r) { r["pieces"][0][0] = -1; }, "end.pieces: found -1"},
  });
}

TEST(TraceReader, RefusesWrongFiles) {
  const std::vector<Json> good = good_lines();
  const std::string text = text_of(good);
  expect_refused("", "empty, want a trace");
  expect_refused(text_of({good[1]}), "line 1: record: found \"step\", want \"run\" on the first");
  expect_refused(text_of({good[0], good[0]}), "line 2: record: found \"run\", want one \"run\"");
  expect_refused(text_of({good[0], good[1]}), "ends after line 2 without its \"end\" record");
  expect_refused(text + text_of({good[1]}), "line 6: record: found \"step\", want nothing after");
  expect_refused(text_of({good[0], good[1], good[1]}), "line 3: step.step: found 0 of sequence 0");
  expect_refused("[1]\n", "line 1: record: found [1], want an object");
  expect_refused("{\n", "line 1: record: not JSON at line 1, column");
  expect_refused(text_of({good[0]}) + "\n", "line 2: record: not JSON");
  expect_refused(text.substr(0, text.size() - 10), "line 5: record: not JSON");
  expect_refused(std::string(100, '['), "line 1: record: JSON nested 100 deep");
  TraceMemory memory;
  const auto absent = read_trace("no/such/trace.jsonl", &memory);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace logitlab
