// A fixed set of threads for loops over independent outputs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace logitlab {

// One-thread owner: parallel_for is called from one thread at a time and never from inside a task.
// Tasks are handed out dynamically, so a result must not depend on which thread ran it; every
// kernel here computes whole outputs in a task, which makes results independent of the number of
// threads.
class ThreadPool {
 public:
  // n_threads >= 1, the calling thread included.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int n_threads() const { return n_threads_; }

  // Calls task(index, thread) for every index in [0, n_tasks), thread in [0, n_threads). Returns
  // when all are done. Idle threads spin for some microseconds before they sleep: decode steps
  // follow each other closely and a wake-up costs more than a small layer.
  void parallel_for(int64_t n_tasks, const std::function<void(int64_t, int)>& task);

 private:
  struct Shared;
  void worker(int thread);

  int n_threads_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace logitlab
