// Replaces operator new of the test binary, so that tests can see what a file made us ask for.
#include <atomic>
#include <cstdlib>
#include <new>

#include "formats/test_bytes.h"

namespace {

std::atomic<size_t> g_largest{0};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

void* watched_allocation(size_t bytes) {
  size_t seen = g_largest.load();
  while (seen < bytes && !g_largest.compare_exchange_weak(seen, bytes)) {
  }
  void* pointer = std::malloc(bytes == 0 ? 1 : bytes);
  if (pointer == nullptr) {
    throw std::bad_alloc();
  }
  return pointer;
}

}  // namespace

void* operator new(size_t bytes) {
  return watched_allocation(bytes);
}
void* operator new[](size_t bytes) {
  return watched_allocation(bytes);
}
void operator delete(void* pointer) noexcept {
  std::free(pointer);
}
void operator delete[](void* pointer) noexcept {
  std::free(pointer);
}
void operator delete(void* pointer, size_t /*bytes*/) noexcept {
  std::free(pointer);
}
void operator delete[](void* pointer, size_t /*bytes*/) noexcept {
  std::free(pointer);
}

namespace logitlab {

size_t largest_allocation() {
  return g_largest.load();
}

void reset_largest_allocation() {
  g_largest.store(0);
}

TEST(AllocationWatch, SeesALargeVector) {
  reset_largest_allocation();
  const std::vector<char> block(kSmallAllocation + 1);
  EXPECT_GT(largest_allocation(), kSmallAllocation) << block.size();
}

}  // namespace logitlab
