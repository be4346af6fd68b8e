#include "backend/cuda/cuda_state.h"

#include <algorithm>
#include <span>
#include <utility>

#include "backend/cuda/device_text.h"
#include "base/check.h"

namespace logitlab::cuda {

static_assert(kPagePositions == kDevicePagePositions);
static_assert(sizeof(__nv_bfloat16) == kDeviceKvBytes);

StateShape state_shape_of(const ModelView& view) {
  StateShape shape;
  shape.kv = view.kv;
  for (const Layer& layer : view.layers) {
    if (layer.kind == LayerKind::kMamba) {
      const MambaLayer& mamba = layer.mamba;
      shape.conv_floats +=
          static_cast<size_t>(mamba.conv_kernel - 1) * static_cast<size_t>(mamba.conv_size());
      shape.ssm_floats +=
          static_cast<size_t>(mamba.inner()) * static_cast<size_t>(mamba.state_size);
    }
  }
  return shape;
}

Result<std::shared_ptr<StatePool>> StatePool::make(const StateShape& shape, int n_pages,
                                                   int ordinal, cudaStream_t stream) {
  std::shared_ptr<StatePool> pool(new StatePool(shape, n_pages, ordinal, stream));
  ASSIGN_OR_RETURN(
      pool->page_memory_,
      DeviceBytes::allocate(static_cast<size_t>(n_pages) * shape.page_bytes(), "keys and values"));
  pool->kv_.pages = pool->page_memory_.as<__nv_bfloat16>();
  return pool;
}

Result<std::shared_ptr<StatePool::Summary>> StatePool::take_summary() {
  DeviceBytes memory;
  if (!free_summaries_.empty()) {
    memory = std::move(free_summaries_.back());
    free_summaries_.pop_back();
  } else {
    auto taken = DeviceBytes::allocate(shape_.summary_bytes(), "the SSM state of one sequence");
    if (!taken) {
      Error error = std::move(taken).error();
      error.message += fmt::format("; {} states are held already", n_summaries_);
      return tl::unexpected<Error>(std::move(error));
    }
    memory = std::move(*taken);
    ++n_summaries_;
  }
  return std::make_shared<Summary>(this, std::move(memory));
}

Result<DeviceBytes> StatePool::take_table() {
  if (free_tables_.empty()) {
    return DeviceBytes::allocate(static_cast<size_t>(pages_.n_pages()) * sizeof(int),
                                 "a table of pages");
  }
  DeviceBytes table = std::move(free_tables_.back());
  free_tables_.pop_back();
  return table;
}

size_t StatePool::used_bytes() const {
  return static_cast<size_t>(pages_.n_pages() - pages_.n_free()) * shape_.page_bytes() +
         (n_summaries_ - free_summaries_.size()) * shape_.summary_bytes();
}

size_t StatePool::taken_bytes() const {
  return page_memory_.size() + n_summaries_ * shape_.summary_bytes();
}

CudaState::CudaState(std::shared_ptr<StatePool> pool)
    : pool_(std::move(pool)), pages_(&pool_->pages(), kPagePositions) {}

CudaState::~CudaState() {
  if (table_.size() > 0) {
    pool_->give_table(std::move(table_));
  }
}

Status CudaState::reserve(int64_t n) {
  CHECK(n >= 0) << n;
  CUDA_OR_RETURN(cudaSetDevice(pool_->ordinal()), "the device");
  if (table_.size() == 0) {
    ASSIGN_OR_RETURN(table_, pool_->take_table());
  }
  const size_t summary_bytes = pool_->shape().summary_bytes();
  std::shared_ptr<StatePool::Summary> summary = summary_;
  // Two references are ours: the member and the copy above.
  const bool needs_summary = summary_bytes > 0 && (summary_ == nullptr || summary_.use_count() > 2);
  if (needs_summary) {
    ASSIGN_OR_RETURN(summary, pool_->take_summary());
  }
  std::vector<PageList::Copy> copies;
  int64_t first_changed = 0;
  int64_t missing = 0;
  if (!pages_.reserve(length_, n, &copies, &first_changed, &missing)) {
    return fail(
        ErrorCode::kResourceExhausted,
        "KV cache on the device: {} positions more need {} pages more than the {} free ones "
        "of {} ({} of {} positions each)",
        n, missing, pool_->pages().n_free(), pool_->pages().n_pages(),
        gibibytes(pool_->shape().page_bytes()), kPagePositions);
  }
  const cudaStream_t stream = pool_->stream();
  if (needs_summary) {
    CUDA_OR_RETURN(summary_ == nullptr
                       ? cudaMemsetAsync(summary->data(), 0, summary_bytes, stream)
                       : cudaMemcpyAsync(summary->data(), summary_->data(), summary_bytes,
                                         cudaMemcpyDeviceToDevice, stream),
                   "the SSM state of a sequence");
    summary_ = std::move(summary);
  }
  const KvPool& kv = pool_->kv();
  for (const PageList::Copy& copy : copies) {
    if (kv.page_elements() > 0) {
      CUDA_OR_RETURN(cudaMemcpyAsync(kv.pages + copy.to * kv.page_elements(),
                                     kv.pages + copy.from * kv.page_elements(),
                                     pool_->shape().page_bytes(), cudaMemcpyDeviceToDevice, stream),
                     "a page of keys and values");
    }
  }
  // A fork's table is empty still, whatever its pages.
  const auto first = static_cast<size_t>(std::min(first_changed, n_in_table_));
  const std::span<const int> changed = pages_.pages().subspan(first);
  if (!changed.empty()) {
    CUDA_OR_RETURN(cudaMemcpyAsync(table_.as<int>() + first, changed.data(), changed.size_bytes(),
                                   cudaMemcpyHostToDevice, stream),
                   "the table of pages");
  }
  n_in_table_ = static_cast<int64_t>(pages_.pages().size());
  return {};
}

void CudaState::truncate(int64_t length) {
  CHECK(length >= 0 && length <= length_) << length << " of " << length_;
  CHECK(can_truncate() || length == 0 || length == length_)
      << "a state with Mamba layers cannot go back from " << length_ << " to " << length;
  pages_.truncate(length);
  n_in_table_ = std::min(n_in_table_, static_cast<int64_t>(pages_.pages().size()));
  if (length == 0) {
    summary_.reset();
  }
  length_ = length;
}

std::unique_ptr<DeviceState> CudaState::fork() const {
  auto copy = std::make_unique<CudaState>(pool_);
  copy->summary_ = summary_;
  copy->pages_.share(pages_);
  copy->length_ = length_;
  return copy;
}

size_t CudaState::bytes() const {
  return pages_.pages().size() * pool_->shape().page_bytes() +
         (summary_ == nullptr ? 0 : pool_->shape().summary_bytes());
}

Sequence CudaState::sequence() const {
  Sequence sequence;
  if (summary_ != nullptr) {
    sequence.conv = summary_->data();
    sequence.ssm = summary_->data() + pool_->shape().conv_floats;
  }
  sequence.page_table = table_.as<int>();
  sequence.length = static_cast<int>(length_);
  return sequence;
}

}  // namespace logitlab::cuda
