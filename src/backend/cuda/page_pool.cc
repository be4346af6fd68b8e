#include "backend/cuda/page_pool.h"

#include <algorithm>

#include "base/check.h"

namespace logitlab::cuda {

PagePool::PagePool(int n_pages) : references_(static_cast<size_t>(n_pages), 0) {
  free_.reserve(references_.size());
  for (int page = n_pages - 1; page >= 0; --page) {
    free_.push_back(page);
  }
}

int PagePool::take() {
  if (free_.empty()) {
    return -1;
  }
  const int page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void PagePool::share(int page) {
  int& count = references_.at(static_cast<size_t>(page));
  CHECK(count > 0) << "page " << page << " is free";
  ++count;
}

void PagePool::drop(int page) {
  int& count = references_.at(static_cast<size_t>(page));
  CHECK(count > 0) << "page " << page << " is free";
  if (--count == 0) {
    free_.push_back(page);
  }
}

bool PagePool::is_shared(int page) const {
  return references_.at(static_cast<size_t>(page)) > 1;
}

bool PageList::reserve(int64_t length, int64_t n, std::vector<Copy>* copies, int64_t* first_changed,
                       int64_t* missing) {
  CHECK(length >= 0 && n >= 0 && pages_for(length) <= static_cast<int64_t>(pages_.size()))
      << length << " positions, " << n << " more, " << pages_.size() << " pages";
  const auto wanted = static_cast<size_t>(pages_for(length + n));
  const auto first_written = static_cast<size_t>(length / page_positions_);
  int64_t needed = static_cast<int64_t>(wanted - std::min(wanted, pages_.size()));
  // Only the page that holds position `length` has content that counts; those behind it are shared
  // when a fork was made between a reserve and its use.
  for (size_t i = first_written; i < std::min(wanted, pages_.size()); ++i) {
    needed += pool_->is_shared(pages_[i]) ? 1 : 0;
  }
  *first_changed = static_cast<int64_t>(pages_.size());
  if (needed > pool_->n_free()) {
    *missing = needed - pool_->n_free();
    return false;
  }
  for (size_t i = first_written; i < wanted; ++i) {
    if (i < pages_.size() && !pool_->is_shared(pages_[i])) {
      continue;
    }
    const int page = pool_->take();
    *first_changed = std::min(*first_changed, static_cast<int64_t>(i));
    if (i == pages_.size()) {
      pages_.push_back(page);
      continue;
    }
    if (static_cast<int64_t>(i) * page_positions_ < length) {
      copies->push_back({pages_[i], page});
    }
    pool_->drop(pages_[i]);
    pages_[i] = page;
  }
  return true;
}

void PageList::truncate(int64_t length) {
  const auto kept = static_cast<size_t>(pages_for(length));
  while (pages_.size() > kept) {
    pool_->drop(pages_.back());
    pages_.pop_back();
  }
}

void PageList::share(const PageList& other) {
  CHECK(pool_ == other.pool_ && page_positions_ == other.page_positions_);
  for (const int page : other.pages_) {
    pool_->share(page);
  }
  clear();
  pages_ = other.pages_;
}

}  // namespace logitlab::cuda
