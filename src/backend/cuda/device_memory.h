// Owned memory of a CUDA device and of the host beside it. Everything is for the device that is
// current in the calling thread.
#pragma once

#include <cstddef>
#include <string_view>
#include <utility>

#include <cuda_runtime.h>

#include "backend/cuda/device.h"
#include "base/error.h"

namespace logitlab::cuda {

enum class Place { kDevice, kPinned };

// Memory of `place`, aligned to 256 bytes, not initialised. Move-only.
template <Place place>
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    if (data_ != nullptr) {
      (void)(place == Place::kDevice ? cudaFree(data_) : cudaFreeHost(data_));
    }
  }

  // kResourceExhausted. No bytes: no memory.
  [[nodiscard]] static Result<Memory> allocate(size_t bytes, std::string_view what) {
    Memory memory;
    if (bytes > 0) {
      CUDA_OR_RETURN(
          place == Place::kDevice ? cudaMalloc(&memory.data_, bytes)
                                  : cudaMallocHost(&memory.data_, bytes),
          fmt::format("{} of {} for {}", gibibytes_text(bytes),
                      place == Place::kDevice ? "device memory" : "pinned memory", what));
      memory.size_ = bytes;
    }
    return memory;
  }

  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(data_); }
  template <typename T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data_);
  }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  [[nodiscard]] static std::string gibibytes_text(size_t bytes) {
    return fmt::format("{:.3f} GiB", static_cast<double>(bytes) / (1U << 30U));
  }

  void* data_ = nullptr;
  size_t size_ = 0;
};

using DeviceBytes = Memory<Place::kDevice>;
using PinnedBytes = Memory<Place::kPinned>;

// A stream of its own, without the implicit waits of the default one.
class Stream {
 public:
  Stream() = default;
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    if (stream_ != nullptr) {
      (void)cudaStreamDestroy(stream_);
    }
  }
  [[nodiscard]] static Result<Stream> make() {
    Stream stream;
    CUDA_OR_RETURN(cudaStreamCreateWithFlags(&stream.stream_, cudaStreamNonBlocking), "a stream");
    return stream;
  }
  [[nodiscard]] cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() = default;
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() {
    if (event_ != nullptr) {
      (void)cudaEventDestroy(event_);
    }
  }
  [[nodiscard]] static Result<Event> make(bool takes_time = false) {
    Event event;
    CUDA_OR_RETURN(cudaEventCreateWithFlags(&event.event_,
                                            takes_time ? cudaEventDefault : cudaEventDisableTiming),
                   "an event");
    return event;
  }
  [[nodiscard]] cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace logitlab::cuda
