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
  const void* function = reinterpret_cast<const void*>(kernel);
  cudaError_t error = cudaSuccess;
  if (shared_bytes > 48 * 1024) {
    error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes));
  }
  // All kernels want the same division of the memory between cache and shared memory: a
  // multiprocessor must be empty to change it, and could not begin the next kernel before that.
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
  }
  if (error != cudaSuccess) {
    return error;
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
constexpr int kSingleFlightBytes = 96 * 1024;  // with one sequence

// The deepest ring of stages of `rows` rows in `room` bytes.
inline RingShape ring_of(int rows, int columns, int room, int flight_bytes) {
  RingShape shape;
  shape.rows = rows;
  shape.stage_bytes = (rows * std::min(columns, kSegment) * 2 + 127) / 128 * 128;
  shape.depth = std::min(32, room / (shape.stage_bytes + 16));
  shape.flight = std::clamp((flight_bytes + shape.stage_bytes - 1) / shape.stage_bytes, 2,
                            std::max(2, shape.depth));
  return shape;
}

// What `shared_bytes` leave for a ring beside `other_bytes` and its alignment.
inline int ring_room(int other_bytes, int shared_bytes) {
  return shared_bytes - other_bytes - 128;
}

inline RingShape ring_shape(int columns, int other_bytes, int shared_bytes) {
  return ring_of(kRowTile, columns, ring_room(other_bytes, shared_bytes), kFlightBytes);
}

// The ring of the kernels of one sequence. rows: of the matrix or matrices that a block works on;
// they are split into stages of equal rows, few and large: half the size costs a twentieth of a
// step and more.
inline RingShape single_ring(int columns, int other_bytes, int shared_bytes, int rows) {
  constexpr int kStages = 3;
  const int room = ring_room(other_bytes, shared_bytes);
  const int most = std::clamp(room / (kStages * std::min(columns, kSegment) * 2), 1, kRowTile);
  const int n = std::max(1, (rows + most - 1) / most);
  return ring_of(std::max(1, (rows + n - 1) / n), columns, room, kSingleFlightBytes);
}

// Rows of a block that has the most.
inline int block_rows(int rows, const DeviceShape& device) {
  return (rows + device.n_blocks - 1) / device.n_blocks;
}

// A reader has a group in the ring while the next one comes.
inline bool is_ring(const RingShape& shape) {
  return shape.depth >= 2;
}

}  // namespace logitlab::cuda
