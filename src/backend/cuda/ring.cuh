// The ring of shared memory through which the decode kernels read matrices, and the geometry of
// rows in it. gemv.cuh says what for.
#pragma once

#include "backend/cuda/layout.h"
#include "backend/cuda/ptx.cuh"

namespace logitlab::cuda {

constexpr int kSlices = 8;  // of a row; one consumer warp each
constexpr int kConsumers = 32 * kSlices;
constexpr int kDecodeThreads = kConsumers + 32;
constexpr int kUnit = 64;        // elements that a slice is a multiple of: 128 bytes of a row
constexpr int kSegment = 4096;   // longer rows are worked off in segments of so many elements
constexpr int kRowTile = 8;      // matrix rows of a group
constexpr int kTokens = 8;       // sequences of a left operand
constexpr int kPairs = 256;      // outputs of a chunk: one per consumer thread
constexpr int kTokenPitch = 40;  // floats between two sequences of a slice's partial sums: no bank
                                 // conflicts when a warp writes them
constexpr int kPartialFloats = kTokens * kTokenPitch;  // of one slice, at least kPairs
constexpr int kBlockBytes = 64;  // of 32 elements: what a warp multiplies at once

// Groups of a chunk: its outputs are one per thread.
template <int TOK>
constexpr int kChunkGroups = kPairs / (TOK * kRowTile);

// Up to eight consecutive rows of a matrix. `row` is what the epilogue knows the first one by.
struct Group {
  const __nv_bfloat16* first = nullptr;
  int row = 0;
  int n = 0;
};

// ---- geometry of a segment ----------------------------------------------------------------------

struct SegmentShape {
  int length;  // elements
  int units;

  LOGITLAB_DEVICE explicit SegmentShape(int n) : length(n), units((n + kUnit - 1) / kUnit) {}
  LOGITLAB_DEVICE int first_unit(int slice) const { return units * slice / kSlices; }
};

// What one warp multiplies of a segment.
struct Slice {
  int k;         // first element
  int n_blocks;  // of 32 elements, an even number
  bool is_even;  // all blocks are whole

  LOGITLAB_DEVICE Slice(const SegmentShape& s, int slice)
      : k(s.first_unit(slice) * kUnit),
        n_blocks(2 * (s.first_unit(slice + 1) - s.first_unit(slice))),
        is_even(s.first_unit(slice + 1) * kUnit <= s.length) {}
};

// ---- the ring -----------------------------------------------------------------------------------

// Shared memory of the ring; host and device compute it alike.
struct RingShape {
  int depth = 0;        // stages
  int flight = 0;       // stages on the way at most: a longer queue delays everything else
  int rows = kRowTile;  // of a stage at most
  int stage_bytes = 0;

  __host__ __device__ int bytes() const { return depth * (stage_bytes + 16); }
};

struct Ring {
  u32 stages, full, empty;
  int depth, flight, rows, stage_bytes;

  // memory: 128-byte aligned. All threads of the block; begin() follows.
  LOGITLAB_DEVICE Ring(char* memory, const RingShape& shape)
      : stages(shared_address(memory)),
        full(stages + shape.depth * shape.stage_bytes),
        empty(full + 8 * shape.depth),
        depth(shape.depth),
        flight(shape.flight),
        rows(shape.rows),
        stage_bytes(shape.stage_bytes) {}

  // The loader warp makes the ring and goes on at once; consumers wait for it.
  LOGITLAB_DEVICE void begin(bool is_loader, int lane) const {
    if (!is_loader) {
      sync_threads(3, kDecodeThreads);
      return;
    }
    if (lane < depth) {
      barrier_init(full + 8 * lane, 1);
      barrier_init(empty + 8 * lane, kSlices);
      barrier_init_done();
    }
    arrive_threads(3, kDecodeThreads);
  }
};

// The loader's place in the ring. One lane does it all: a stage is one copy of a group's rows as
// they follow one another. Readings on an H200, TB/s of a kernel that does nothing else: 4.51
// so, 4.48 with two rows a copy, 4.25 with half a row of 5,376 bytes, 3.64 with a quarter; and 3.35
// to 3.9 where rows lie 64 bytes off a multiple of 128 in the ring, to spare the readers bank
// conflicts.
class RingLoader {
 public:
  LOGITLAB_DEVICE RingLoader(const Ring& ring, int lane) : ring_(ring), is_at_work_(lane == 0) {}

  // A segment of the group's rows: elements [k0, k0 + length) of rows of `columns`.
  LOGITLAB_DEVICE void load(const Group& group, int columns, int k0, int length) {
    if (!is_at_work_) {
      return;
    }
    if (in_flight_ == ring_.flight) {
      barrier_wait(ring_.full + 8 * tail_, tail_turn_);
      if (++tail_ == ring_.depth) {
        tail_ = 0;
        tail_turn_ ^= 1;
      }
      --in_flight_;
    }
    barrier_wait(ring_.empty + 8 * stage_, turn_ ^ 1);
    const u32 full = ring_.full + 8 * stage_;
    const u32 target = ring_.stages + stage_ * ring_.stage_bytes;
    barrier_expect(full, group.n * length * 2);
    copy(target, group.first + k0, group.n, columns, length, full);
    ++in_flight_;
    if (++stage_ == ring_.depth) {
      stage_ = 0;
      turn_ ^= 1;
    }
  }

 private:
  LOGITLAB_DEVICE static void copy(u32 target, const __nv_bfloat16* row, int n, int columns,
                                   int length, u32 barrier) {
    if (length == columns) {
      bulk_load(target, row, n * length * 2, barrier);
      return;
    }
    for (int i = 0; i < n; ++i) {
      bulk_load(target + i * length * 2, row + static_cast<size_t>(i) * columns, length * 2,
                barrier);
    }
  }

  const Ring& ring_;
  bool is_at_work_;
  int stage_ = 0, tail_ = 0, in_flight_ = 0;
  u32 turn_ = 0, tail_turn_ = 0;
};

// A consumer warp's place in the ring.
class RingReader {
 public:
  LOGITLAB_DEVICE explicit RingReader(const Ring& ring) : ring_(ring) {}

  // Address of this lane's row of a group of n rows, once the group is there; of row 0 for lanes
  // past the end. The lanes are together again after it: products of matrices want that.
  LOGITLAB_DEVICE u32 wait(int n, int length, int lane) const {
    const u32 first = wait();
    const int row = (lane >> 2) < n ? lane >> 2 : 0;
    return first + row * length * 2;
  }
  // The same of row 0 for all lanes.
  LOGITLAB_DEVICE u32 wait() const {
    barrier_wait(ring_.full + 8 * stage_, turn_);
    __syncwarp();
    return ring_.stages + stage_ * ring_.stage_bytes;
  }
  LOGITLAB_DEVICE void release(int lane) const {
    __syncwarp();
    if (lane == 0) {
      barrier_arrive(ring_.empty + 8 * stage_);
    }
  }
  LOGITLAB_DEVICE void advance() {
    if (++stage_ == ring_.depth) {
      stage_ = 0;
      turn_ ^= 1;
    }
  }

 private:
  const Ring& ring_;
  int stage_ = 0;
  u32 turn_ = 0;
};

}  // namespace logitlab::cuda
