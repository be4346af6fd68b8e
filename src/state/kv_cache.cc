#include "state/kv_cache.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "tensor/tensor.h"

namespace logitlab {

// [layer][key, value][n_kv_heads][kPagePositions][head_dim] floats.
struct KvCache::Page {
  Buffer memory;
};

namespace {

size_t plane_floats(const KvShape& shape) {
  return static_cast<size_t>(shape.n_kv_heads * KvCache::kPagePositions * shape.head_dim);
}

size_t page_bytes(const KvShape& shape) {
  return static_cast<size_t>(shape.n_layers) * 2 * plane_floats(shape) * sizeof(float);
}

int64_t pages_for(int64_t n_positions) {
  return (n_positions + KvCache::kPagePositions - 1) / KvCache::kPagePositions;
}

}  // namespace

KvCache::KvCache(const KvShape& shape) : shape_(shape) {
  rebuild_views();
}

size_t KvCache::bytes_for(const KvShape& shape, int64_t n_positions) {
  return static_cast<size_t>(pages_for(n_positions)) * page_bytes(shape);
}

size_t KvCache::bytes() const {
  return pages_.size() * page_bytes(shape_);
}

Status KvCache::reserve(int64_t n) {
  CHECK(n >= 0) << n;
  const size_t n_pages = static_cast<size_t>(pages_for(length_ + n));
  std::vector<std::shared_ptr<Page>> pages = pages_;
  // Writing starts in the page that holds position `length_`; later pages are unused and only
  // shared when a fork was made after a reserve.
  for (size_t p = static_cast<size_t>(length_ / kPagePositions); p < n_pages; ++p) {
    const bool exists = p < pages.size();
    // Two references are ours: pages_ and the copy above.
    if (exists && pages[p].use_count() <= 2) {
      continue;
    }
    auto memory = Buffer::allocate(page_bytes(shape_));
    if (!memory) {
      return fail(ErrorCode::kResourceExhausted,
                  "KV cache: no memory for page {} of {} ({} bytes each, {} positions)", p + 1,
                  n_pages, page_bytes(shape_), kPagePositions);
    }
    auto page = std::make_shared<Page>(Page{std::move(*memory)});
    if (exists) {
      std::memcpy(page->memory.data(), pages[p]->memory.data(), page_bytes(shape_));
      pages[p] = std::move(page);
    } else {
      pages.push_back(std::move(page));
    }
  }
  pages_ = std::move(pages);
  rebuild_views();
  return {};
}

void KvCache::store(int64_t layer, int64_t position, const float* key, const float* value) {
  const auto page = static_cast<size_t>(position / kPagePositions);
  DCHECK(layer >= 0 && layer < shape_.n_layers && page < pages_.size());
  const size_t d = static_cast<size_t>(shape_.head_dim);
  const size_t plane = plane_floats(shape_);
  auto* keys = reinterpret_cast<float*>(pages_[page]->memory.data()) +
               static_cast<size_t>(layer) * 2 * plane;
  const size_t offset = static_cast<size_t>(position % kPagePositions) * d;
  for (int64_t head = 0; head < shape_.n_kv_heads; ++head) {
    const size_t at = static_cast<size_t>(head * kPagePositions) * d + offset;
    const size_t from = static_cast<size_t>(head) * d;
    std::memcpy(keys + at, key + from, d * sizeof(float));
    std::memcpy(keys + plane + at, value + from, d * sizeof(float));
  }
}

void KvCache::advance(int64_t n) {
  CHECK(n >= 0 && pages_for(length_ + n) <= static_cast<int64_t>(pages_.size()))
      << n << " positions after " << length_ << " were not reserved";
  length_ += n;
}

void KvCache::truncate(int64_t length) {
  CHECK(length >= 0 && length <= length_) << length << " of " << length_;
  length_ = length;
  pages_.resize(static_cast<size_t>(pages_for(length)));
  rebuild_views();
}

const KvView& KvCache::view(int64_t layer) const {
  DCHECK(layer >= 0 && layer < shape_.n_layers);
  return views_[static_cast<size_t>(layer)];
}

KvCache KvCache::fork() const {
  KvCache copy(shape_);
  copy.length_ = length_;
  copy.pages_ = pages_;
  copy.rebuild_views();
  return copy;
}

void KvCache::rebuild_views() {
  const auto n_layers = static_cast<size_t>(shape_.n_layers);
  key_pages_.resize(n_layers);
  value_pages_.resize(n_layers);
  views_.resize(n_layers);
  const size_t plane = plane_floats(shape_);
  for (size_t layer = 0; layer < n_layers; ++layer) {
    key_pages_[layer].resize(pages_.size());
    value_pages_[layer].resize(pages_.size());
    for (size_t p = 0; p < pages_.size(); ++p) {
      const auto* keys =
          reinterpret_cast<const float*>(pages_[p]->memory.data()) + layer * 2 * plane;
      key_pages_[layer][p] = keys;
      value_pages_[layer][p] = keys + plane;
    }
    views_[layer] = {key_pages_[layer].data(), value_pages_[layer].data(), kPagePositions};
  }
}

}  // namespace logitlab
