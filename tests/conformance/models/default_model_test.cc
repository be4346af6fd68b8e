// The default model against the recordings of transformers, which read the same GGUF file.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "formats/model_source.h"
#include "recordings.h"

namespace logitlab::testing {
namespace {

class DefaultModel : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = default_model_path();
    if (!std::filesystem::exists(path_)) {
      GTEST_SKIP() << path_ << ": no such file; './lab test' takes the model out of its package";
    }
    recording_ = read_recording("smollm2_135m_instruct");
    ASSERT_EQ(path_.filename(), recording_.file);
    ASSERT_EQ(std::filesystem::file_size(path_), static_cast<size_t>(recording_.file_bytes))
        << path_ << ": not the file that was recorded";
  }

  std::filesystem::path path_;
  Recording recording_;
};

TEST_F(DefaultModel, LogitsAgreeAtEveryPosition) {
  LoadedModel loaded(path_, "cpu", 2);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded.model().parameter_count(), 134515008);
  float worst = 0;
  for (const RecordedPrompt& prompt : recording_.prompts) {
    const std::vector<float> logits = loaded.run(prompt.ids);
    worst = std::max(worst, expect_logits(prompt, logits, recording_.vocab_size, kLogitBound));
    ASSERT_EQ(prompt.top.size(), prompt.ids.size());
    const auto vocab = static_cast<size_t>(recording_.vocab_size);
    for (size_t position = 0; position < prompt.ids.size(); ++position) {
      const auto row = std::span<const float>(logits).subspan(position * vocab, vocab);
      // The recorded best five, up to what the bound can exchange.
      const float slack = 2 * kLogitBound * prompt.values[position * (1 + prompt.columns.size())];
      std::vector<float> sorted(row.begin(), row.end());
      std::partial_sort(sorted.begin(), sorted.begin() + 5, sorted.end(), std::greater<>());
      for (size_t rank = 0; rank < 5; ++rank) {
        const float got = row[static_cast<size_t>(prompt.top[position][rank])];
        EXPECT_NEAR(got, sorted[rank], slack) << "position " << position << ", rank " << rank;
      }
    }
  }
  RecordProperty("largest_relative_difference", std::to_string(worst));
}

TEST_F(DefaultModel, ReferenceBackendAgreesToo) {
  LoadedModel loaded(path_, "reference", 2);
  ASSERT_TRUE(loaded.ok());
  const RecordedPrompt& prompt = recording_.prompts.front();
  (void)expect_logits(prompt, loaded.run(prompt.ids), recording_.vocab_size, kLogitBound);
}

TEST_F(DefaultModel, GreedyContinuationsAreIdentical) {
  LoadedModel loaded(path_, "cpu", 2);
  ASSERT_TRUE(loaded.ok());
  expect_greedy(&loaded, recording_.greedy);
}

TEST_F(DefaultModel, PiecesAndThreadsDoNotChangeABit) {
  LoadedModel one(path_, "cpu", 1);
  LoadedModel two(path_, "cpu", 2);
  ASSERT_TRUE(one.ok() && two.ok());
  const std::vector<TokenId>& ids = recording_.prompts[1].ids;
  const std::vector<float> whole = one.run(ids);
  expect_same_bits(two.run(ids), whole, "two threads");
  for (const int64_t piece : {1, 7, 16}) {
    DecodeState state = two.model().make_state();
    expect_same_bits(two.run(&state, ids, piece), whole, "pieces of " + std::to_string(piece));
  }
}

}  // namespace
}  // namespace logitlab::testing
