// Keys and values of one sequence, in pages that forks share.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"

namespace logitlab {

struct KvShape {
  int64_t n_layers = 0;  // attention layers only, numbered from 0
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
};

// Float32 keys (after RoPE) and values. A page holds kPagePositions positions of all layers; a fork
// shares pages and copies one only when it writes to it. One-thread. Move-only.
class KvCache {
 public:
  static constexpr int64_t kPagePositions = 32;

  explicit KvCache(const KvShape& shape);
  KvCache(KvCache&&) = default;
  KvCache& operator=(KvCache&&) = default;
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Positions that every layer holds, 0 at the start.
  [[nodiscard]] int64_t length() const { return length_; }

  // Makes room, writable and not shared, for positions [length, length + n). kResourceExhausted
  // when memory is not to be had; the cache is then as before.
  [[nodiscard]] Status reserve(int64_t n);
  // Writes one position of one layer: key, value [n_kv_heads, head_dim]. The position has been
  // reserved.
  void store(int64_t layer, int64_t position, const float* key, const float* value);
  // Declares n reserved positions as held.
  void advance(int64_t n);
  // Forgets the positions [length, ...). 0 <= length <= length().
  void truncate(int64_t length);

  // Valid until the next reserve or truncate of this cache.
  [[nodiscard]] const KvView& view(int64_t layer) const;

  // A second cache with the same content; shares all pages. O(pages), no copy of keys or values.
  [[nodiscard]] KvCache fork() const;

  // Bytes of the pages that this cache refers to (shared ones counted in full).
  [[nodiscard]] size_t bytes() const;
  // Bytes that n positions take, rounded up to pages.
  [[nodiscard]] static size_t bytes_for(const KvShape& shape, int64_t n_positions);

 private:
  struct Page;
  void rebuild_views();

  KvShape shape_;
  int64_t length_ = 0;
  std::vector<std::shared_ptr<Page>> pages_;
  std::vector<std::vector<const float*>> key_pages_;    // [layer][page]
  std::vector<std::vector<const float*>> value_pages_;  // [layer][page]
  std::vector<KvView> views_;
};

}  // namespace logitlab
