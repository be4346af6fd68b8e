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

// The state of the pool in one word, so that a worker joins a job in one step or not at all: how
// many workers are inside the job, whether it still takes workers, and its number.
constexpr uint64_t kOneWorker = 1;
constexpr uint64_t kWorkers = (uint64_t{1} << 15) - 1;
constexpr uint64_t kOpen = uint64_t{1} << 15;
constexpr int kNumberShift = 16;

constexpr uint64_t number_of(uint64_t state) {
  return state >> kNumberShift;
}

}  // namespace

struct ThreadPool::Shared {
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> state{0};
  std::atomic<bool> stopping{false};
  // The job. Written while no worker is inside and the job is not open.
  const std::function<void(int64_t, int)>* task = nullptr;
  int64_t n_tasks = 0;
  std::atomic<int64_t> next{0};
  std::atomic<int> n_sleeping{0};
  std::vector<std::thread> threads;

  [[nodiscard]] bool has_work(uint64_t last_number) const {
    const uint64_t now = state.load(std::memory_order_seq_cst);
    return ((now & kOpen) != 0 && number_of(now) != last_number) ||
           stopping.load(std::memory_order_seq_cst);
  }

  void run_tasks(int thread) {
    while (true) {
      const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= n_tasks) {
        return;
      }
      (*task)(index, thread);
    }
  }
};

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads), shared_(std::make_unique<Shared>()) {
  CHECK(n_threads >= 1 && n_threads < static_cast<int>(kWorkers)) << n_threads;
  for (int i = 1; i < n_threads; ++i) {
    shared_->threads.emplace_back([this, i] { worker(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stopping.store(true);
  }
  shared_->wake.notify_all();
  for (std::thread& thread : shared_->threads) {
    thread.join();
  }
}

void ThreadPool::worker(int thread) {
  Shared& shared = *shared_;
  uint64_t last_number = 0;
  while (true) {
    for (int spins = 0; spins < kSpins && !shared.has_work(last_number); ++spins) {
      cpu_relax();
    }
    if (!shared.has_work(last_number)) {
      std::unique_lock<std::mutex> lock(shared.mutex);
      shared.n_sleeping.fetch_add(1);
      shared.wake.wait(lock, [&] { return shared.has_work(last_number); });
      shared.n_sleeping.fetch_sub(1);
    }
    if (shared.stopping.load()) {
      return;
    }
    uint64_t state = shared.state.load(std::memory_order_acquire);
    if ((state & kOpen) == 0 || !shared.state.compare_exchange_strong(state, state + kOneWorker,
                                                                      std::memory_order_acq_rel)) {
      continue;
    }
    last_number = number_of(state);
    shared.run_tasks(thread);
    shared.state.fetch_sub(kOneWorker, std::memory_order_release);
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
  const uint64_t number = number_of(shared.state.load(std::memory_order_relaxed)) + 1;
  shared.state.store(number << kNumberShift | kOpen, std::memory_order_seq_cst);
  if (shared.n_sleeping.load(std::memory_order_seq_cst) > 0) {
    // Taking the lock orders this wake-up after a sleeper's check of the state.
    { const std::lock_guard<std::mutex> lock(shared.mutex); }
    shared.wake.notify_all();
  }
  shared.run_tasks(0);
  // Nothing is left to hand out: a worker that is still asleep or not scheduled is not waited for.
  shared.state.fetch_and(~kOpen, std::memory_order_acq_rel);
  int spins = 0;
  while ((shared.state.load(std::memory_order_acquire) & kWorkers) != 0) {
    if (++spins < kSpins) {
      cpu_relax();
    } else {
      // More threads than free processors: let the others run.
      std::this_thread::yield();
    }
  }
}

}  // namespace logitlab
