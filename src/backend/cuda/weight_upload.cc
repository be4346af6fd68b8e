#include "backend/cuda/weight_upload.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/random_fill.h"
#include "base/env.h"

namespace logitlab::cuda {
namespace {

// Large enough that a copy runs at the rate of the bus, small enough to start soon.
constexpr size_t kPieceBytes = size_t{32} << 20;
// What one thread copies of a piece.
constexpr size_t kTaskBytes = size_t{1} << 20;
constexpr std::string_view kWhat = "copying weights to the device";

class Uploader {
 public:
  Uploader(const DeviceLoadOptions& options, cudaStream_t stream)
      : options_(options),
        stream_(stream),
        progress_(options.progress != nullptr ? *options.progress : null_progress()) {}

  Status run(std::span<const Upload> uploads) {
    for (size_t i = 0; i < buffers_.size(); ++i) {
      ASSIGN_OR_RETURN(buffers_[i], PinnedBytes::allocate(kPieceBytes, "copies of weights"));
      ASSIGN_OR_RETURN(events_[i], Event::make());
    }
    for (const Upload& upload : uploads) {
      total_ += upload.bytes;
    }
    start_ = monotonic_seconds();
    for (size_t i = 0; i < uploads.size(); ++i) {
      const Upload& upload = uploads[i];
      if (upload.source == nullptr) {
        CUDA_OR_RETURN(fill_random(upload.target, static_cast<int64_t>(upload.bytes / 2),
                                   upload.number, stream_),
                       "generated weights");
        report(upload.bytes);
        continue;
      }
      if (options_.will_need && i + 1 < uploads.size() && uploads[i + 1].source != nullptr) {
        options_.will_need(uploads[i + 1].source, std::min(uploads[i + 1].bytes, kPieceBytes));
      }
      for (size_t at = 0; at < upload.bytes; at += kPieceBytes) {
        RETURN_IF_ERROR(copy(upload, at, std::min(kPieceBytes, upload.bytes - at)));
      }
    }
    CUDA_OR_RETURN(cudaStreamSynchronize(stream_), kWhat);
    progress_.finish(kWhat);
    return {};
  }

 private:
  Status copy(const Upload& upload, size_t at, size_t n) {
    const std::byte* const source = upload.source + at;
    if (options_.will_need && at + n < upload.bytes) {
      options_.will_need(source + n, std::min(kPieceBytes, upload.bytes - at - n));
    }
    // Small ones share a piece.
    if (filled_ + n > kPieceBytes) {
      RETURN_IF_ERROR(next_buffer());
    }
    std::byte* const staged = buffers_[current_].data() + filled_;
    const auto n_tasks = static_cast<int64_t>((n + kTaskBytes - 1) / kTaskBytes);
    const auto one = [&](int64_t task, int /*thread*/) {
      const size_t first = static_cast<size_t>(task) * kTaskBytes;
      std::memcpy(staged + first, source + first, std::min(kTaskBytes, n - first));
    };
    if (options_.threads != nullptr && n_tasks > 1) {
      options_.threads->parallel_for(n_tasks, one);
    } else {
      for (int64_t task = 0; task < n_tasks; ++task) {
        one(task, 0);
      }
    }
    CUDA_OR_RETURN(cudaMemcpyAsync(upload.target + at, staged, n, cudaMemcpyHostToDevice, stream_),
                   kWhat);
    filled_ += (n + 255) / 256 * 256;
    if (options_.release) {
      options_.release(source, n);
    }
    report(n);
    return {};
  }

  // Waits until the copies out of the other buffer are done.
  Status next_buffer() {
    CUDA_OR_RETURN(cudaEventRecord(events_[current_].get(), stream_), kWhat);
    current_ = 1 - current_;
    CUDA_OR_RETURN(cudaEventSynchronize(events_[current_].get()), kWhat);
    filled_ = 0;
    return {};
  }

  void report(size_t n) {
    done_ += n;
    const double seconds = std::max(monotonic_seconds() - start_, 1e-6);
    progress_.update(kWhat, done_, total_, "bytes",
                     fmt::format("{:.1f} GB/s", static_cast<double>(done_) / seconds / 1e9));
  }

  const DeviceLoadOptions& options_;
  cudaStream_t stream_;
  ProgressSink& progress_;
  std::array<PinnedBytes, 2> buffers_;
  std::array<Event, 2> events_;
  size_t current_ = 0;
  size_t filled_ = 0;
  size_t total_ = 0;
  size_t done_ = 0;
  double start_ = 0;
};

}  // namespace

Status upload_weights(std::span<const Upload> uploads, const DeviceLoadOptions& options,
                      cudaStream_t stream) {
  return Uploader(options, stream).run(uploads);
}

}  // namespace logitlab::cuda
