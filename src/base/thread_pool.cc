#include "base/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/check.h"

namespace logitlab {
namespace {

void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 20 to 50 microseconds: longer than the gap between two kernels of a decode step, shorter
// than what a shared machine would notice.
constexpr int kSpins = 2000;

}  // namespace

struct ThreadPool::Shared {
  std::mutex mutex;
  std::condition_variable wake;
  // A job is published by raising `generation`; the fields below belong to that job.
  std::atomic<uint64_t> generation{0};
  std::atomic<bool> stopping{false};
  const std::function<void(int64_t, int)>* task = nullptr;
  int64_t n_tasks = 0;
  std::atomic<int64_t> next{0};
  std::atomic<int> n_working{0};
  std::atomic<int> n_sleeping{0};
  std::vector<std::thread> threads;
};

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads), shared_(std::make_unique<Shared>()) {
  CHECK(n_threads >= 1) << n_threads;
  for (int i = 1; i < n_threads; ++i) {
    shared_->threads.emplace_back([this, i] { worker(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stopping.store(true);
    shared_->generation.fetch_add(1);
  }
  shared_->wake.notify_all();
  for (std::thread& thread : shared_->threads) {
    thread.join();
  }
}

void ThreadPool::worker(int thread) {
  Shared& shared = *shared_;
  uint64_t seen = 0;
  while (true) {
    int spins = 0;
    while (shared.generation.load(std::memory_order_acquire) == seen && spins < kSpins) {
      cpu_relax();
      ++spins;
    }
    if (shared.generation.load(std::memory_order_acquire) == seen) {
      std::unique_lock<std::mutex> lock(shared.mutex);
      shared.n_sleeping.fetch_add(1);
      shared.wake.wait(lock, [&] { return shared.generation.load() != seen; });
      shared.n_sleeping.fetch_sub(1);
    }
    seen = shared.generation.load(std::memory_order_acquire);
    if (shared.stopping.load()) {
      return;
    }
    while (true) {
      const int64_t index = shared.next.fetch_add(1, std::memory_order_relaxed);
      if (index >= shared.n_tasks) {
        break;
      }
      (*shared.task)(index, thread);
    }
    shared.n_working.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::parallel_for(int64_t n_tasks, const std::function<void(int64_t, int)>& task) {
  if (n_threads_ == 1 || n_tasks <= 1) {
    for (int64_t i = 0; i < n_tasks; ++i) {
      task(i, 0);
    }
    return;
  }
  Shared& shared = *shared_;
  shared.task = &task;
  shared.n_tasks = n_tasks;
  shared.next.store(0, std::memory_order_relaxed);
  shared.n_working.store(n_threads_ - 1, std::memory_order_relaxed);
  shared.generation.fetch_add(1, std::memory_order_seq_cst);
  if (shared.n_sleeping.load(std::memory_order_seq_cst) > 0) {
    // Taking the lock orders this wake-up after a sleeper's check of `generation`.
    { const std::lock_guard<std::mutex> lock(shared.mutex); }
    shared.wake.notify_all();
  }
  while (true) {
    const int64_t index = shared.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= n_tasks) {
      break;
    }
    task(index, 0);
  }
  int spins = 0;
  while (shared.n_working.load(std::memory_order_acquire) != 0) {
    if (++spins < kSpins) {
      cpu_relax();
    } else {
      // More threads than free processors: let the others run.
      std::this_thread::yield();
    }
  }
}

}  // namespace logitlab
