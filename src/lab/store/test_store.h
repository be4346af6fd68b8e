// For tests: a folder for stores, and records whose every field follows from their index.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <unistd.h>
#include <utility>

#include <gtest/gtest.h>

#include "lab/store/store.h"

#define ASSERT_OK_AND_ASSIGN(lhs, expr) ASSERT_OK_INNER(LOGITLAB_CONCAT(ok_, __LINE__), lhs, expr)
#define ASSERT_OK_INNER(result, lhs, expr)       \
  auto result = (expr);                          \
  ASSERT_TRUE(result) << result.error().message; \
  lhs = std::move(result).value()

namespace logitlab {

// Bytes that compress badly, the same for the same seed.
inline std::string test_bytes(uint64_t seed, size_t n) {
  std::string out(n, '\0');
  for (char& c : out) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    c = static_cast<char>(seed >> 56);
  }
  return out;
}

inline StudyRecord test_study() {
  StudyRecord study;
  study.name = "temperature";
  study.source = "name: temperature\n";
  study.created = "2026-01-31T12:00:00Z";
  study.status = "running";
  study.origin = {"default", "fnv1a:12", "cpu", "AVX2", "0.1.0 abc", "logitlab study temperature",
                  2};
  return study;
}

inline RunRecord test_run_record(int64_t study, int64_t index, size_t trace_bytes = 3000) {
  const auto u = static_cast<uint64_t>(index);
  RunRecord run;
  run.study = study;
  run.index = index;
  run.prompt_name = "prompt";
  run.setting_name = "temperature=" + std::to_string(index / 5);
  run.run = index < 0 ? 0 : index % 5;
  run.seed = ~u;
  run.config_json = R"({"temperature":0.7})";
  run.execution_json = "{}";
  run.prompt_ids = {1, 2, static_cast<TokenId>(index)};
  run.ids.assign(1 + u % 7, static_cast<TokenId>(u % 49'000));
  run.text = "text " + test_bytes(u, 40);
  run.stop_reason = "eos_token";
  run.stop_id = 2;
  run.thinking_tokens = 1;
  run.answer_tokens = 3;
  run.hash = u * 0x9E3779B97F4A7C15ULL;
  run.seconds = 0.25;
  run.trace = test_bytes(u + 1, trace_bytes);
  return run;
}

// Every field but what the store tells of itself.
inline void expect_same_run(const RunRecord& found, const RunRecord& want) {
  EXPECT_EQ(found.id, want.id);
  EXPECT_EQ(found.study, want.study);
  EXPECT_EQ(found.index, want.index);
  EXPECT_EQ(found.prompt_name, want.prompt_name);
  EXPECT_EQ(found.setting_name, want.setting_name);
  EXPECT_EQ(found.run, want.run);
  EXPECT_EQ(found.seed, want.seed);
  EXPECT_EQ(found.is_control, want.is_control);
  EXPECT_EQ(found.config_json, want.config_json);
  EXPECT_EQ(found.execution_json, want.execution_json);
  EXPECT_EQ(found.prompt_ids, want.prompt_ids);
  EXPECT_EQ(found.ids, want.ids);
  EXPECT_EQ(found.text, want.text);
  EXPECT_EQ(found.stop_reason, want.stop_reason);
  EXPECT_EQ(found.stop_id, want.stop_id);
  EXPECT_EQ(found.thinking_tokens, want.thinking_tokens);
  EXPECT_EQ(found.answer_tokens, want.answer_tokens);
  EXPECT_EQ(found.hash, want.hash);
  EXPECT_EQ(found.seconds, want.seconds);
  EXPECT_TRUE(found.trace == want.trace) << "run " << found.index << ": another trace";
  EXPECT_EQ(found.trace_bytes, static_cast<int64_t>(want.trace.size()));
}

class StoreFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("store_" + std::to_string(::getpid()) + "_" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name = "logitlab.db") const {
    return folder_ / name;
  }
  [[nodiscard]] std::unique_ptr<Store> open_store(StoreMode mode = StoreMode::kWrite) const {
    auto store = Store::open(path(), mode);
    EXPECT_TRUE(store) << store.error().message;
    return store ? std::move(*store) : nullptr;
  }
  static int64_t begun(Store* store) {
    const auto id = store->begin_study(test_study());
    EXPECT_TRUE(id) << id.error().message;
    return id.value_or(0);
  }

  std::filesystem::path folder_;
};

}  // namespace logitlab
