#include "lab/store/store.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"
#include "lab/store/schema.h"
#include "lab/store/sqlite.h"
#include "lab/store/test_store.h"
#include "trace/trace_text.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

class StoreTest : public StoreFolder {};

TEST_F(StoreTest, AStudyComesBackAsItWas) {
  auto store = open_store();
  StudyRecord study = test_study();
  study.source = std::string("name: \xff\0 x\n", 11);
  study.overrides = {"temperature=0.7", "prompt=\"two\nlines\" \xE2\x82\xAC"};
  study.reading = "first";
  ASSERT_OK_AND_ASSIGN(const int64_t id, store->begin_study(study));
  ASSERT_OK_AND_ASSIGN(const StudyRecord found, store->study(id));
  EXPECT_EQ(found.id, id);
  EXPECT_EQ(found.parent, 0);
  EXPECT_EQ(found.name, study.name);
  EXPECT_EQ(found.source, study.source);
  EXPECT_EQ(found.overrides, study.overrides);
  EXPECT_EQ(found.created, study.created);
  EXPECT_EQ(found.status, "running");
  EXPECT_EQ(found.origin.model, study.origin.model);
  EXPECT_EQ(found.origin.model_hash, study.origin.model_hash);
  EXPECT_EQ(found.origin.device, study.origin.device);
  EXPECT_EQ(found.origin.isa, study.origin.isa);
  EXPECT_EQ(found.origin.build, study.origin.build);
  EXPECT_EQ(found.origin.command, study.origin.command);
  EXPECT_EQ(found.origin.threads, study.origin.threads);
  EXPECT_EQ(found.reading, "first");
  EXPECT_EQ(found.n_runs, 0);
  EXPECT_EQ(found.totals.forward_passes, 0);
}

TEST_F(StoreTest, FinishingAStudySetsWhatItCost) {
  auto store = open_store();
  const int64_t id = begun(store.get());
  StudyTotals totals;
  totals.prompt_tokens_asked = 1;
  totals.new_tokens_asked = 2;
  totals.prefill_tokens = 3;
  totals.decode_rows = 4;
  totals.replayed_rows = 5;
  totals.forward_passes = 6;
  totals.peak_state_bytes = size_t{7} << 32;
  totals.prefill_seconds = 0.1;
  totals.seconds = 1.0 / 3;
  totals.peak_memory_bytes = 8;
  ASSERT_TRUE(store->finish_study(id, "done", totals, R"({"exact":[]})"));
  ASSERT_TRUE(store->set_reading(id, "what it \xff means"));
  ASSERT_OK_AND_ASSIGN(const StudyRecord found, store->study(id));
  EXPECT_EQ(found.status, "done");
  EXPECT_EQ(found.extras_json, R"({"exact":[]})");
  EXPECT_EQ(found.reading, "what it \xff means");
  EXPECT_EQ(found.totals.prompt_tokens_asked, 1);
  EXPECT_EQ(found.totals.new_tokens_asked, 2);
  EXPECT_EQ(found.totals.prefill_tokens, 3);
  EXPECT_EQ(found.totals.decode_rows, 4);
  EXPECT_EQ(found.totals.replayed_rows, 5);
  EXPECT_EQ(found.totals.forward_passes, 6);
  EXPECT_EQ(found.totals.peak_state_bytes, size_t{7} << 32);
  EXPECT_EQ(found.totals.prefill_seconds, 0.1);
  EXPECT_EQ(found.totals.seconds, 1.0 / 3);
  EXPECT_EQ(found.totals.peak_memory_bytes, 8U);
}

TEST_F(StoreTest, AStudyWithoutATimeGetsTheTimeOfNow) {
  auto store = open_store();
  StudyRecord study = test_study();
  study.created.clear();
  ASSERT_OK_AND_ASSIGN(const int64_t id, store->begin_study(study));
  ASSERT_OK_AND_ASSIGN(const StudyRecord found, store->study(id));
  EXPECT_EQ(found.created.size(), std::string_view("2026-01-31T12:00:00Z").size());
  EXPECT_GT(found.created, "2020");
}

TEST_F(StoreTest, RecordsThatBreakARuleAreRefusedAndNothingOfThemStays) {
  auto store = open_store();
  StudyRecord study = test_study();
  study.status = "over";
  EXPECT_EQ(store->begin_study(study).error().code, ErrorCode::kInvalidArgument);
  study = test_study();
  study.name.clear();
  EXPECT_EQ(store->begin_study(study).error().code, ErrorCode::kInvalidArgument);
  study = test_study();
  study.created = "yesterday";
  EXPECT_EQ(store->begin_study(study).error().code, ErrorCode::kInvalidArgument);
  study = test_study();
  study.parent = 99;
  EXPECT_EQ(store->begin_study(study).error().code, ErrorCode::kNotFound);
  const int64_t id = begun(store.get());
  EXPECT_EQ(store->finish_study(id, "over", {}, "").error().code, ErrorCode::kInvalidArgument);
  RunRecord run = test_run_record(id, 0);
  run.config_json = "{";
  EXPECT_EQ(store->add_run(run).error().code, ErrorCode::kInvalidArgument);
  run = test_run_record(id, -1);
  EXPECT_EQ(store->add_run(run).error().code, ErrorCode::kInvalidArgument);
  run = test_run_record(id, 0);
  run.trace.clear();
  run.trace_zstd = "no frame";
  EXPECT_EQ(store->add_run(run).error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(store->studies()->size(), 1U);
  EXPECT_TRUE(store->runs({})->empty());
  run = test_run_record(id, 0);
  EXPECT_TRUE(store->add_run(run));  // the connection works on
}

TEST_F(StoreTest, ARunComesBackAsItWas) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  RunRecord run = test_run_record(study, 3);
  run.text = std::string("a\0b \xff\xc3 \xE2\x82\xAC\n", 10);
  run.prompt_name = std::string("p\0q", 3);
  run.setting_name = "temperature=\xfe";
  run.is_control = true;
  run.stop_id = -1;
  run.seconds = 1e-300;
  ASSERT_OK_AND_ASSIGN(const int64_t id, store->add_run(run));
  ASSERT_OK_AND_ASSIGN(const RunRecord found, store->run(id));
  run.id = id;
  expect_same_run(found, run);
}

TEST_F(StoreTest, NumbersOfSixtyFourBitsAreExact) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  int64_t index = 0;
  for (const uint64_t value : {uint64_t{0}, uint64_t{1} << 53 | 1, (uint64_t{1} << 63) - 1,
                               uint64_t{1} << 63, ~uint64_t{0}}) {
    RunRecord run = test_run_record(study, index++);
    run.seed = value;
    run.hash = ~value;
    ASSERT_OK_AND_ASSIGN(const int64_t id, store->add_run(run));
    ASSERT_OK_AND_ASSIGN(const RunRecord found, store->run(id));
    EXPECT_EQ(found.seed, value);
    EXPECT_EQ(found.hash, ~value);
  }
}

TEST_F(StoreTest, EmptyValuesAreNoProblem) {
  auto store = open_store();
  ASSERT_OK_AND_ASSIGN(const int64_t id, store->add_run(RunRecord{}));
  ASSERT_OK_AND_ASSIGN(const RunRecord found, store->run(id));
  RunRecord want;
  want.id = id;
  expect_same_run(found, want);
}

TEST_F(StoreTest, SingleRunsBelongToNoStudyAndMayShareAnIndex) {
  auto store = open_store();
  ASSERT_TRUE(store->add_run(test_run_record(0, 0)));
  ASSERT_TRUE(store->add_run(test_run_record(0, 0)));
  EXPECT_EQ(store->runs({})->size(), 2U);
}

TEST_F(StoreTest, ATraceMayComeCompressed) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  RunRecord run = test_run_record(study, 0);
  const std::string text = run.trace;
  TraceCompressor compressor;
  compressor.append(std::string_view(text).substr(0, 100), &run.trace_zstd);
  compressor.append(std::string_view(text).substr(100), &run.trace_zstd);
  run.trace.clear();
  ASSERT_OK_AND_ASSIGN(const int64_t id, store->add_run(run));
  ASSERT_OK_AND_ASSIGN(const RunRecord found, store->run(id));
  EXPECT_EQ(found.trace, text);
  EXPECT_EQ(found.trace_zstd, "");
  EXPECT_EQ(found.trace_bytes, static_cast<int64_t>(text.size()));
}

TEST_F(StoreTest, AStudyHasAnIndexOnce) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  ASSERT_TRUE(store->add_run(test_run_record(study, 4)));
  const auto again = store->add_run(test_run_record(study, 4));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kInvalidArgument);
  std::vector<RunRecord> runs = {test_run_record(study, 5), test_run_record(study, 4)};
  EXPECT_FALSE(store->add_runs(&runs));
  EXPECT_EQ(runs[0].id, 0);
  EXPECT_EQ(*store->finished_runs(study), std::vector<int64_t>{4});  // none of the two
  EXPECT_TRUE(store->add_run(test_run_record(begun(store.get()), 4)));
}

TEST_F(StoreTest, SeveralRunsAreAddedAtOnce) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  std::vector<RunRecord> runs;
  for (const int64_t index : {2, 0, 1}) {
    runs.push_back(test_run_record(study, index));
  }
  ASSERT_TRUE(store->add_runs(&runs));
  for (const RunRecord& run : runs) {
    ASSERT_OK_AND_ASSIGN(const RunRecord found, store->run(run.id));
    expect_same_run(found, run);
  }
  EXPECT_EQ(*store->finished_runs(study), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(store->study(study)->n_runs, 3);
}

TEST_F(StoreTest, ARunOfAStudyThatIsNotThereIsRefused) {
  auto store = open_store();
  const auto added = store->add_run(test_run_record(7, 0));
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::kNotFound);
  EXPECT_NE(added.error().message.find("study"), std::string::npos);
}

TEST_F(StoreTest, WhatIsNotThereIsSaidWithItsNumber) {
  auto store = open_store();
  for (const Status& status :
       {Status(store->run(12).map([](const auto&) {})),
        Status(store->study(12).map([](const auto&) {})), store->remove_run(12),
        store->remove_study(12), store->set_reading(12, ""),
        store->finish_study(12, "done", {}, "")}) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kNotFound);
    EXPECT_NE(status.error().message.find(" 12: not in "), std::string::npos)
        << status.error().message;
  }
}

TEST_F(StoreTest, ListsAreFilteredOrderedAndWithoutTraces) {
  auto store = open_store();
  const int64_t first = begun(store.get());
  StudyRecord other = test_study();
  other.origin.model_hash = "fnv1a:other";
  ASSERT_OK_AND_ASSIGN(const int64_t second, store->begin_study(other));
  for (const int64_t index : {1, 0}) {
    ASSERT_TRUE(store->add_run(test_run_record(second, index)));
    ASSERT_TRUE(store->add_run(test_run_record(first, index)));
  }
  const auto found = [&](const RunFilter& filter) {
    const auto runs = store->runs(filter);
    EXPECT_TRUE(runs) << runs.error().message;
    std::vector<std::pair<int64_t, int64_t>> out;
    for (const RunRecord& run : *runs) {
      EXPECT_EQ(run.trace, "");
      EXPECT_GT(run.trace_bytes, 0);
      out.emplace_back(run.study, run.index);
    }
    return out;
  };
  using Pairs = std::vector<std::pair<int64_t, int64_t>>;
  EXPECT_EQ(found({}), (Pairs{{first, 0}, {first, 1}, {second, 0}, {second, 1}}));
  EXPECT_EQ(found({.limit = 3}), (Pairs{{first, 0}, {second, 0}, {first, 1}}));
  EXPECT_EQ(found({.study = second}), (Pairs{{second, 0}, {second, 1}}));
  EXPECT_EQ(found({.study = second, .limit = 1}), (Pairs{{second, 0}}));
  EXPECT_EQ(found({.model_hash = "fnv1a:other"}), (Pairs{{second, 0}, {second, 1}}));
  EXPECT_EQ(found({.study = first, .model_hash = "fnv1a:other"}), Pairs{});
  EXPECT_EQ(found({.study = 99}), Pairs{});
  ASSERT_OK_AND_ASSIGN(const auto studies, store->studies());
  ASSERT_EQ(studies.size(), 2U);
  EXPECT_EQ(studies[0].id, second);
  EXPECT_EQ(studies[1].n_runs, 2);
}

TEST_F(StoreTest, RunsAreVisitedInOrderUntilTheVisitorHasEnough) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  for (const int64_t index : {3, 1, 2}) {
    ASSERT_TRUE(store->add_run(test_run_record(study, index)));
  }
  std::vector<int64_t> seen;
  ASSERT_TRUE(store->visit_runs(study, [&](const RunRecord& run) -> Status {
    EXPECT_EQ(run.trace, test_run_record(study, run.index).trace);
    seen.push_back(run.index);
    // The visitor may use the store.
    EXPECT_TRUE(store->run(run.id));
    return store->visit_runs(
        study,
        [](const RunRecord& inner) -> Status {
          EXPECT_EQ(inner.trace, "");
          return {};
        },
        false);
  }));
  EXPECT_EQ(seen, (std::vector<int64_t>{1, 2, 3}));
  seen.clear();
  const auto stopped = store->visit_runs(study, [&](const RunRecord& run) -> Status {
    seen.push_back(run.index);
    return fail(ErrorCode::kCancelled, "enough");
  });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().message, "enough");
  EXPECT_EQ(seen, std::vector<int64_t>{1});
}

TEST_F(StoreTest, ACourseHasPartsAndTakesThemAlong) {
  auto store = open_store();
  const int64_t course = begun(store.get());
  StudyRecord part = test_study();
  part.parent = course;
  ASSERT_OK_AND_ASSIGN(const int64_t first, store->begin_study(part));
  ASSERT_OK_AND_ASSIGN(const int64_t second, store->begin_study(part));
  const int64_t alone = begun(store.get());
  ASSERT_TRUE(store->add_run(test_run_record(first, 0)));
  ASSERT_OK_AND_ASSIGN(const auto parts, store->parts(course));
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(parts[0].id, first);
  EXPECT_EQ(parts[1].id, second);
  EXPECT_EQ(parts[0].parent, course);
  ASSERT_TRUE(store->remove_study(course));
  ASSERT_EQ(store->studies()->size(), 1U);
  EXPECT_EQ(store->studies()->front().id, alone);
  EXPECT_TRUE(store->runs({})->empty());
}

TEST_F(StoreTest, RemovingGivesTheRoomBackAndNumbersAreNotUsedAgain) {
  int64_t kept = 0;
  {
    auto store = open_store();
    const int64_t study = begun(store.get());
    std::vector<RunRecord> runs;
    for (int64_t i = 0; i < 20; ++i) {
      runs.push_back(test_run_record(study, i, size_t{100} << 10));
    }
    ASSERT_TRUE(store->add_runs(&runs));
    kept = runs[3].id;
    ASSERT_TRUE(store->remove_run(runs.back().id));
    ASSERT_OK_AND_ASSIGN(const int64_t next, store->add_run(test_run_record(study, 19)));
    EXPECT_EQ(next, runs.back().id + 1);
  }
  const auto full = fs::file_size(path());
  {
    auto store = open_store();
    ASSERT_OK_AND_ASSIGN(const auto all, store->runs({}));
    for (const RunRecord& run : all) {
      if (run.id != kept) {
        ASSERT_TRUE(store->remove_run(run.id));
      }
    }
    ASSERT_OK_AND_ASSIGN(const RunRecord found, store->run(kept));
    EXPECT_EQ(found.trace.size(), size_t{100} << 10);
  }
  EXPECT_LT(fs::file_size(path()), full / 4);
}

TEST_F(StoreTest, ADamagedTraceIsToldAndHarmsNothingElse) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  ASSERT_OK_AND_ASSIGN(const int64_t id, store->add_run(test_run_record(study, 0)));
  ASSERT_OK_AND_ASSIGN(const int64_t whole, store->add_run(test_run_record(study, 1)));
  ASSERT_OK_AND_ASSIGN(auto raw, Sqlite::open(path(), SqliteMode::kExisting));
  for (const char* damage : {"zstd = substr(zstd, 1, length(zstd) - 5)", "zstd = x'00'"}) {
    ASSERT_TRUE(raw->execute(fmt::format("UPDATE trace SET {} WHERE run = {}", damage, id)));
    const auto found = store->run(id);
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::kDataLoss);
    EXPECT_NE(found.error().message.find(fmt::format("run {}", id)), std::string::npos)
        << found.error().message;
  }
  ASSERT_TRUE(raw->execute(fmt::format("DELETE FROM trace WHERE run = {}", id)));
  EXPECT_EQ(store->run(id).error().code, ErrorCode::kDataLoss);
  EXPECT_TRUE(store->run(whole));
  EXPECT_EQ(store->runs({})->size(), 2U);
}

TEST_F(StoreTest, OverridesOfAnotherShapeAreDataLoss) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  ASSERT_OK_AND_ASSIGN(auto raw, Sqlite::open(path(), SqliteMode::kExisting));
  ASSERT_TRUE(raw->execute("UPDATE study SET overrides = '[1]'"));
  EXPECT_EQ(store->study(study).error().code, ErrorCode::kDataLoss);
}

TEST_F(StoreTest, TheTablesHoldWhatTheyPromise) {
  { auto store = open_store(); }
  ASSERT_OK_AND_ASSIGN(auto raw, Sqlite::open(path(), SqliteMode::kExisting));
  EXPECT_EQ(*raw->integer("PRAGMA application_id"), kStoreApplicationId);
  EXPECT_EQ(*raw->integer("PRAGMA user_version"), static_cast<int64_t>(store_migrations().size()));
  EXPECT_EQ(*raw->integer("SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"),
            1);
  EXPECT_FALSE(raw->execute("INSERT INTO trace VALUES (1, 2)"));  // STRICT: no blob
  EXPECT_FALSE(raw->execute("INSERT INTO trace VALUES (1, x'')"));
}

TEST_F(StoreTest, MigrationsGoOnFromWhereAFileIs) {
  const std::vector<std::string_view> scripts = {
      "CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (7)",
      "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 9",
      "CREATE TABLE b (z INTEGER) STRICT; INSERT INTO nowhere VALUES (1)",
  };
  ASSERT_OK_AND_ASSIGN(auto database, Sqlite::open(path(), SqliteMode::kCreate));
  ASSERT_TRUE(migrate(database.get(), std::span(scripts).first(1)));
  EXPECT_EQ(*database->integer("PRAGMA user_version"), 1);
  ASSERT_TRUE(migrate(database.get(), std::span(scripts).first(2)));
  EXPECT_EQ(*database->integer("PRAGMA user_version"), 2);
  EXPECT_EQ(*database->integer("SELECT x + y FROM a"), 16);
  ASSERT_TRUE(migrate(database.get(), std::span(scripts).first(2)));  // nothing left to do
  // One that goes wrong leaves the version before it.
  EXPECT_FALSE(migrate(database.get(), scripts));
  EXPECT_EQ(*database->integer("PRAGMA user_version"), 2);
  EXPECT_FALSE(database->integer("SELECT count(*) FROM b"));
  const auto newer = migrate(database.get(), std::span(scripts).first(1));
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace logitlab
