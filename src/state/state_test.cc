#include <vector>

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

}  // namespace
}  // namespace logitlab
