#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "state/decode_state.h"

namespace logitlab {
namespace {

constexpr KvShape kShape{.n_layers = 2, .n_kv_heads = 2, .head_dim = 4};

// A value that tells layer, position, head and element apart.
float marker(int64_t layer, int64_t position, int64_t element, float salt) {
  return salt + static_cast<float>(layer * 10000 + position * 10 + element);
}

void append(KvCache* cache, int64_t n, float salt) {
  ASSERT_TRUE(cache->reserve(n));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t position = cache->length() + i;
    for (int64_t layer = 0; layer < kShape.n_layers; ++layer) {
      std::vector<float> key(8);
      std::vector<float> value(8);
      for (int64_t e = 0; e < 8; ++e) {
        key[static_cast<size_t>(e)] = marker(layer, position, e, salt);
        value[static_cast<size_t>(e)] = -marker(layer, position, e, salt);
      }
      cache->store(layer, position, key.data(), value.data());
    }
  }
  cache->advance(n);
}

void expect_marked(const KvCache& cache, int64_t position, float salt) {
  for (int64_t layer = 0; layer < kShape.n_layers; ++layer) {
    const KvView& view = cache.view(layer);
    const int64_t page = position / view.page_positions;
    for (int64_t head = 0; head < kShape.n_kv_heads; ++head) {
      for (int64_t e = 0; e < kShape.head_dim; ++e) {
        const int64_t at =
            (head * view.page_positions + position % view.page_positions) * kShape.head_dim + e;
        const float want = marker(layer, position, head * kShape.head_dim + e, salt);
        ASSERT_EQ(view.key_pages[page][at], want) << layer << ' ' << position;
        ASSERT_EQ(view.value_pages[page][at], -want);
      }
    }
  }
}

TEST(KvCache, HoldsWhatWasStoredAcrossPages) {
  KvCache cache(kShape);
  append(&cache, 5, 0);
  append(&cache, 70, 0);
  EXPECT_EQ(cache.length(), 75);
  for (int64_t p = 0; p < 75; ++p) {
    expect_marked(cache, p, 0);
  }
  EXPECT_EQ(cache.bytes(), KvCache::bytes_for(kShape, 75));
  EXPECT_EQ(KvCache::bytes_for(kShape, 1), 2U * 2 * 2 * 32 * 4 * 4);
}

TEST(KvCache, ForksShareUntilTheyWrite) {
  KvCache cache(kShape);
  append(&cache, 40, 0);
  KvCache fork = cache.fork();
  EXPECT_EQ(fork.view(0).key_pages[0], cache.view(0).key_pages[0]);
  append(&fork, 10, 0.5F);
  append(&cache, 10, 0.25F);
  EXPECT_EQ(fork.view(0).key_pages[0], cache.view(0).key_pages[0]) << "a full page stays shared";
  for (int64_t p = 0; p < 40; ++p) {
    expect_marked(cache, p, 0);
    expect_marked(fork, p, 0);
  }
  for (int64_t p = 40; p < 50; ++p) {
    expect_marked(cache, p, 0.25F);
    expect_marked(fork, p, 0.5F);
  }
}

TEST(KvCache, TruncateThenAppendDoesNotTouchAFork) {
  KvCache cache(kShape);
  append(&cache, 50, 0);
  const KvCache fork = cache.fork();
  cache.truncate(10);
  append(&cache, 30, 0.5F);
  for (int64_t p = 10; p < 40; ++p) {
    expect_marked(cache, p, 0.5F);
  }
  for (int64_t p = 0; p < 50; ++p) {
    expect_marked(fork, p, 0);
  }
}

TEST(KvCache, RefusesWhatWasNotReserved) {
  KvCache cache(kShape);
  ASSERT_TRUE(cache.reserve(1));
  EXPECT_DEATH(cache.advance(33), "were not reserved");
  EXPECT_DEATH(cache.truncate(1), "1 of 0");
}

TEST(DecodeState, NumbersAttentionLayersAmongTheOthers) {
  DecodeState state({LayerStateKind::kNone, LayerStateKind::kKv, LayerStateKind::kKv}, kShape);
  EXPECT_EQ(state.kv_layer(2), 1);
  EXPECT_DEATH((void)state.kv_layer(0), "keeps no keys");
  ASSERT_TRUE(state.reserve(3));
  state.advance(3);
  DecodeState fork = state.fork();
  state.truncate(1);
  EXPECT_EQ(fork.length(), 3);
  EXPECT_EQ(state.length(), 1);
  EXPECT_EQ(state.kv().length(), 1);
}

// ---- Mamba layers ------------------------------------------------------------------------------

constexpr MambaStateShape kMamba{
    .n_layers = 2,
    .mixer = {.n_heads = 4, .head_dim = 3, .state_size = 5, .n_groups = 2, .conv_kernel = 4}};

// Every number of the state, layer by layer.
std::vector<float> content(MambaState* state) {
  std::vector<float> values;
  for (int64_t layer = 0; layer < kMamba.n_layers; ++layer) {
    values.insert(values.end(), state->conv(layer), state->conv(layer) + kMamba.conv_floats());
    values.insert(values.end(), state->ssm(layer), state->ssm(layer) + kMamba.ssm_floats());
  }
  return values;
}

void fill(MambaState* state, float salt) {
  for (int64_t layer = 0; layer < kMamba.n_layers; ++layer) {
    for (int64_t i = 0; i < kMamba.conv_floats(); ++i) {
      state->conv(layer)[i] = marker(layer, i, 0, salt);
    }
    for (int64_t i = 0; i < kMamba.ssm_floats(); ++i) {
      state->ssm(layer)[i] = -marker(layer, i, 1, salt);
    }
  }
}

TEST(MambaState, TakesTheSameMemoryWhateverTheLength) {
  // Per layer 3 older inputs of 12 + 2 * 2 * 5 channels, and 12 x 5 sums.
  EXPECT_EQ(MambaState::bytes_for(kMamba), 2U * (3 * 32 + 60) * sizeof(float));
  EXPECT_EQ(MambaState::bytes_for({}), 0U);
  MambaState state(kMamba);
  EXPECT_EQ(state.bytes(), 0U) << "no memory before it is asked for";
  ASSERT_TRUE(state.make_writable());
  EXPECT_EQ(state.bytes(), MambaState::bytes_for(kMamba));
  for (const float value : content(&state)) {
    ASSERT_EQ(value, 0.0F);
  }
  fill(&state, 0.5F);
  const std::vector<float> before = content(&state);
  ASSERT_TRUE(state.make_writable()) << "already its own";
  EXPECT_EQ(content(&state), before);
  state.reset();
  EXPECT_EQ(state.bytes(), 0U);
  ASSERT_TRUE(state.make_writable());
  EXPECT_EQ(content(&state), std::vector<float>(before.size(), 0.0F));
}

TEST(MambaState, ForksShareUntilOneIsWritten) {
  MambaState state(kMamba);
  ASSERT_TRUE(state.make_writable());
  fill(&state, 0);
  const std::vector<float> before = content(&state);
  const float* const memory = state.ssm(0);
  MambaState fork = state.fork();
  EXPECT_EQ(fork.bytes(), state.bytes());
  ASSERT_TRUE(fork.make_writable());
  EXPECT_NE(fork.ssm(0), memory) << "a copy of its own";
  ASSERT_TRUE(state.make_writable());
  EXPECT_EQ(state.ssm(0), memory) << "the only holder keeps the memory";
  fill(&fork, 0.25F);
  EXPECT_EQ(content(&state), before);
  EXPECT_NE(content(&fork), before);
}

TEST(MambaState, SaysHowMuchMemoryIsNotThere) {
  MambaStateShape shape = kMamba;
  shape.mixer.state_size = int64_t{1} << 50;
  shape.mixer.n_groups = 1;
  MambaState state(shape);
  const Status status = state.make_writable();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(status.error().message.find(fmt::format("{} bytes", MambaState::bytes_for(shape))),
            std::string::npos)
      << status.error().message;
  EXPECT_EQ(state.bytes(), 0U);
}

DecodeState hybrid_state() {
  return DecodeState({LayerStateKind::kMamba, LayerStateKind::kNone, LayerStateKind::kKv,
                      LayerStateKind::kMamba, LayerStateKind::kKv},
                     kShape, kMamba);
}

TEST(DecodeState, NumbersTheLayersOfEachKind) {
  const DecodeState state = hybrid_state();
  EXPECT_EQ(state.mamba_layer(0), 0);
  EXPECT_EQ(state.mamba_layer(3), 1);
  EXPECT_EQ(state.kv_layer(2), 0);
  EXPECT_EQ(state.kv_layer(4), 1);
  EXPECT_DEATH((void)state.mamba_layer(2), "layer 2 keeps no SSM state");
  EXPECT_DEATH((void)state.kv_layer(1), "layer 1 keeps no keys");
  EXPECT_DEATH(DecodeState({LayerStateKind::kMamba}, {}, kMamba), "1 Mamba layers, shape has 2");
}

TEST(DecodeState, ARunningSummaryGoesBackByItsSnapshotsAlone) {
  DecodeState state = hybrid_state();
  EXPECT_FALSE(state.can_truncate());
  ASSERT_TRUE(state.reserve(2));
  fill(&state.mamba(), 0);
  state.advance(2);
  const std::vector<float> before = content(&state.mamba());
  EXPECT_EQ(state.bytes(), KvCache::bytes_for(kShape, 2) + MambaState::bytes_for(kMamba));
  EXPECT_DEATH(state.truncate(1), "cannot go back from 2 to 1");
  state.truncate(2);
  EXPECT_EQ(state.length(), 2);
  const DecodeState snapshot = state.fork();
  ASSERT_TRUE(state.reserve(1));
  fill(&state.mamba(), 0.5F);
  state.advance(1);
  state.restore(snapshot);
  EXPECT_EQ(state.length(), 2);
  ASSERT_TRUE(state.reserve(1));
  EXPECT_EQ(content(&state.mamba()), before);
  state.restore(snapshot);
  EXPECT_EQ(state.length(), 2) << "a snapshot can be used again";
  state.truncate(0);
  EXPECT_EQ(state.length(), 0);
  EXPECT_EQ(state.mamba().bytes(), 0U);
}

}  // namespace
}  // namespace logitlab
