#include <algorithm>
#include <cstdint>
#include <vector>

#include <cuda_runtime.h>

#include "backend/cuda/read_rate.h"

namespace logitlab::cuda {
namespace {

constexpr int kStageBytes = 16 << 10;
constexpr int kMostStages = 12;

__device__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ void expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ void load(uint32_t to, const std::byte* from, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

__device__ void wait(uint32_t barrier, uint32_t parity) {
  uint32_t is_done = 0;
  while (is_done == 0) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(is_done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

// Each block copies every gridDim.x-th stage into a ring that nobody reads. One warp, whose lane s
// looks after stage s of the ring.
__global__ void read_all(const std::byte* data, int64_t n_stages, int depth) {
  extern __shared__ __align__(128) std::byte ring[];
  __shared__ __align__(8) uint64_t barriers[kMostStages];
  const int lane = static_cast<int>(threadIdx.x);
  if (lane >= depth) {
    return;
  }
  const uint32_t barrier = shared_address(&barriers[lane]);
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  uint32_t parity = 0;
  const int64_t step = int64_t{gridDim.x} * depth;
  for (int64_t s = blockIdx.x + int64_t{gridDim.x} * lane; s < n_stages; s += step) {
    expect(barrier, kStageBytes);
    load(shared_address(ring) + lane * kStageBytes, data + s * kStageBytes, kStageBytes, barrier);
    wait(barrier, parity);
    parity ^= 1;
  }
}

// Ends with what it holds, whatever happened.
struct Timing {
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;

  ~Timing() {
    if (end != nullptr) {
      (void)cudaEventDestroy(end);
    }
    if (begin != nullptr) {
      (void)cudaEventDestroy(begin);
    }
    if (stream != nullptr) {
      (void)cudaStreamDestroy(stream);
    }
  }
  cudaError_t make() {
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    error = error != cudaSuccess ? error : cudaEventCreate(&begin);
    return error != cudaSuccess ? error : cudaEventCreate(&end);
  }
};

cudaError_t time_once(const Timing& timing, const std::byte* data, int64_t n_stages, int blocks,
                      int depth, double* seconds) {
  cudaError_t error = cudaEventRecord(timing.begin, timing.stream);
  read_all<<<static_cast<unsigned>(blocks), 32, static_cast<size_t>(depth) * kStageBytes,
             timing.stream>>>(data, n_stages, depth);
  error = error != cudaSuccess ? error : cudaGetLastError();
  error = error != cudaSuccess ? error : cudaEventRecord(timing.end, timing.stream);
  error = error != cudaSuccess ? error : cudaEventSynchronize(timing.end);
  float milliseconds = 0;
  error =
      error != cudaSuccess ? error : cudaEventElapsedTime(&milliseconds, timing.begin, timing.end);
  *seconds = static_cast<double>(milliseconds) * 1e-3;
  return error;
}

}  // namespace

cudaError_t read_rate(const std::byte* data, size_t bytes, int repeats, double* bytes_per_second) {
  *bytes_per_second = 0;
  int device = 0;
  int blocks = 0;
  int shared_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  error = error != cudaSuccess
              ? error
              : cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device);
  error =
      error != cudaSuccess
          ? error
          : cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const int depth = std::clamp((shared_bytes - 1024) / kStageBytes, 1, kMostStages);
  error = error != cudaSuccess
              ? error
              : cudaFuncSetAttribute(read_all, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     depth * kStageBytes);
  Timing timing;
  error = error != cudaSuccess ? error : timing.make();
  const auto n_stages = static_cast<int64_t>(bytes / kStageBytes);
  std::vector<double> rates;
  // The first turn wakes the device up and is not counted.
  for (int i = 0; error == cudaSuccess && n_stages > 0 && i <= repeats; ++i) {
    double seconds = 0;
    error = time_once(timing, data, n_stages, blocks, depth, &seconds);
    if (i > 0 && seconds > 0) {
      rates.push_back(static_cast<double>(n_stages) * kStageBytes / seconds);
    }
  }
  if (error == cudaSuccess && !rates.empty()) {
    std::sort(rates.begin(), rates.end());
    *bytes_per_second = rates[rates.size() / 2];
  }
  return error;
}

}  // namespace logitlab::cuda
