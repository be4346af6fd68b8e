#include "trace/trace_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "trace/test_runs.h"
#include "trace/trace_fields.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

class TraceFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ("trace_" + std::to_string(::getpid()) + "_" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] size_t n_files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

std::string text_of(const std::string& path) {
  const auto text = read_text_file(path, 1 << 24);
  EXPECT_TRUE(text) << text.error().message;
  return text.value_or("");
}

std::string recorded(const std::string& path) {
  auto writer = TraceFileWriter::create(path);
  EXPECT_TRUE(writer) << writer.error().message;
  record_test_run(writer->get());
  const auto closed = (*writer)->close();
  EXPECT_TRUE(closed) << closed.error().message;
  EXPECT_EQ((*writer)->bytes(), text_of(path).size());
  return text_of(path);
}

// Every member, by the text that the writer makes of it.
void expect_same(const TraceMemory& memory, const std::string& path, const std::string& text) {
  auto writer = TraceFileWriter::create(path);
  ASSERT_TRUE(writer) << writer.error().message;
  (*writer)->begin(memory.run());
  for (const TracedStep& step : memory.steps()) {
    (*writer)->step(step);
  }
  for (const TracedBeamStep& step : memory.beam_steps()) {
    (*writer)->beam_step(step);
  }
  (*writer)->end(memory.ended());
  ASSERT_TRUE((*writer)->close());
  EXPECT_EQ(text_of(path), text);
}

TEST_F(TraceFile, ComesBackAsItWas) {
  const std::string text = recorded(path("run.jsonl"));
  TraceMemory memory;
  const auto read = read_trace(path("run.jsonl"), &memory);
  ASSERT_TRUE(read) << read.error().message;
  expect_same(memory, path("again.jsonl"), text);

  EXPECT_EQ(memory.run().model, "Tiny \"quoted\"");
  EXPECT_EQ(memory.run().config_json, R"({"top_k":50,"eos_token_id":[2]})");
  EXPECT_EQ(memory.run().warnings, test_run().warnings);
  EXPECT_EQ(memory.run().seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(memory.run().ledger[0].why, "only the k best");
  EXPECT_EQ(memory.run().prompts, test_run().prompts);
  ASSERT_EQ(memory.steps().size(), 2U);
  const TracedStep wanted = test_step(0, 0);
  const TracedStep& step = memory.steps()[0];
  EXPECT_EQ(step.logit, wanted.logit);
  EXPECT_EQ(step.raw_entropy, wanted.raw_entropy);
  EXPECT_EQ(step.log_sum_exp, wanted.log_sum_exp);
  EXPECT_EQ(step.tail_log_sum_exp, wanted.tail_log_sum_exp);
  EXPECT_EQ(step.draw_key, wanted.draw_key);
  EXPECT_EQ(step.logits_hash, wanted.logits_hash);
  EXPECT_EQ(step.candidates[1].logit, wanted.candidates[1].logit);
  EXPECT_EQ(step.candidates[1].score, wanted.candidates[1].score);
  EXPECT_TRUE(step.candidates[1].in_answer);
  EXPECT_EQ(step.stages[1].cut_score, 1.25);
  EXPECT_EQ(step.stages[2].changed_in_answer, 1);
  EXPECT_TRUE(std::isnan(step.stages[0].threshold));
  EXPECT_TRUE(std::isnan(memory.steps()[1].draw_margin));
  EXPECT_TRUE(std::isnan(memory.steps()[1].largest_logit));
  EXPECT_EQ(memory.steps()[1].logits.size(), 8U);
  ASSERT_EQ(memory.beam_steps().size(), 1U);
  EXPECT_EQ(memory.beam_steps()[0].candidate_stops, (std::vector<bool>{false, true}));
  EXPECT_EQ(memory.ended().pieces, test_end().pieces);
  EXPECT_EQ(memory.ended().sequences[1].beam_score, -0.75);
}

TEST_F(TraceFile, AppearsOnlyWhenTheRunHasEnded) {
  const std::string target = path("run.jsonl");
  std::ofstream(target) << "old";
  {
    auto writer = TraceFileWriter::create(target);
    ASSERT_TRUE(writer);
    (*writer)->begin(test_run());
    EXPECT_EQ(text_of(target), "old");
  }
  EXPECT_EQ(text_of(target), "old");
  EXPECT_EQ(n_files(), 1U);  // nothing of the broken run is left
  EXPECT_NE(recorded(target), "old");
  EXPECT_EQ(n_files(), 1U);
}

TEST_F(TraceFile, ARunThatDidNotEndIsNotClosedAsATrace) {
  auto writer = TraceFileWriter::create(path("run.jsonl"));
  ASSERT_TRUE(writer);
  (*writer)->begin(test_run());
  const auto closed = (*writer)->close();
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::kCancelled);
}

TEST_F(TraceFile, ALinkKeepsLeadingToItsFile) {
  std::ofstream(path("target.jsonl")) << "old";
  fs::create_symlink("target.jsonl", path("link.jsonl"));
  const std::string text = recorded(path("link.jsonl"));
  EXPECT_TRUE(fs::is_symlink(path("link.jsonl")));
  EXPECT_EQ(text_of(path("target.jsonl")), text);
}

TEST_F(TraceFile, DevicesAreWrittenStraight) {
  auto writer = TraceFileWriter::create("/dev/null");
  ASSERT_TRUE(writer) << writer.error().message;
  record_test_run(writer->get());
  EXPECT_TRUE((*writer)->close());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(TraceFile, AFullDiskIsToldOnClosing) {
  if (!fs::exists("/dev/full")) {
    GTEST_SKIP() << "no /dev/full here";
  }
  auto writer = TraceFileWriter::create("/dev/full");
  ASSERT_TRUE(writer) << writer.error().message;
  record_test_run(writer->get());
  const auto closed = (*writer)->close();
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(closed.error().message.find("/dev/full: the trace is not complete"), std::string::npos)
      << closed.error().message;
}

TEST_F(TraceFile, AFolderThatVanishesIsToldOnClosing) {
  fs::create_directories(path("inner"));
  auto writer = TraceFileWriter::create(path("inner/run.jsonl"));
  ASSERT_TRUE(writer);
  record_test_run(writer->get());
  fs::remove_all(path("inner"));
  const auto closed = (*writer)->close();
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::kNotFound);
}

TEST_F(TraceFile, PlacesWhereNothingCanBeWrittenAreRefusedAtOnce) {
  const auto absent = TraceFileWriter::create(path("no/such/folder.jsonl"));
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  const auto folder = TraceFileWriter::create(folder_.string());
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(folder.error().message.find("found a folder"), std::string::npos);
}

TEST_F(TraceFile, LargeRunsAreWrittenInChunks) {
  auto writer = TraceFileWriter::create(path("run.jsonl"));
  ASSERT_TRUE(writer);
  (*writer)->begin(test_run());
  for (int64_t i = 0; i < 1000; ++i) {
    (*writer)->step(test_step(0, i));
  }
  RunEnd end = test_end();
  end.sequences[0].ids.assign(1000, 5);
  (*writer)->end(end);
  ASSERT_TRUE((*writer)->close());
  TraceMemory memory;
  const auto read = read_trace(path("run.jsonl"), &memory);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(memory.steps().size(), 1000U);
}

// Just enough of JSON Schema for ours: $ref, properties, required, items, prefixItems, anyOf,
// oneOf, type, const, enum, minimum, maximum.
class SchemaCheck {
 public:
  explicit SchemaCheck(const Json& schema) : schema_(schema) {}

  [[nodiscard]] std::string problem(const Json& rule, const Json& value,
                                    const std::string& where) const {
    if (rule.contains("$ref")) {
      return problem(definition(rule["$ref"]), value, where);
    }
    if (rule.contains("const")) {
      return rule["const"] == value ? "" : where + ": not the constant";
    }
    if (rule.contains("enum")) {
      return std::find(rule["enum"].begin(), rule["enum"].end(), value) != rule["enum"].end()
                 ? ""
                 : where + ": not one of the words";
    }
    if (rule.contains("anyOf")) {
      for (const Json& one : rule["anyOf"]) {
        if (problem(one, value, where).empty()) {
          return "";
        }
      }
      return where + ": none of anyOf";
    }
    if (!has_type(rule["type"], value)) {
      return where + ": another type";
    }
    if (value.is_number() && ((rule.contains("minimum") && value < rule["minimum"]) ||
                              (rule.contains("maximum") && value > rule["maximum"]))) {
      return where + ": out of range";
    }
    return value.is_object() ? object_problem(rule, value, where)
                             : array_problem(rule, value, where);
  }
  [[nodiscard]] const Json& definition(const std::string& reference) const {
    return schema_["$defs"][reference.substr(reference.rfind('/') + 1)];
  }

 private:
  static bool has_type(const Json& types, const Json& value) {
    const Json list = types.is_array() ? types : Json::array({types});
    return std::any_of(list.begin(), list.end(), [&](const Json& type) {
      return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
             (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
             (type == "null" && value.is_null()) ||
             (type == "integer" && value.is_number_integer()) ||
             (type == "number" && value.is_number());
    });
  }
  [[nodiscard]] std::string object_problem(const Json& rule, const Json& value,
                                           const std::string& where) const {
    if (!rule.contains("properties")) {
      return "";
    }
    EXPECT_EQ(rule["additionalProperties"], false) << where;
    std::set<std::string> in_schema;
    for (const auto& item : rule["properties"].items()) {
      in_schema.insert(item.key());
    }
    EXPECT_EQ(rule["required"].get<std::set<std::string>>(), in_schema) << where;
    std::set<std::string> found;
    for (const auto& item : value.items()) {
      found.insert(item.key());
    }
    if (found != in_schema) {
      return where + ": other fields";
    }
    for (const auto& item : value.items()) {
      const std::string inner =
          problem(rule["properties"][item.key()], item.value(), where + "." + item.key());
      if (!inner.empty()) {
        return inner;
      }
    }
    return "";
  }
  [[nodiscard]] std::string array_problem(const Json& rule, const Json& value,
                                          const std::string& where) const {
    for (size_t i = 0; value.is_array() && i < value.size(); ++i) {
      const Json& inner_rule =
          rule.contains("prefixItems") ? rule["prefixItems"][i] : rule["items"];
      const std::string inner =
          problem(inner_rule, value[i], where + "[" + std::to_string(i) + "]");
      if (!inner.empty()) {
        return inner;
      }
    }
    return "";
  }

  const Json& schema_;
};

TEST_F(TraceFile, EveryRecordIsAsTheSchemaSays) {
  const auto schema =
      parse_json(text_of(std::string(LOGITLAB_SOURCE_DIR) + "/docs/trace.schema.json"), "schema");
  ASSERT_TRUE(schema) << schema.error().message;
  EXPECT_EQ((*schema)["$id"], std::string(kTraceSchema));
  const SchemaCheck check(*schema);
  std::istringstream lines(recorded(path("run.jsonl")));
  std::set<std::string> kinds;
  for (std::string line; std::getline(lines, line);) {
    const auto record = parse_json(line, "line");
    ASSERT_TRUE(record) << record.error().message;
    const auto kind = (*record)["record"].get<std::string>();
    kinds.insert(kind);
    EXPECT_EQ(check.problem(check.definition(kind), *record, kind), "");
    Json broken = *record;
    broken["surplus"] = 1;
    EXPECT_NE(check.problem(check.definition(kind), broken, kind), "");
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"run", "step", "beam_step", "end"}));
}

}  // namespace
}  // namespace logitlab
