// Numbers of pages and who refers to them: the bookkeeping of keys and values that forks share. No
// CUDA in here; the pages themselves lie on the device.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace logitlab::cuda {

// Pages 0 to n - 1, each with a count of references. One-thread.
class PagePool {
 public:
  explicit PagePool(int n_pages);

  [[nodiscard]] int n_pages() const { return static_cast<int>(references_.size()); }
  [[nodiscard]] int n_free() const { return static_cast<int>(free_.size()); }
  // A page with one reference, the lowest number first after a fresh start; -1: none is free.
  [[nodiscard]] int take();
  void share(int page);
  // The last reference frees the page.
  void drop(int page);
  [[nodiscard]] bool is_shared(int page) const;

 private:
  std::vector<int> references_;
  std::vector<int> free_;  // the next one last
};

// The pages of one sequence. Position p is in pages()[p / page_positions]. One-thread; the pool
// outlives it.
class PageList {
 public:
  PageList(PagePool* pool, int page_positions) : pool_(pool), page_positions_(page_positions) {}
  ~PageList() { clear(); }
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  // What reserve() asks to be copied on the device, old to new, before anything is written.
  struct Copy {
    int from = 0;
    int to = 0;
  };
  // Room for positions [length, length + n) that no other list refers to. `copies` gets the pages
  // whose content has to move (those that hold positions before `length`); `first_changed` the
  // first entry of pages() that differs from before, or their number. False: the pool has too few,
  // and nothing has changed; `missing` is how many.
  [[nodiscard]] bool reserve(int64_t length, int64_t n, std::vector<Copy>* copies,
                             int64_t* first_changed, int64_t* missing);
  // Drops the pages behind the first `length` positions.
  void truncate(int64_t length);
  // Refers to the same pages as `other`, of the same pool.
  void share(const PageList& other);
  void clear() { truncate(0); }

  [[nodiscard]] std::span<const int> pages() const { return pages_; }
  [[nodiscard]] int64_t pages_for(int64_t positions) const {
    return (positions + page_positions_ - 1) / page_positions_;
  }

 private:
  PagePool* pool_;
  int page_positions_;
  std::vector<int> pages_;
};

}  // namespace logitlab::cuda
