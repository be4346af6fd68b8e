// Every recorded checkpoint on every backend: the numbers against transformers, and what a model
// promises about chunks, threads, batches and states.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "formats/model_source.h"
#include "recordings.h"

namespace logitlab::testing {
namespace {

namespace fs = std::filesystem;

struct Case {
  std::string name;
  std::string device;
};

void PrintTo(const Case& value, std::ostream* out) {
  *out << value.name << " on " << value.device;
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const std::string& name : recorded_names()) {
    for (const char* device : {"reference", "cpu"}) {
      cases.push_back({name, device});
    }
  }
  return cases;
}

class RecordedModel : public ::testing::TestWithParam<Case> {
 protected:
  // The longest recorded prompt: it passes the sliding windows and a page of the KV cache.
  [[nodiscard]] std::vector<TokenId> long_prompt() const {
    const Recording recording = read_recording(GetParam().name);
    return recording.prompts.empty() ? std::vector<TokenId>{} : recording.prompts.back().ids;
  }
  [[nodiscard]] fs::path path() const { return model_path(GetParam().name); }
  // Whether a layer sums up what it has seen: its sums depend on how a sequence is cut, and a state
  // goes back through snapshots only.
  [[nodiscard]] static bool is_hybrid(const LoadedModel& loaded) {
    return !loaded.model().make_state().can_truncate();
  }
  // What another cutting of the same ids must give.
  static void expect_other_cutting(const LoadedModel& loaded, std::span<const float> got,
                                   std::span<const float> want, const std::string& what) {
    if (is_hybrid(loaded)) {
      const auto vocab = static_cast<size_t>(loaded.model().config().vocab_size);
      EXPECT_LE(largest_difference(got, want, vocab), kCuttingBound) << what;
    } else {
      expect_same_bits(got, want, what);
    }
  }
};

INSTANTIATE_TEST_SUITE_P(All, RecordedModel, ::testing::ValuesIn(all_cases()),
                         [](const ::testing::TestParamInfo<Case>& test_case) {
                           return test_case.param.name + "_" + test_case.param.device;
                         });

TEST(Recordings, CoverEveryFamily) {
  const std::vector<std::string> names = recorded_names();
  EXPECT_GE(names.size(), 32U);
  for (const char* family : {"llama", "llama3", "mistral", "qwen2", "qwen3", "smollm2", "gguf",
                             "nemotron_h", "gguf_nemotron_h"}) {
    EXPECT_TRUE(std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return name.starts_with(family);
    })) << family;
  }
}

TEST_P(RecordedModel, LogitsAgreeAtEveryPosition) {
  LoadedModel loaded(path(), GetParam().device, 1);
  ASSERT_TRUE(loaded.ok());
  const Recording recording = read_recording(GetParam().name);
  ASSERT_EQ(loaded.model().config().vocab_size, recording.vocab_size);
  float worst = 0;
  for (const RecordedPrompt& prompt : recording.prompts) {
    worst = std::max(
        worst, expect_logits(prompt, loaded.run(prompt.ids), recording.vocab_size, kLogitBound));
  }
  RecordProperty("largest_relative_difference", std::to_string(worst));
}

TEST_P(RecordedModel, GreedyContinuationsAreIdentical) {
  LoadedModel loaded(path(), GetParam().device, 1);
  ASSERT_TRUE(loaded.ok());
  expect_greedy(&loaded, read_recording(GetParam().name).greedy);
}

TEST_P(RecordedModel, PiecesGiveWhatOnePieceGives) {
  LoadedModel loaded(path(), GetParam().device, 2);
  ASSERT_TRUE(loaded.ok());
  const std::vector<TokenId> ids = long_prompt();
  const std::vector<float> whole = loaded.run(ids);
  for (const int64_t piece : {1, 3, 7, 16, 33}) {
    DecodeState state = loaded.model().make_state();
    expect_other_cutting(loaded, loaded.run(&state, ids, piece), whole,
                         "pieces of " + std::to_string(piece));
    EXPECT_EQ(state.length(), static_cast<int64_t>(ids.size()));
  }
}

TEST_P(RecordedModel, ThreadsDoNotChangeABit) {
  const std::vector<TokenId> ids = long_prompt();
  LoadedModel one(path(), GetParam().device, 1);
  ASSERT_TRUE(one.ok());
  const std::vector<float> whole = one.run(ids);
  DecodeState alone = one.model().make_state();
  const std::vector<float> steps = one.run(&alone, ids, 1);
  for (const int threads : {2, 3}) {
    LoadedModel many(path(), GetParam().device, threads);
    ASSERT_TRUE(many.ok());
    expect_same_bits(many.run(ids), whole, std::to_string(threads) + " threads, one piece");
    DecodeState state = many.model().make_state();
    expect_same_bits(many.run(&state, ids, 1), steps,
                     std::to_string(threads) + " threads, token by token");
  }
}

// Sequences of different lengths and ages share one batch: prefill of one, a decode step of
// another.
TEST_P(RecordedModel, ABatchGivesTheBitsOfEachAlone) {
  LoadedModel loaded(path(), GetParam().device, 2);
  ASSERT_TRUE(loaded.ok());
  const Recording recording = read_recording(GetParam().name);
  ASSERT_GE(recording.prompts.size(), 4U);
  const size_t begins[] = {4, 0, 17, 99};  // what each state has seen before the batch
  std::vector<DecodeState> states;
  std::vector<std::vector<float>> alone;
  for (size_t i = 0; i < 4; ++i) {
    const std::span<const TokenId> ids = recording.prompts[i].ids;
    ASSERT_LT(begins[i], ids.size());
    states.push_back(loaded.model().make_state());
    (void)loaded.run(&states.back(), ids.first(begins[i]), 16);
    DecodeState copy = states.back().fork();
    alone.push_back(loaded.run(&copy, ids.subspan(begins[i]), 100));
  }
  std::vector<SequenceChunk> batch;
  for (size_t i = 0; i < 4; ++i) {
    const std::span<const TokenId> ids = recording.prompts[i].ids;
    batch.push_back({&states[i], ids.subspan(begins[i]), LogitRows::kAll});
  }
  batch[1].logit_rows = LogitRows::kLast;
  batch[2].logit_rows = LogitRows::kNone;
  const auto logits = loaded.model().forward(loaded.context(), batch);
  ASSERT_TRUE(logits) << logits.error().message;
  const auto vocab = static_cast<size_t>(recording.vocab_size);
  std::vector<float> want = alone[0];
  want.insert(want.end(), alone[1].end() - static_cast<ptrdiff_t>(vocab), alone[1].end());
  want.insert(want.end(), alone[3].begin(), alone[3].end());
  ASSERT_EQ(logits->rows, static_cast<int64_t>(want.size() / vocab));
  expect_same_bits(logits->values, want, "batch of four");
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(states[i].length(), static_cast<int64_t>(recording.prompts[i].ids.size()));
  }
  // The row without logits has still written its state.
  const std::vector<TokenId> next = {7};
  DecodeState fresh = loaded.model().make_state();
  const std::span<const TokenId> third = recording.prompts[2].ids;
  (void)loaded.run(&fresh, third.first(begins[2]), 16);  // cut as the batch was
  (void)loaded.run(&fresh, third.subspan(begins[2]), 100);
  expect_same_bits(loaded.run(&states[2], next, 1), loaded.run(&fresh, next, 1), "after the batch");
}

TEST_P(RecordedModel, ForksAndGoingBackGiveWhatAFreshStateGives) {
  LoadedModel loaded(path(), GetParam().device, 1);
  ASSERT_TRUE(loaded.ok());
  const std::vector<TokenId> ids = long_prompt();
  const std::span<const TokenId> prefix(ids.data(), 37);
  std::vector<TokenId> left(prefix.begin(), prefix.end());
  std::vector<TokenId> right = left;
  for (TokenId id = 20; id < 32; ++id) {
    left.push_back(id);
    right.push_back(271 - id);
  }
  const auto vocab = static_cast<size_t>(loaded.model().config().vocab_size);
  const auto tail = [&](const std::vector<TokenId>& all) {
    const std::vector<float> logits = loaded.run(all);
    return std::vector<float>(logits.begin() + static_cast<ptrdiff_t>(prefix.size() * vocab),
                              logits.end());
  };
  const auto after = [&](const std::vector<TokenId>& all) {
    return std::span<const TokenId>(all).subspan(prefix.size());
  };

  DecodeState first = loaded.model().make_state();
  (void)loaded.run(&first, prefix, 100);
  DecodeState second = first.fork();
  const DecodeState snapshot = first.fork();
  // In turns, so that a write through a shared page would show.
  std::vector<float> got_left;
  std::vector<float> got_right;
  for (size_t i = 0; i < after(left).size(); ++i) {
    const auto a = loaded.run(&first, after(left).subspan(i, 1), 1);
    const auto b = loaded.run(&second, after(right).subspan(i, 1), 1);
    got_left.insert(got_left.end(), a.begin(), a.end());
    got_right.insert(got_right.end(), b.begin(), b.end());
  }
  expect_other_cutting(loaded, got_left, tail(left), "first fork");
  expect_other_cutting(loaded, got_right, tail(right), "second fork");

  if (first.can_truncate()) {
    first.truncate(static_cast<int64_t>(prefix.size()));
  } else {
    first.restore(snapshot);
  }
  EXPECT_EQ(first.length(), 37);
  expect_same_bits(loaded.run(&first, after(right), 1), got_right, "gone back");
  first.restore(snapshot);
  expect_other_cutting(loaded, loaded.run(&first, after(right), 5), tail(right), "restored");
  EXPECT_EQ(snapshot.length(), 37);
  second.truncate(0);
  expect_same_bits(loaded.run(&second, left, 64), loaded.run(left), "truncated to nothing");
}

TEST_P(RecordedModel, RefusesWhatItCannotRunAndKeepsTheState) {
  LoadedModel loaded(path(), GetParam().device, 1);
  ASSERT_TRUE(loaded.ok());
  const std::vector<TokenId> good = {5, 6, 7};
  DecodeState state = loaded.model().make_state();
  (void)loaded.run(&state, good, 3);
  const auto vocab = static_cast<TokenId>(loaded.model().config().vocab_size);
  const std::vector<std::vector<TokenId>> bad = {{}, {-1}, {vocab}, {3, INT32_MAX, 3}};
  for (const std::vector<TokenId>& ids : bad) {
    const SequenceChunk chunk{&state, ids, LogitRows::kLast};
    const auto logits = loaded.model().forward(loaded.context(), {&chunk, 1});
    ASSERT_FALSE(logits);
    EXPECT_EQ(logits.error().code, ErrorCode::kInvalidArgument) << logits.error().message;
    EXPECT_EQ(state.length(), 3);
  }
  const std::vector<TokenId> next = {8};
  DecodeState fresh = loaded.model().make_state();
  (void)loaded.run(&fresh, good, 3);
  expect_same_bits(loaded.run(&state, next, 1), loaded.run(&fresh, next, 1), "after the refusals");
}

// Weights widened to float32 at load stand for the same model.
TEST_P(RecordedModel, Float32WeightsAgree) {
  LoadedModel loaded(path(), GetParam().device, 1, "float32");
  ASSERT_TRUE(loaded.ok());
  const Recording recording = read_recording(GetParam().name);
  for (const WeightEntry& weight : loaded.model().weights()) {
    EXPECT_EQ(weight.resident, DType::kF32) << weight.name;
  }
  for (const RecordedPrompt& prompt : recording.prompts) {
    (void)expect_logits(prompt, loaded.run(prompt.ids), recording.vocab_size, kLogitBound);
  }
}

struct Twin {
  const char* gguf;
  const char* checkpoint;
  float bound;
};

TEST(ModelFiles, AGgufFileGivesTheLogitsOfItsCheckpoint) {
  // The same numbers; only the order of a head's rows and the rounding of rope_freqs differ.
  constexpr float kRoPe = 1e-5F;
  // No frequencies here: only the order of the sums of q.k, and with it the last bits of scores.
  constexpr float kNoPositions = 1e-6F;
  const Twin twins[] = {
      {"gguf_llama3_scaled", "llama3_scaled", kRoPe},
      {"gguf_llama_bias", "llama_bias", kRoPe},
      {"gguf_llama_linear", "llama_linear", kRoPe},
      {"gguf_llama_yarn", "llama_yarn", kRoPe},
      {"gguf_qwen2", "qwen2", kRoPe},
      {"gguf_qwen3", "qwen3", kRoPe},
      {"gguf_nemotron_h", "nemotron_h", kNoPositions},
      {"gguf_nemotron_h_dense", "nemotron_h_dense", kNoPositions},
      {"gguf_nemotron_h_latent", "nemotron_h_latent", kNoPositions},
  };
  for (const auto& [gguf, checkpoint, bound] : twins) {
    LoadedModel ours(model_path(gguf), "cpu", 1);
    LoadedModel theirs(model_path(checkpoint), "cpu", 1);
    ASSERT_TRUE(ours.ok() && theirs.ok());
    const std::vector<TokenId> ids = read_recording(checkpoint).prompts.back().ids;
    const auto vocab = static_cast<size_t>(theirs.model().config().vocab_size);
    EXPECT_LE(largest_difference(ours.run(ids), theirs.run(ids), vocab), bound) << gguf;
  }
}

TEST(ModelFiles, ConfigsOfTransformers4MeanTheSame) {
  int n_checked = 0;
  for (const std::string& name : recorded_names()) {
    const fs::path folder = models_folder() / name;
    if (!fs::exists(folder / "config_4x.json")) {
      continue;
    }
    ++n_checked;
    TemporaryFolder temporary;
    fs::copy_file(folder / "config_4x.json", temporary.path() / "config.json");
    fs::copy_file(folder / "model.safetensors", temporary.path() / "model.safetensors");
    LoadedModel old(temporary.path(), "cpu", 1);
    LoadedModel current(folder, "cpu", 1);
    ASSERT_TRUE(old.ok() && current.ok()) << name;
    const std::vector<TokenId> ids = read_recording(name).prompts.back().ids;
    expect_same_bits(old.run(ids), current.run(ids), name);
  }
  EXPECT_GE(n_checked, 7);
}

// A sharded snapshot of the hub cache: relative links into blobs, found by its id and revision.
TEST(ModelFiles, AHubSnapshotGivesTheBitsOfItsFolder) {
  const std::string commit = "0123456789abcdef0123456789abcdef01234567";
  const fs::path folder = models_folder() / "smollm2_sharded";
  TemporaryFolder temporary;
  const fs::path repo = temporary.path() / "models--tiny--smol.lm2";
  fs::create_directories(repo / "blobs");
  fs::create_directories(repo / "refs");
  fs::create_directories(repo / "snapshots" / commit);
  { std::ofstream(repo / "refs/main") << commit; }
  int n_blobs = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (file == "golden.json" || file == "logits.npy") {
      continue;
    }
    const std::string blob = "b" + std::to_string(n_blobs++);
    fs::copy_file(entry.path(), repo / "blobs" / blob);
    fs::create_symlink(fs::path("../../blobs") / blob, repo / "snapshots" / commit / file);
  }
  for (const std::string& revision : {std::string(), std::string("main"), commit}) {
    ResolveOptions options;
    options.revision = revision;
    options.cache_dir = temporary.path();
    const auto source = resolve_model("tiny/smol.lm2", options);
    ASSERT_TRUE(source) << source.error().message;
    EXPECT_EQ(source->commit, commit);
    LoadedModel cached(*source, "cpu", 1);
    LoadedModel plain(folder, "cpu", 1);
    ASSERT_TRUE(cached.ok() && plain.ok());
    const std::vector<TokenId> ids = read_recording("smollm2_sharded").prompts[2].ids;
    expect_same_bits(cached.run(ids), plain.run(ids), "revision '" + revision + "'");
  }
}

}  // namespace
}  // namespace logitlab::testing
