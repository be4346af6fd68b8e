// The matrix products of prefill: one kernel, dense or grouped by expert.
//
// Thread blocks stay and walk over tiles; copies of the next tile's first pieces are under way
// while the last one is multiplied and stored. A sum runs over k in ascending order whatever the
// tile.
#include <algorithm>
#include <array>

#include "backend/cuda/prefill_mma.cuh"
#include "backend/cuda/prefill_ops.h"
#include "backend/cuda/prefill_wgmma.cuh"

namespace logitlab::cuda::chunk {
namespace {

constexpr int kDepth = 64;  // elements of k in a stage: one row of 128 bytes
constexpr int kRowBytes = 128;

// kRows x kColumns of the product by kStages pieces of kDepth.
template <int kRowCount, int kColumnCount, int kStageCount>
struct Tile {
  static constexpr int kRows = kRowCount;
  static constexpr int kColumns = kColumnCount;
  static constexpr int kStages = kStageCount;
  static constexpr int kRowPieceBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = (kRows + kColumns) * kRowBytes;
  // Up to 1008 bytes to reach the alignment that swizzled tiles need.
  static constexpr int kSharedBytes = kStages * kStageBytes + 1024;
  static constexpr int kThreads = kRows == 192 ? 384 : 256;
  static constexpr int kRowsPerCopy = kThreads / 8;  // 8 threads copy a row
  static constexpr int kFragments = kRows * kColumns / (kThreads * 4);
#if LOGITLAB_HAS_WGMMA
  // wgmma of the piece before may still read its stage while the next is copied.
  static constexpr int kAhead = kStages - 2;
  // Warpgroups of 64 rows: one above the other, or side by side.
  static constexpr int kGroupRows = kRows / 64;
  static constexpr int kGroupColumns = kThreads / 128 / kGroupRows;
  static constexpr int kFragmentRows = 1;
  static constexpr int kFragmentColumns = kColumns / kGroupColumns / 8;
#else
  static constexpr int kAhead = kStages - 1;
  // 2 x 4 or 3 x 4 warps.
  static constexpr int kFragmentRows = kRows / (kThreads / 128) / 16;
  static constexpr int kFragmentColumns = kColumns / 4 / 8;
#endif
};

// One tile of the product.
struct Place {
  int first_row = 0;
  int end_row = 0;
  int first_column = 0;  // of b's rows; with interleaved ones, twice the column of out
  int group = 0;
};

__device__ inline int n_columns(const Product& product) {
  return product.sink == Sink::kSiluMul ? 2 * product.n : product.n;
}

__device__ inline int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

template <typename T>
__device__ const int* tiles_before(const RowGroups& groups) {
  return T::kRows == 64 ? groups.tiles_64 : groups.tiles_128;
}

template <typename T>
__device__ int n_tiles(const Product& product) {
  const int columns = ceil_div(n_columns(product), T::kColumns);
  const int rows = product.groups.n > 0 ? tiles_before<T>(product.groups)[product.groups.n]
                                        : ceil_div(product.m, T::kRows);
  return rows * columns;
}

// Tile `index` in the order of work: bands of 16 tiles of rows, columns within, so that the blocks
// at work share few rows of a and b; grouped products go expert by expert.
template <typename T>
__device__ Place place_of(const Product& product, int index) {
  constexpr int kBand = 16;
  const int columns = ceil_div(n_columns(product), T::kColumns);
  Place place;
  if (product.groups.n == 0) {
    const int rows = ceil_div(product.m, T::kRows);
    const int first = index / (kBand * columns) * kBand;
    const int band = min(rows - first, kBand);
    const int local = index - first * columns;
    place.first_row = (first + local % band) * T::kRows;
    place.end_row = product.m;
    place.first_column = local / band * T::kColumns;
    return place;
  }
  const int* before = tiles_before<T>(product.groups);
  int low = 0;
  int high = product.groups.n - 1;  // the last group whose tiles begin at or before index
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (before[middle] * columns <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const int rows = before[low + 1] - before[low];
  const int local = index - before[low] * columns;
  place.group = low;
  place.first_row = product.groups.offsets[low] + local % rows * T::kRows;
  place.end_row = product.groups.offsets[low + 1];
  place.first_column = local / rows * T::kColumns;
  return place;
}

// Walks over the pieces of all tiles of this block and copies them to shared memory; runs ahead of
// the multiplication. Each thread copies 16 bytes of every
// kRowsPerCopy-th row.
template <typename T>
struct Loader {
  static constexpr int kRowsPerCopy = T::kRowsPerCopy;
  static constexpr int kRowCopies = T::kRows / kRowsPerCopy;
  static constexpr int kColumnCopies = (T::kColumns + kRowsPerCopy - 1) / kRowsPerCopy;

  const Product& product;
  int tile;
  int n_all;
  int piece = 0;
  int pieces_per_part;
  int pieces;
  int row_offset[kRowCopies];  // element of a, or -1: none
  const __nv_bfloat16* b = nullptr;
  int n_valid = 0;  // of this thread's copies of b

  __device__ Loader(const Product& p, int first, int n)
      : product(p), tile(first), n_all(n), pieces_per_part(ceil_div(p.k, kDepth)) {
    pieces = p.a_low != nullptr ? 2 * pieces_per_part : pieces_per_part;
    enter();
  }

  __device__ bool interleaves() const { return product.sink == Sink::kSiluMul; }

  __device__ void enter() {
    if (tile >= n_all) {
      return;
    }
    const Place place = place_of<T>(product, tile);
    const int row = static_cast<int>(threadIdx.x) / 8;
#pragma unroll
    for (int i = 0; i < kRowCopies; ++i) {
      int r = place.first_row + row + i * kRowsPerCopy;
      if (r >= place.end_row) {
        row_offset[i] = -1;
        continue;
      }
      r = product.a_rows != nullptr ? product.a_rows[r] : r;
      row_offset[i] = r * product.lda;
    }
    // Interleaved: 8 rows of b's first half, then the 8 that belong to them of its second half.
    int column = place.first_column + row;
    int64_t b_row = column;
    int step = kRowsPerCopy;
    if (interleaves()) {
      column = place.first_column / 2 + row / 16 * 8 + row % 8;
      b_row = column + (row / 8 % 2 != 0 ? product.n : 0);
      step = kRowsPerCopy / 2;
    }
    n_valid = column < product.n ? ceil_div(product.n - column, step) : 0;
    // An address within b also where nothing is read.
    b = product.b + place.group * product.b_stride + (n_valid > 0 ? b_row * product.k : 0);
  }

  __device__ void copy(uint32_t stage) {
    if (tile >= n_all) {
      return;
    }
    const bool is_low = piece >= pieces_per_part;
    const __nv_bfloat16* const a = is_low ? product.a_low : product.a;
    const int lane = static_cast<int>(threadIdx.x) % 8;
    const int row = static_cast<int>(threadIdx.x) / 8;
    const int k = (is_low ? piece - pieces_per_part : piece) * kDepth + lane * 8;
    const bool is_inside = k < product.k;
    // The row's number modulo 8 is the same for all copies of a thread.
    const uint32_t target = stage + row * kRowBytes + ((lane ^ (row % 8)) << 4);
#pragma unroll
    for (int i = 0; i < kRowCopies; ++i) {
      const bool is_valid = is_inside && row_offset[i] >= 0;
      copy_16(target + i * kRowsPerCopy * kRowBytes, is_valid ? a + row_offset[i] + k : a,
              is_valid);
    }
    const int64_t step =
        static_cast<int64_t>(interleaves() ? kRowsPerCopy / 2 : kRowsPerCopy) * product.k;
#pragma unroll
    for (int i = 0; i < kColumnCopies; ++i) {
      if (T::kColumns % kRowsPerCopy != 0 && row + i * kRowsPerCopy >= T::kColumns) {
        continue;
      }
      const bool is_valid = is_inside && i < n_valid;
      copy_16(target + T::kRowPieceBytes + i * kRowsPerCopy * kRowBytes,
              is_valid ? b + i * step + k : b, is_valid);
    }
    if (++piece == pieces) {
      piece = 0;
      tile += static_cast<int>(gridDim.x);
      enter();
    }
  }
};

#if LOGITLAB_HAS_WGMMA

// acc += the stage's piece, for the first kUsed of a thread's fragments; returns before it is done.
template <typename T, int kUsed>
__device__ void multiply_piece(uint32_t stage, bool is_first, float (&acc)[T::kFragments][4]) {
  if constexpr (kUsed > 0) {
    const int group = static_cast<int>(threadIdx.x) / 128;
    const int group_row = group / T::kGroupColumns;
    const int group_column = group % T::kGroupColumns;
    const uint64_t a = wgmma_descriptor(stage + group_row * 64 * kRowBytes);
    const uint64_t b = wgmma_descriptor(stage + T::kRowPieceBytes +
                                        group_column * T::kFragmentColumns * 8 * kRowBytes);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      // 16 elements of k further within the row: 32 bytes.
      wgmma(reinterpret_cast<float(&)[kUsed][4]>(acc), a + 2 * i, b + 2 * i, !is_first || i > 0);
    }
    wgmma_commit();
  }
}

// Fragments of this warpgroup that hold elements of the product: what lies outside is not worth
// multiplying.
template <typename T>
__device__ int used_fragments(const Product& product, const Place& place) {
  const int group = static_cast<int>(threadIdx.x) / 128;
  const int row = place.first_row + group / T::kGroupColumns * 64;
  const int column = place.first_column + group % T::kGroupColumns * T::kFragmentColumns * 8;
  return row < place.end_row ? (n_columns(product) - column + 7) / 8 : 0;
}

// Row and column in the tile of acc[0][0]; fragment f is 8 f columns further.
template <typename T>
__device__ int2 first_element() {
  const int group = static_cast<int>(threadIdx.x) / 128;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return {group / T::kGroupColumns * 64 + warp * 16 + lane / 4,
          group % T::kGroupColumns * T::kFragmentColumns * 8 + lane % 4 * 2};
}

#else

template <typename T, int kUsed>
__device__ void multiply_piece(uint32_t stage, bool is_first, float (&acc)[T::kFragments][4]) {
  if constexpr (kUsed == 0) {
    return;
  }
  constexpr int kM = T::kFragmentRows;
  constexpr int kN = T::kFragmentColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (is_first) {
#pragma unroll
    for (int f = 0; f < T::kFragments; ++f) {
      acc[f][0] = acc[f][1] = acc[f][2] = acc[f][3] = 0;
    }
  }
  const uint32_t a_row = stage + (warp / 4 * kM * 16 + lane % 16) * kRowBytes;
  const uint32_t b_row =
      stage + T::kRowPieceBytes + (warp % 4 * kN * 8 + lane % 8 + lane / 16 * 8) * kRowBytes;
#pragma unroll
  for (int i = 0; i < kDepth / 16; ++i) {
    const uint32_t a_piece = static_cast<uint32_t>((2 * i + lane / 16) ^ (lane % 8)) << 4;
    const uint32_t b_piece = static_cast<uint32_t>((2 * i + lane / 8 % 2) ^ (lane % 8)) << 4;
    uint32_t a[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      load_matrices(a[m], a_row + m * 16 * kRowBytes + a_piece);
    }
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t b[4];
      load_matrices(b, b_row + n * 8 * kRowBytes + b_piece);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply(acc[m * kN + n], a[m], b[0], b[1]);
        multiply(acc[m * kN + n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// As above, of this warp: all or none.
template <typename T>
__device__ int used_fragments(const Product& product, const Place& place) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = place.first_row + warp / 4 * T::kFragmentRows * 16;
  const int column = place.first_column + warp % 4 * T::kFragmentColumns * 8;
  return row < place.end_row && column < n_columns(product) ? T::kFragmentColumns : 0;
}

template <typename T>
__device__ int2 first_element() {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return {warp / 4 * T::kFragmentRows * 16 + lane / 4,
          warp % 4 * T::kFragmentColumns * 8 + lane % 4 * 2};
}

#endif

__device__ inline float silu(float x) {
  return x / (1.0F + expf(-x));
}

template <Sink kSink>
__device__ float through(float value) {
  if constexpr (kSink == Sink::kRelu2) {
    const float positive = fmaxf(value, 0.0F);
    return positive * positive;
  } else if constexpr (kSink == Sink::kSilu) {
    return silu(value);
  } else {
    return value;
  }
}

// Two neighbouring values of a row; the second may lie past the last column.
template <Sink kSink>
__device__ void put(const Product& product, int row, int column, float first, float second) {
  const int64_t at = static_cast<int64_t>(row) * product.ldo + column;
  const bool has_second = column + 1 < product.n;
  if constexpr (kSink == Sink::kFloat || kSink == Sink::kAdd) {
    float* const out = static_cast<float*>(product.out) + at;
    if (has_second) {
      float2 pair = {first, second};
      if constexpr (kSink == Sink::kAdd) {
        const float2 old = *reinterpret_cast<const float2*>(out);
        pair = {old.x + first, old.y + second};
      }
      *reinterpret_cast<float2*>(out) = pair;
    } else {
      *out = kSink == Sink::kAdd ? *out + first : first;
    }
  } else {
    __nv_bfloat16* const out = static_cast<__nv_bfloat16*>(product.out) + at;
    if (has_second) {
      *reinterpret_cast<uint32_t*>(out) = pack(first, second);
    } else {
      *out = __float2bfloat16_rn(first);
    }
  }
}

template <typename T, Sink kSink>
__device__ void store(const Product& product, const Place& place,
                      const float (&acc)[T::kFragments][4]) {
  constexpr int kStep = kSink == Sink::kSiluMul ? 2 : 1;
  const int2 first = first_element<T>();
#pragma unroll
  for (int n = 0; n < T::kFragmentColumns; n += kStep) {
    int column = place.first_column + first.y + n * 8;
    if constexpr (kSink == Sink::kSiluMul) {
      // Fragments come in pairs of 16 rows of b that make 8 columns.
      column = (place.first_column + first.y / 8 * 8 + n * 8) / 2 + first.y % 8;
    }
    if (column >= product.n) {
      continue;
    }
    const int second = min(column + 1, product.n - 1);
    float bias[4] = {};
    if (product.bias != nullptr) {
      bias[0] = product.bias[column];
      bias[1] = product.bias[second];
      if constexpr (kSink == Sink::kSiluMul) {
        bias[2] = product.bias[product.n + column];
        bias[3] = product.bias[product.n + second];
      }
    }
#pragma unroll
    for (int m = 0; m < 2 * T::kFragmentRows; ++m) {
      const int row = place.first_row + first.x + m * 8;
      if (row >= place.end_row) {
        continue;
      }
      const int f = m / 2 * T::kFragmentColumns + n;
      const int i = m % 2 * 2;
      float left = through<kSink>(acc[f][i] + bias[0]);
      float right = through<kSink>(acc[f][i + 1] + bias[1]);
      if constexpr (kSink == Sink::kSiluMul) {
        left = silu(left) * (acc[f + 1][i] + bias[2]);
        right = silu(right) * (acc[f + 1][i + 1] + bias[3]);
      }
      put<kSink>(product, row, column, left, right);
    }
  }
}

template <typename T>
__device__ void store_as_asked(const Product& product, const Place& place,
                               const float (&acc)[T::kFragments][4]) {
  switch (product.sink) {
    case Sink::kFloat:
      return store<T, Sink::kFloat>(product, place, acc);
    case Sink::kAdd:
      return store<T, Sink::kAdd>(product, place, acc);
    case Sink::kBf16:
      return store<T, Sink::kBf16>(product, place, acc);
    case Sink::kRelu2:
      return store<T, Sink::kRelu2>(product, place, acc);
    case Sink::kSilu:
      return store<T, Sink::kSilu>(product, place, acc);
    case Sink::kSiluMul:
      return store<T, Sink::kSiluMul>(product, place, acc);
  }
}

// The stages' ring: what is multiplied next and what is filled next.
struct Ring {
  uint32_t stages;
  int current = 0;
  int next = 0;
};

// All pieces of one tile. Warps of a block may be in different instances of this: the barrier is
// the same.
template <typename T, int kUsed>
__device__ void multiply_tile(Loader<T>& loader, Ring& ring, float (&acc)[T::kFragments][4]) {
  for (int piece = 0; piece < loader.pieces; ++piece) {
    wait_copies<T::kAhead - 1>();
#if LOGITLAB_HAS_WGMMA
    fence_for_wgmma();
#endif
    asm volatile("bar.sync 1, %0;\n" ::"n"(T::kThreads) : "memory");
    multiply_piece<T, kUsed>(ring.stages + ring.current * T::kStageBytes, piece == 0, acc);
    loader.copy(ring.stages + ring.next * T::kStageBytes);
    commit_copies();
#if LOGITLAB_HAS_WGMMA
    // The piece before is done: after the next barrier its stage may be filled.
    wgmma_wait<1>();
#endif
    ring.current = ring.current + 1 == T::kStages ? 0 : ring.current + 1;
    ring.next = ring.next + 1 == T::kStages ? 0 : ring.next + 1;
  }
#if LOGITLAB_HAS_WGMMA
  wgmma_wait<0>();
#endif
}

template <typename T>
__device__ void multiply_used(int used, Loader<T>& loader, Ring& ring,
                              float (&acc)[T::kFragments][4]) {
  constexpr int kAll = T::kFragmentColumns;
  if (used <= 0) {
    return multiply_tile<T, 0>(loader, ring, acc);
  }
#if LOGITLAB_HAS_WGMMA
  if constexpr (kAll > 8) {
    if (used <= 8) {
      return multiply_tile<T, 8>(loader, ring, acc);
    }
  }
  if constexpr (kAll > 16) {
    if (used <= 16) {
      return multiply_tile<T, 16>(loader, ring, acc);
    }
  }
#endif
  multiply_tile<T, kAll>(loader, ring, acc);
}

// See Product. Grid: any number of blocks of T::kThreads.
template <typename T>
__global__ void __launch_bounds__(T::kThreads, 1)
    product_kernel(const __grid_constant__ Product p) {
  extern __shared__ char shared[];
  Ring ring;
  ring.stages = (shared_address(shared) + 1023) / 1024 * 1024;
  const int n_all = n_tiles<T>(p);
  Loader<T> loader(p, static_cast<int>(blockIdx.x), n_all);
  for (; ring.next < T::kAhead; ++ring.next) {
    loader.copy(ring.stages + ring.next * T::kStageBytes);
    commit_copies();
  }
  float acc[T::kFragments][4];
  for (int tile = static_cast<int>(blockIdx.x); tile < n_all; tile += gridDim.x) {
    const Place place = place_of<T>(p, tile);
    multiply_used<T>(used_fragments<T>(p, place), loader, ring, acc);
    store_as_asked<T>(p, place, acc);
  }
  wait_copies<0>();
}

template <typename T>
cudaError_t launch(const DeviceLimits& limits, const Product& product, int64_t most_tiles,
                   cudaStream_t stream) {
  const cudaError_t error = cudaFuncSetAttribute(
      product_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kSharedBytes);
  if (error != cudaSuccess) {
    return error;
  }
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(most_tiles, limits.n_processors));
  product_kernel<T><<<blocks, T::kThreads, T::kSharedBytes, stream>>>(product);
  return cudaGetLastError();
}

using Large = Tile<128, 256, 4>;
using Wide = Tile<64, 256, 5>;
using Small = Tile<64, 128, 4>;
using Square = Tile<128, 128, 3>;
using Tall = Tile<192, 256, 4>;

// A tile shape's cost: rounds over the processors times the time of a tile, in units of Large's.
// From prefill_check products on an H200 (wgmma), at 8192 rows and the sizes of Nemotron-3-Nano;
// Square is there for devices with 99 KB.
struct Choice {
  int rows;
  int columns;
  int shared_bytes;
  double cost;
};

constexpr std::array<Choice, kProductTiles> kChoices = {{
    {Large::kRows, Large::kColumns, Large::kSharedBytes, 1.0},
    {Wide::kRows, Wide::kColumns, Wide::kSharedBytes, 0.72},
    {Square::kRows, Square::kColumns, Square::kSharedBytes, 0.95},
    {Small::kRows, Small::kColumns, Small::kSharedBytes, 0.5},
    {Tall::kRows, Tall::kColumns, Tall::kSharedBytes, 1.45},
}};

// Tiles of the product; of a grouped one an estimate for equal shares, which cannot be known here.
int64_t count_tiles(const Product& product, const Choice& choice) {
  const int64_t columns =
      product.sink == Sink::kSiluMul ? int64_t{2} * product.n : int64_t{product.n};
  const int64_t column_tiles = (columns + choice.columns - 1) / choice.columns;
  int64_t row_tiles = (product.m + choice.rows - 1) / choice.rows;
  if (product.groups.n > 0) {
    const int64_t busy = std::min(product.groups.n, product.m);
    const double share = static_cast<double>(product.m) / static_cast<double>(busy) / choice.rows;
    // On average the last tile of a share that fills several is half empty.
    const double tiles = share <= 0.75 ? 1.0 : share + 0.5;
    row_tiles = static_cast<int64_t>(tiles * static_cast<double>(busy));
  }
  return row_tiles * column_tiles;
}

// Number of the choice that costs least, or kChoices.size() where none fits the device.
size_t cheapest(const DeviceLimits& limits, const Product& product) {
  size_t best = kChoices.size();
  double best_cost = 0;
  for (size_t i = 0; i < kChoices.size(); ++i) {
    // Groups have no count of tiles of other heights.
    const bool is_known = product.groups.n == 0 || kChoices[i].rows <= 128;
    if (kChoices[i].shared_bytes > limits.shared_bytes || !is_known) {
      continue;
    }
    const int64_t tiles = count_tiles(product, kChoices[i]);
    const int64_t rounds = (tiles + limits.n_processors - 1) / limits.n_processors;
    const double cost = static_cast<double>(rounds) * kChoices[i].cost;
    if (best == kChoices.size() || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace

cudaError_t read_limits(DeviceLimits* limits) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&limits->n_processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&limits->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                   device);
  }
  return error;
}

cudaError_t multiply_rows(const DeviceLimits& limits, const Product& product, cudaStream_t stream,
                          int tile) {
  const size_t best = tile >= 0 ? static_cast<size_t>(tile) : cheapest(limits, product);
  if (best >= kChoices.size() || kChoices[best].shared_bytes > limits.shared_bytes) {
    return cudaErrorInvalidConfiguration;
  }
  const int64_t most =
      product.groups.n > 0 ? limits.n_processors : count_tiles(product, kChoices[best]);
  switch (best) {
    case 0:
      return launch<Large>(limits, product, most, stream);
    case 1:
      return launch<Wide>(limits, product, most, stream);
    case 2:
      return launch<Square>(limits, product, most, stream);
    case 3:
      return launch<Small>(limits, product, most, stream);
    default:
      return launch<Tall>(limits, product, most, stream);
  }
}

}  // namespace logitlab::cuda::chunk
