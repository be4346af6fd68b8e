#include "generate/reusable_state.h"

#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

using Ids = std::vector<TokenId>;

// One attention layer and one Mamba layer, the smallest that there are.
DecodeState make_state(bool is_hybrid) {
  const KvShape kv{.n_layers = 1, .n_kv_heads = 1, .head_dim = 4};
  if (!is_hybrid) {
    return DecodeState({LayerStateKind::kKv}, kv);
  }
  MambaStateShape mamba;
  mamba.n_layers = 1;
  mamba.mixer = {.n_heads = 1, .head_dim = 2, .state_size = 2, .n_groups = 1, .conv_kernel = 2};
  return DecodeState({LayerStateKind::kKv, LayerStateKind::kMamba}, kv, mamba);
}

// A model whose state is the sum of what it has read: it tells every sequence of ids from others.
void read(DecodeState* state, const Ids& ids, size_t from) {
  for (size_t i = from; i < ids.size(); ++i) {
    ASSERT_TRUE(state->reserve(1));
    const std::vector<float> row(4, static_cast<float>(ids[i]));
    state->kv().store(0, state->length(), row.data(), row.data());
    if (!state->can_truncate()) {
      float* sum = state->mamba().ssm(0);
      *sum = 3 * *sum + static_cast<float>(ids[i]);
    }
    state->advance(1);
  }
}

float sum_of(const DecodeState& state) {
  DecodeState copy = state.fork();
  EXPECT_TRUE(copy.reserve(1));
  return *copy.mamba().ssm(0);
}

float sum_of(const Ids& ids) {
  float sum = 0;
  for (const TokenId id : ids) {
    sum = 3 * sum + static_cast<float>(id);
  }
  return sum;
}

// A turn: the prompt, a snapshot after its first `mark` ids (0: none), then the answer.
int64_t turn(ReusableState* reusable, const Ids& prompt, size_t mark, const Ids& answer = {}) {
  const int64_t reused = reusable->take_back(prompt);
  auto at = static_cast<size_t>(reused);
  std::optional<DecodeState> at_mark;
  if (mark > at) {
    read(&reusable->state(), {prompt.begin(), prompt.begin() + static_cast<int64_t>(mark)}, at);
    at_mark = reusable->state().fork();
    at = mark;
  }
  Ids all = prompt;
  all.insert(all.end(), answer.begin(), answer.end());
  read(&reusable->state(), all, at);
  reusable->hold(all);
  if (at_mark) {
    reusable->keep(std::move(*at_mark));
  }
  return reused;
}

TEST(ReusableState, AttentionAloneKeepsEveryCommonStart) {
  ReusableState reusable(make_state(false));
  EXPECT_FALSE(reusable.wants_snapshots());
  EXPECT_EQ(turn(&reusable, {1, 2, 3}, 0, {4, 5}), 0);
  EXPECT_EQ(turn(&reusable, {1, 2, 3, 4, 9}, 0), 4);
  EXPECT_EQ(turn(&reusable, {1, 2}, 0), 1) << "the last id goes through the model";
  EXPECT_EQ(reusable.n_snapshots(), 0U);
}

TEST(ReusableState, GoesOnFromItsEndWhereTheAnswerStays) {
  ReusableState reusable(make_state(true));
  EXPECT_TRUE(reusable.wants_snapshots());
  EXPECT_EQ(turn(&reusable, {1, 2, 3}, 2, {4, 5}), 0);
  EXPECT_EQ(turn(&reusable, {1, 2, 3, 4, 5, 6}, 0), 5);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids{1, 2, 3, 4, 5, 6}));
}

TEST(ReusableState, RestoresTheLongestSnapshotThatAgrees) {
  ReusableState reusable(make_state(true));
  turn(&reusable, {1, 2, 3}, 2, {4, 5});
  // The answer comes back in another form: what was before the mark is still true.
  EXPECT_EQ(turn(&reusable, {1, 2, 7, 8, 9}, 4, {5}), 2);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids{1, 2, 7, 8, 9, 5}));
  EXPECT_EQ(turn(&reusable, {1, 2, 7, 8, 6, 6}, 0), 4);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids{1, 2, 7, 8, 6, 6}));
  // Nothing in common: from the start, and what was kept is gone.
  EXPECT_EQ(turn(&reusable, {5, 1, 2, 7}, 0), 0);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids{5, 1, 2, 7}));
  EXPECT_EQ(reusable.n_snapshots(), 0U);
}

// A message that is withdrawn leaves the state as it was before it.
TEST(ReusableState, ReturnsToTheEndOfAnEarlierAnswer) {
  ReusableState reusable(make_state(true));
  turn(&reusable, {1, 2}, 0, {3, 4});
  EXPECT_EQ(turn(&reusable, {1, 2, 3, 4, 5}, 0), 4);
  EXPECT_EQ(turn(&reusable, {1, 2, 3, 4, 6}, 0), 4);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids{1, 2, 3, 4, 6}));
}

TEST(ReusableState, TheSamePromptAgainNeedsASnapshotBeforeItsEnd) {
  ReusableState reusable(make_state(true));
  turn(&reusable, {1, 2, 3}, 2);
  EXPECT_EQ(turn(&reusable, {1, 2, 3}, 2), 2);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids{1, 2, 3}));
}

TEST(ReusableState, KeepsFewSnapshotsAndTheLongest) {
  ReusableState reusable(make_state(true));
  Ids prompt = {1};
  for (int i = 0; i < 20; ++i) {
    prompt.insert(prompt.end(), {2, 3, static_cast<TokenId>(i)});
    turn(&reusable, prompt, prompt.size() - 1);
    EXPECT_LE(reusable.n_snapshots(), ReusableState::kMostSnapshots);
  }
  EXPECT_EQ(reusable.n_snapshots(), ReusableState::kMostSnapshots);
  prompt.back() = 99;
  EXPECT_EQ(reusable.take_back(prompt), static_cast<int64_t>(prompt.size()) - 1);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids(prompt.begin(), prompt.end() - 1)));
}

TEST(ReusableState, ClearForgets) {
  ReusableState reusable(make_state(true));
  turn(&reusable, {1, 2, 3}, 2);
  reusable.clear();
  EXPECT_EQ(reusable.n_snapshots(), 0U);
  EXPECT_EQ(turn(&reusable, {1, 2, 3}, 0), 0);
  EXPECT_EQ(sum_of(reusable.state()), sum_of(Ids{1, 2, 3}));
}

}  // namespace
}  // namespace logitlab
