// Launches with the programmatic edge, and the shared memory of kernels with a ring.
#pragma once

#include <algorithm>
#include <utility>

#include <cuda_runtime.h>

#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/gemv.cuh"

namespace logitlab::cuda {

// More shared memory than 48 KB is asked for once per kernel and size.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) {
      return error;
    }
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

// Blocks of 32 elements that a slice of a segment has at most.
inline int slice_blocks(int columns) {
  const int units = (std::min(columns, kSegment) + kUnit - 1) / kUnit;
  return 2 * ((units + kSlices - 1) / kSlices);
}

// Whether all slices of such rows are of `blocks` or two less whole blocks, and some of `blocks`.
inline bool is_even(int columns, int blocks) {
  return columns % kUnit == 0 && columns <= kSegment && slice_blocks(columns) == blocks;
}

// About 64 KB on the way keep the memory busy; more only delays what a kernel waits for.
constexpr int kFlightBytes = 64 * 1024;

// The deepest ring that fits into `shared_bytes` beside `other_bytes`.
inline RingShape ring_shape(int columns, int other_bytes, int shared_bytes) {
  RingShape shape;
  const int length = std::min(columns, kSegment);
  shape.stage_bytes = (kRowTile * length * 2 + 127) / 128 * 128;
  shape.depth = std::min(32, (shared_bytes - other_bytes - 128) / (shape.stage_bytes + 16));
  shape.flight = std::clamp((kFlightBytes + shape.stage_bytes - 1) / shape.stage_bytes, 2,
                            std::max(2, shape.depth));
  return shape;
}

// A reader has a group in the ring while the next one comes.
inline bool is_ring(const RingShape& shape) {
  return shape.depth >= 2;
}

}  // namespace logitlab::cuda
