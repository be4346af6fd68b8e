#include "lab/study/study_runner.h"

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lab/study/study_extras.h"

namespace logitlab {
namespace {

std::unique_ptr<Engine> load(const char* model) {
  EngineOptions options;
  options.model = std::string(LOGITLAB_SOURCE_DIR) + "/tests/data/models/" + model;
  options.threads = 2;
  auto engine = Engine::load(options);
  EXPECT_TRUE(engine) << engine.error().message;
  return engine ? std::move(*engine) : nullptr;
}

class StudyRunner : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "study_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    engine_ = load(GetParam());
    ASSERT_NE(engine_, nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Store> open(const std::string& name) {
    auto store = Store::open((folder_ / name).string());
    EXPECT_TRUE(store) << store.error().message;
    return store ? std::move(*store) : nullptr;
  }

  std::filesystem::path folder_;
  std::unique_ptr<Engine> engine_;
};

StudySetting setting(const std::string& name, int64_t runs) {
  StudySetting setting;
  setting.name = name;
  setting.runs = runs;
  setting.config.max_new_tokens = 12;
  setting.config.eos_token_id = TokenIds{};
  return setting;
}

// Greedy and sampled, filters, penalties, beams, other executions, two prompts.
Study mixed_study() {
  Study study;
  study.name = "mixed";
  study.source = "name: mixed\n";
  study.prompts = {{.name = "one", .text = "abcabc", .messages = {}, .is_chat = false},
                   {.name = "two", .text = "hello", .messages = {}, .is_chat = false}};
  study.settings.push_back(setting("greedy", 2));
  study.settings.back().is_control = true;
  for (const double temperature : {0.3, 1.0}) {
    StudySetting sampled = setting(temperature < 0.5 ? "cold" : "warm", 4);
    sampled.config.do_sample = true;
    sampled.config.temperature = temperature;
    sampled.config.top_k = 0;
    study.settings.push_back(sampled);
  }
  StudySetting filtered = setting("filtered", 3);
  filtered.config.do_sample = true;
  filtered.config.top_p = 0.8;
  filtered.config.repetition_penalty = 1.3;
  study.settings.push_back(filtered);
  StudySetting rounded = setting("bfloat16", 3);
  rounded.config.do_sample = true;
  rounded.config.top_k = 1;
  rounded.config.logits_dtype = LogitsDtype::kBfloat16;
  study.settings.push_back(rounded);
  StudySetting beams = setting("beams", 1);
  beams.config.num_beams = 3;
  beams.config.num_return_sequences = 2;
  study.settings.push_back(beams);
  StudySetting single = setting("one thread", 2);
  single.execution.threads = 1;
  study.settings.push_back(single);
  StudySetting crowded = setting("crowded", 1);
  crowded.execution.neighbours = 3;
  study.settings.push_back(crowded);
  study.n_candidates = 4;
  return study;
}

StudyRunOptions options_of(bool share_prefixes) {
  StudyRunOptions options;
  options.share_prefixes = share_prefixes;
  options.origin.model = "tiny";
  options.origin.model_hash = "fnv1a64:0123456789abcdef";
  options.origin.build = "test";
  return options;
}

struct Stored {
  std::vector<RunRecord> runs;
  std::vector<std::string> traces;
};
Stored read_all(Store* store, int64_t study) {
  Stored stored;
  const Status visited = store->visit_runs(study, [&](const RunRecord& run) -> Status {
    EXPECT_FALSE(run.trace.empty());
    stored.traces.push_back(run.trace);
    stored.runs.push_back(run);
    return {};
  });
  EXPECT_TRUE(visited) << visited.error().message;
  return stored;
}

void expect_equal(const Stored& first, const Stored& second) {
  ASSERT_EQ(first.runs.size(), second.runs.size());
  for (size_t i = 0; i < first.runs.size(); ++i) {
    const RunRecord& a = first.runs[i];
    const RunRecord& b = second.runs[i];
    SCOPED_TRACE(a.setting_name + " run " + std::to_string(a.run));
    EXPECT_EQ(a.index, b.index);
    EXPECT_EQ(a.prompt_name, b.prompt_name);
    EXPECT_EQ(a.setting_name, b.setting_name);
    EXPECT_EQ(a.seed, b.seed);
    EXPECT_EQ(a.prompt_ids, b.prompt_ids);
    EXPECT_EQ(a.ids, b.ids);
    EXPECT_EQ(a.text, b.text);
    EXPECT_EQ(a.stop_reason, b.stop_reason);
    EXPECT_EQ(a.hash, b.hash);
    EXPECT_EQ(a.config_json, b.config_json);
    EXPECT_EQ(first.traces[i], second.traces[i]);
  }
}

TEST_P(StudyRunner, SharedPrefixesLeaveTheSameStore) {
  const Study study = mixed_study();
  const auto shared = open("shared.db");
  const auto alone = open("alone.db");
  const auto first = run_study(engine_.get(), shared.get(), study, options_of(true));
  ASSERT_TRUE(first) << first.error().message;
  const auto second = run_study(engine_.get(), alone.get(), study, options_of(false));
  ASSERT_TRUE(second) << second.error().message;
  const Stored stored = read_all(shared.get(), *first);
  EXPECT_EQ(stored.runs.size(), 2U * (2 + 4 + 4 + 3 + 3 + 1 + 2 + 1));
  expect_equal(stored, read_all(alone.get(), *second));
  const auto with = shared->study(*first);
  const auto without = alone->study(*second);
  ASSERT_TRUE(with && without);
  EXPECT_EQ(with->status, "done");
  EXPECT_EQ(with->totals.new_tokens_asked, without->totals.new_tokens_asked);
  EXPECT_LT(with->totals.decode_rows, without->totals.decode_rows);
  EXPECT_LT(with->totals.prefill_tokens, without->totals.prefill_tokens);
  // The greedy runs and the one-thread run take the same way.
  std::map<std::string, std::set<uint64_t>> hashes;
  for (const RunRecord& run : stored.runs) {
    if (run.prompt_name == "one") {
      hashes[run.setting_name].insert(run.hash);
    }
  }
  EXPECT_EQ(hashes["greedy"].size(), 1U);
  EXPECT_EQ(hashes["greedy"], hashes["one thread"]);
  EXPECT_EQ(hashes["greedy"], hashes["crowded"]);
  EXPECT_GT(hashes["warm"].size(), 1U);
}

TEST_P(StudyRunner, GoesOnWhereItWasStopped) {
  const Study study = mixed_study();
  const auto whole = open("whole.db");
  const auto parts = open("parts.db");
  const auto all = run_study(engine_.get(), whole.get(), study, options_of(true));
  ASSERT_TRUE(all) << all.error().message;
  StudyRunOptions options = options_of(true);
  int asked = 0;
  options.is_cancelled = [&asked] { return ++asked > 30; };
  const auto stopped = run_study(engine_.get(), parts.get(), study, options);
  ASSERT_TRUE(stopped) << stopped.error().message;
  const auto interrupted = parts->study(*stopped);
  ASSERT_TRUE(interrupted);
  EXPECT_EQ(interrupted->status, "interrupted");
  const auto done = parts->finished_runs(*stopped);
  ASSERT_TRUE(done);
  EXPECT_LT(done->size(), plan_runs(study).size());
  options.is_cancelled = nullptr;
  options.resume = *stopped;
  const auto resumed = run_study(engine_.get(), parts.get(), study, options);
  ASSERT_TRUE(resumed) << resumed.error().message;
  EXPECT_EQ(*resumed, *stopped);
  expect_equal(read_all(whole.get(), *all), read_all(parts.get(), *resumed));
  // Another model's runs do not belong into it.
  options.origin.model_hash = "fnv1a64:ffffffffffffffff";
  const auto other = run_study(engine_.get(), parts.get(), study, options);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::kInvalidArgument);
}

TEST_P(StudyRunner, RefusesASettingBeforeItBegins) {
  Study study = mixed_study();
  study.settings[2].config.temperature = -1;
  const auto store = open("store.db");
  const auto refused = run_study(engine_.get(), store.get(), study, options_of(true));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("setting warm"), std::string::npos)
      << refused.error().message;
  const auto studies = store->studies();
  ASSERT_TRUE(studies);
  EXPECT_TRUE(studies->empty());
}

TEST_P(StudyRunner, MeasuresWhatNeedsNoRuns) {
  Study study = mixed_study();
  study.settings.resize(3);
  study.prompts.resize(1);
  for (StudySetting& each : study.settings) {
    each.config.max_new_tokens = 3;
  }
  study.measures = {MeasureKind::kTexts, MeasureKind::kCache};
  study.exact = ExactRequest{.mass = 0.5, .max_nodes = 300};
  const auto store = open("store.db");
  const auto id = run_study(engine_.get(), store.get(), study, options_of(true));
  ASSERT_TRUE(id) << id.error().message;
  const auto record = store->study(*id);
  ASSERT_TRUE(record);
  const auto extras = parse_study_extras(record->extras_json);
  ASSERT_TRUE(extras) << extras.error().message;
  ASSERT_EQ(extras->exact.size(), 3U);
  EXPECT_EQ(extras->exact.front().texts, 1);  // greedy
  EXPECT_NEAR(extras->exact.front().mass, 1.0, 1e-12);
  ASSERT_TRUE(extras->cache);
  EXPECT_EQ(extras->cache->cached_seconds.size(), 2U);
  EXPECT_EQ(extras->cache->uncached_seconds.size(), 2U);
  // What was written reads back as it was.
  EXPECT_EQ(to_json_text(*extras), record->extras_json);
}

TEST_P(StudyRunner, SaysWhatItWouldCost) {
  const Study study = mixed_study();
  const auto estimate = estimate_study(engine_.get(), study);
  ASSERT_TRUE(estimate) << estimate.error().message;
  EXPECT_EQ(estimate->runs, 40);
  EXPECT_EQ(estimate->new_tokens_at_most, 40 * 12);
  EXPECT_LT(estimate->distinct_prompt_tokens, estimate->prompt_tokens);
  EXPECT_GT(estimate->state_bytes_at_most, 0U);
}

INSTANTIATE_TEST_SUITE_P(Models, StudyRunner, testing::Values("qwen3", "nemotron_h"),
                         [](const auto& model) { return std::string(model.param); });

TEST(StudyExtras, RefusesWhatItDidNotWrite) {
  EXPECT_TRUE(parse_study_extras(""));
  for (const char* text : {"[", "[]", "{}", R"({"exact":[{}],"cache":null})",
                           R"({"exact":[],"cache":{"prompt_tokens":"x"}})"}) {
    const auto extras = parse_study_extras(text);
    ASSERT_FALSE(extras) << text;
    EXPECT_EQ(extras.error().code, ErrorCode::kDataLoss) << text;
  }
}

}  // namespace
}  // namespace logitlab
