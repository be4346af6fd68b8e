#include "backend/cuda/page_pool.h"

#include <vector>

#include <gtest/gtest.h>

namespace logitlab::cuda {
namespace {

struct Reserved {
  bool is_done = false;
  std::vector<PageList::Copy> copies;
  int64_t first_changed = 0;
  int64_t missing = 0;
};

Reserved reserve(PageList* list, int64_t length, int64_t n) {
  Reserved result;
  result.is_done = list->reserve(length, n, &result.copies, &result.first_changed, &result.missing);
  return result;
}

std::vector<int> pages(const PageList& list) {
  return {list.pages().begin(), list.pages().end()};
}

TEST(PagePool, GivesTheLowestFirstAndTakesBackWhatNobodyRefersTo) {
  PagePool pool(3);
  EXPECT_EQ(pool.take(), 0);
  EXPECT_EQ(pool.take(), 1);
  pool.share(1);
  EXPECT_TRUE(pool.is_shared(1));
  pool.drop(1);
  EXPECT_FALSE(pool.is_shared(1));
  EXPECT_EQ(pool.n_free(), 1);
  pool.drop(1);
  EXPECT_EQ(pool.n_free(), 2);
  EXPECT_EQ(pool.take(), 1);
  EXPECT_EQ(pool.take(), 2);
  EXPECT_EQ(pool.take(), -1);
  EXPECT_DEATH(PagePool(2).drop(1), "page 1 is free");
}

TEST(PageList, GrowsByWholePages) {
  PagePool pool(8);
  PageList list(&pool, 64);
  Reserved first = reserve(&list, 0, 1);
  EXPECT_TRUE(first.is_done);
  EXPECT_EQ(first.first_changed, 0);
  EXPECT_EQ(pages(list), std::vector<int>({0}));
  Reserved same = reserve(&list, 1, 63);
  EXPECT_TRUE(same.is_done);
  EXPECT_EQ(same.first_changed, 1) << "nothing to tell the device";
  Reserved more = reserve(&list, 64, 65);
  EXPECT_EQ(more.first_changed, 1);
  EXPECT_EQ(pages(list), std::vector<int>({0, 1, 2}));
  EXPECT_TRUE(more.copies.empty());
  list.truncate(64);
  EXPECT_EQ(pages(list), std::vector<int>({0}));
  EXPECT_EQ(pool.n_free(), 7);
  list.clear();
  EXPECT_EQ(pool.n_free(), 8);
}

TEST(PageList, AForkCopiesTheLastPartialPageAlone) {
  PagePool pool(8);
  PageList list(&pool, 64);
  ASSERT_TRUE(reserve(&list, 0, 100).is_done);
  PageList fork(&pool, 64);
  fork.share(list);
  EXPECT_EQ(pool.n_free(), 6);
  const Reserved by_fork = reserve(&fork, 100, 1);
  ASSERT_EQ(by_fork.copies.size(), 1U);
  EXPECT_EQ(by_fork.copies[0].from, 1);
  EXPECT_EQ(by_fork.copies[0].to, 2);
  EXPECT_EQ(by_fork.first_changed, 1);
  EXPECT_EQ(pages(fork), std::vector<int>({0, 2}));
  EXPECT_TRUE(reserve(&list, 100, 1).copies.empty()) << "the only holder keeps its page";
  EXPECT_EQ(pages(list), std::vector<int>({0, 1}));
}

TEST(PageList, AForkAtAPageBorderCopiesNothing) {
  PagePool pool(8);
  PageList list(&pool, 64);
  ASSERT_TRUE(reserve(&list, 0, 128).is_done);
  PageList fork(&pool, 64);
  // Forked after 64 positions with room for 128: the second page has no content yet.
  fork.share(list);
  const Reserved by_fork = reserve(&fork, 64, 10);
  EXPECT_TRUE(by_fork.copies.empty());
  EXPECT_EQ(pages(fork), std::vector<int>({0, 2}));
}

TEST(PageList, ATooSmallPoolChangesNothing) {
  PagePool pool(3);
  PageList list(&pool, 64);
  ASSERT_TRUE(reserve(&list, 0, 100).is_done);
  PageList fork(&pool, 64);
  fork.share(list);
  const Reserved refused = reserve(&fork, 100, 100);
  EXPECT_FALSE(refused.is_done);
  EXPECT_EQ(refused.missing, 2) << "its own second page, and two more";
  EXPECT_EQ(pages(fork), pages(list));
  EXPECT_TRUE(refused.copies.empty());
  EXPECT_EQ(pool.n_free(), 1);
  EXPECT_TRUE(reserve(&fork, 100, 1).is_done);
  EXPECT_EQ(pool.n_free(), 0);
}

TEST(PageList, TruncateLeavesTheForksPages) {
  PagePool pool(4);
  PageList list(&pool, 64);
  ASSERT_TRUE(reserve(&list, 0, 128).is_done);
  PageList fork(&pool, 64);
  fork.share(list);
  list.truncate(10);
  EXPECT_EQ(pool.n_free(), 2) << "the fork holds both";
  const Reserved again = reserve(&list, 10, 1);
  ASSERT_EQ(again.copies.size(), 1U);
  EXPECT_EQ(pages(fork), std::vector<int>({0, 1}));
  EXPECT_EQ(pages(list), std::vector<int>({2}));
}

}  // namespace
}  // namespace logitlab::cuda
