// The memory of sequences on a device: keys and values in pages, convolution and SSM states.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <cuda_runtime.h>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/layout.h"
#include "backend/cuda/page_pool.h"
#include "backend/device_model.h"
#include "base/error.h"

namespace logitlab::cuda {

struct StateShape {
  KvPool kv;               // pages are null
  size_t conv_floats = 0;  // of all Mamba layers of a sequence
  size_t ssm_floats = 0;   // likewise

  [[nodiscard]] size_t page_bytes() const {
    return static_cast<size_t>(kv.page_elements()) * sizeof(__nv_bfloat16);
  }
  [[nodiscard]] size_t summary_bytes() const { return (conv_floats + ssm_floats) * sizeof(float); }
};
[[nodiscard]] StateShape state_shape_of(const ModelView& view);

// What the states of one model share: the pages, and memory of states that are gone, which the next
// ones use. One-thread; all copies are queued on one stream, in the order of the calls.
class StatePool {
 public:
  // Takes n_pages pages from the device. kResourceExhausted.
  [[nodiscard]] static Result<std::shared_ptr<StatePool>> make(const StateShape& shape, int n_pages,
                                                               int ordinal, cudaStream_t stream);

  // A sequence's running summary: conv, then ssm. Shared by forks until one of them writes.
  class Summary {
   public:
    Summary(StatePool* pool, DeviceBytes memory) : pool_(pool), memory_(std::move(memory)) {}
    ~Summary() { pool_->free_summaries_.push_back(std::move(memory_)); }
    Summary(const Summary&) = delete;
    Summary& operator=(const Summary&) = delete;
    [[nodiscard]] float* data() const { return memory_.as<float>(); }

   private:
    StatePool* pool_;
    DeviceBytes memory_;
  };

  [[nodiscard]] const StateShape& shape() const { return shape_; }
  [[nodiscard]] const KvPool& kv() const { return kv_; }
  [[nodiscard]] PagePool& pages() { return pages_; }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  [[nodiscard]] int ordinal() const { return ordinal_; }
  // Not initialised. kResourceExhausted.
  [[nodiscard]] Result<std::shared_ptr<Summary>> take_summary();
  // Room for as many ints as there are pages.
  [[nodiscard]] Result<DeviceBytes> take_table();
  void give_table(DeviceBytes table) { free_tables_.push_back(std::move(table)); }

  [[nodiscard]] size_t used_bytes() const;  // by sequences that live
  [[nodiscard]] size_t free_summary_bytes() const {
    return free_summaries_.size() * shape_.summary_bytes();
  }
  [[nodiscard]] size_t taken_bytes() const;  // from the device

 private:
  StatePool(const StateShape& shape, int n_pages, int ordinal, cudaStream_t stream)
      : shape_(shape), kv_(shape.kv), pages_(n_pages), stream_(stream), ordinal_(ordinal) {}

  StateShape shape_;
  DeviceBytes page_memory_;
  KvPool kv_;
  PagePool pages_;
  cudaStream_t stream_;
  int ordinal_;
  size_t n_summaries_ = 0;
  std::vector<DeviceBytes> free_summaries_;
  std::vector<DeviceBytes> free_tables_;
};

class CudaState final : public DeviceState {
 public:
  explicit CudaState(std::shared_ptr<StatePool> pool);
  ~CudaState() override;

  [[nodiscard]] int64_t length() const override { return length_; }
  [[nodiscard]] Status reserve(int64_t n) override;
  [[nodiscard]] bool can_truncate() const override { return pool_->shape().summary_bytes() == 0; }
  void truncate(int64_t length) override;
  [[nodiscard]] std::unique_ptr<DeviceState> fork() const override;
  [[nodiscard]] size_t bytes() const override;

  // After reserve().
  [[nodiscard]] Sequence sequence() const;
  void advance(int64_t n) { length_ += n; }
  // Positions that there is room for.
  [[nodiscard]] int64_t capacity() const {
    return static_cast<int64_t>(pages_.pages().size()) * kPagePositions;
  }

 private:
  std::shared_ptr<StatePool> pool_;              // outlives what follows
  std::shared_ptr<StatePool::Summary> summary_;  // null: all zeros
  PageList pages_;
  DeviceBytes table_;       // the pages' numbers
  int64_t n_in_table_ = 0;  // of them that the device knows
  int64_t length_ = 0;
};

}  // namespace logitlab::cuda
