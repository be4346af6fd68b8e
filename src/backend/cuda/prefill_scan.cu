// The Mamba-2 recurrence of a chunk by matrix products (model-architectures: chunked SSD), in inner
// chunks of kScanRows rows whose borders are the same wherever a caller cuts at multiples of it.
//
// With L_t the sum of exponents up to row t of an inner chunk, x' = step x and S the state before:
//   y_t = 2^L_t S C_t + sum_{j <= t} 2^(L_t - L_j) (C_t . B_j) x'_j + d x_t
//   S  <- 2^L_end S + sum_j 2^(L_end - L_j) x'_j (outer) B_j
// Exponents are differences, at most 0. The state is float32 in registers for all rows; both inputs
// of a product are split into high and low BF16 parts (16 bits of mantissa), of whose four products
// the smallest is left out.
#include <algorithm>

#include "backend/cuda/prefill_mma.cuh"
#include "backend/cuda/prefill_ops.h"

namespace logitlab::cuda::chunk {
namespace {

constexpr unsigned kAll = 0xffffffffU;
constexpr int kThreads = 256;
constexpr int kPartRows = 32;   // rows (p) of a head's state that a block has
constexpr int kStride = 36;     // of float rows of 32 in shared memory: free of bank conflicts
constexpr int kStateWarps = 4;  // that share a row of the state

// Two BF16 parts of a pair of values.
struct Pair {
  uint32_t high;
  uint32_t low;
};

__device__ inline Pair split(float a, float b) {
  const __nv_bfloat162 high = __floats2bfloat162_rn(a, b);
  return {*reinterpret_cast<const uint32_t*>(&high),
          pack(a - __low2float(high), b - __high2float(high))};
}

// c += (a_high + a_low) (b_high + b_low), without the product of the low parts.
__device__ inline void multiply_parts(float (&c)[4], const uint32_t (&a_high)[4],
                                      const uint32_t (&a_low)[4], Pair b0, Pair b1) {
  multiply(c, a_low, b0.high, b1.high);
  multiply(c, a_high, b0.low, b1.low);
  multiply(c, a_high, b0.high, b1.high);
}

// An inner chunk in shared memory, zeros where a row or state does not exist. kStates: a multiple
// of 64, at least state_size.
template <int kStates>
struct Stage {
  __nv_bfloat16 b[2][kScanRows][kStates];  // high, low
  __nv_bfloat16 c[2][kScanRows][kStates];
  float x[kScanRows][kStride];     // [row, p]
  float gram[kScanRows][kStride];  // [row t, row j]
  float2 steps[kScanRows];
};

// Address of 16-byte piece `piece` of a row of kStates BF16; see prefill_mma.cuh.
template <int kStates>
__device__ uint32_t piece_address(const __nv_bfloat16 (*rows)[kStates], int row, int piece) {
  return shared_address(rows[row]) + static_cast<uint32_t>((piece ^ (row % 8)) * 16);
}

// Copies B and C of rows [first, first + kScanRows) of the chunk, by kCopyThreads threads; rows
// that do not exist become zeros.
template <int kStates, int kCopyThreads>
__device__ void copy_parts(Stage<kStates>* stage, const MambaLayer& layer, const MambaRows& rows,
                           int group, int first) {
  constexpr int kPieces = kStates / 8;
  constexpr int kRowsPerCopy = kCopyThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const int first_row = static_cast<int>(threadIdx.x) / kPieces;
  const bool has_piece = piece * 8 < rows.padded_states;
  const int64_t c_offset = static_cast<int64_t>(layer.n_groups) * rows.padded_states;
#pragma unroll
  for (int row = first_row; row < kScanRows; row += kRowsPerCopy) {
    const int r = first + row;
    const bool is_valid = has_piece && r >= 0 && r < rows.rows;
    const __nv_bfloat16* const from =
        rows.parts + (is_valid ? static_cast<int64_t>(r) * 2 * rows.ld_parts +
                                     group * rows.padded_states + piece * 8
                               : 0);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      copy_16(piece_address<kStates>(stage->b[part], row, piece), from + part * rows.ld_parts,
              is_valid);
      copy_16(piece_address<kStates>(stage->c[part], row, piece),
              from + part * rows.ld_parts + (is_valid ? c_offset : 0), is_valid);
    }
  }
}

constexpr int kGramThreads = 128;

// grams[chunk, group] = C B^T of the inner chunk; what lies above the diagonal's blocks is not
// written. Grid: (inner chunks, groups). first: row of the chunk where inner chunk 0 begins, <= 0.
template <int kStates>
__global__ void __launch_bounds__(kGramThreads)
    gram_kernel(const __grid_constant__ MambaLayer layer, const __grid_constant__ MambaRows rows,
                int first) {
  extern __shared__ __align__(128) char shared[];
  auto& stage = *reinterpret_cast<Stage<kStates>*>(shared);
  const int group = static_cast<int>(blockIdx.y);
  copy_parts<kStates, kGramThreads>(&stage, layer, rows, group,
                                    first + static_cast<int>(blockIdx.x) * kScanRows);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int t = static_cast<int>(threadIdx.x) / 32 % 2 * 16;
  const int j = static_cast<int>(threadIdx.x) / 64 * 16;
  if (j > t) {
    return;
  }
  float acc[2][4] = {};
#pragma unroll
  for (int k = 0; k < kStates / 16; ++k) {
    uint32_t c[2][4];
    uint32_t b[2][4];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      load_matrices(c[part],
                    piece_address<kStates>(stage.c[part], t + lane % 16, 2 * k + lane / 16));
      load_matrices(b[part], piece_address<kStates>(stage.b[part], j + lane % 8 + lane / 16 * 8,
                                                    2 * k + lane / 8 % 2));
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      multiply_parts(acc[n], c[0], c[1], {b[0][2 * n], b[1][2 * n]},
                     {b[0][2 * n + 1], b[1][2 * n + 1]});
    }
  }
  float* const out = rows.grams + (static_cast<int64_t>(blockIdx.x) * layer.n_groups + group) *
                                      kScanRows * kScanRows;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      *reinterpret_cast<float2*>(out + (t + lane / 4 + h * 8) * kScanRows + j + n * 8 +
                                 lane % 4 * 2) = {acc[n][2 * h], acc[n][2 * h + 1]};
    }
  }
}

// What a block of scan_kernel works on.
struct Part {
  int head;
  int group;
  int first_p;
  int n_p;
};

template <int kStates>
__device__ void copy_stage(Stage<kStates>* stage, const MambaLayer& layer, const MambaRows& rows,
                           const Part& part, int chunk, int first) {
  copy_parts<kStates, kThreads>(stage, layer, rows, part.group, first);
  const float* const x = rows.x + static_cast<int64_t>(part.head) * layer.head_dim + part.first_p;
  if (part.n_p % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    const int row = static_cast<int>(threadIdx.x) / 8;
    const int p = static_cast<int>(threadIdx.x) % 8 * 4;
    const int r = first + row;
    const bool is_valid = r >= 0 && r < rows.rows && p < part.n_p;
    copy_16(shared_address(&stage->x[row][p]),
            is_valid ? x + static_cast<int64_t>(r) * rows.ld_x + p : x, is_valid);
  } else {
    for (int i = threadIdx.x; i < kScanRows * kPartRows; i += kThreads) {
      const int row = i / kPartRows;
      const int p = i % kPartRows;
      const int r = first + row;
      const bool is_valid = r >= 0 && r < rows.rows && p < part.n_p;
      copy_4(shared_address(&stage->x[row][p]),
             is_valid ? x + static_cast<int64_t>(r) * rows.ld_x + p : x, is_valid);
    }
  }
  const float* const gram =
      rows.grams +
      (static_cast<int64_t>(chunk) * layer.n_groups + part.group) * kScanRows * kScanRows;
  static_assert(kThreads == kScanRows * kPartRows / 4 && kThreads == kScanRows * kScanRows / 4);
  copy_16(shared_address(&stage->gram[threadIdx.x / 8][threadIdx.x % 8 * 4]),
          gram + threadIdx.x * 4, true);
  if (threadIdx.x < 2 * kScanRows) {
    const int row = static_cast<int>(threadIdx.x) / 2;
    const int r = first + row;
    const bool is_valid = r >= 0 && r < rows.rows;
    const auto* const from = reinterpret_cast<const float*>(
        rows.steps + (is_valid ? static_cast<int64_t>(r) * layer.n_heads + part.head : 0));
    copy_4(shared_address(&stage->steps[row]) + threadIdx.x % 2 * 4, from + threadIdx.x % 2,
           is_valid);
  }
}

// Exponents and steps of an inner chunk, in the places of a fragment's k: value [k][i] belongs to
// row 16 k + 2 (lane % 4) + i % 2 + i / 2 * 8.
struct Times {
  float sum;         // L of row `lane`
  float end;         // L of the last row
  float at[2][4];    // L
  float step[2][4];  // time steps
};

__device__ inline Times read_times(const float2* steps) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float2 mine = steps[lane];
  Times times;
  times.sum = mine.y;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const float other = __shfl_up_sync(kAll, times.sum, distance);
    times.sum += lane >= distance ? other : 0.0F;
  }
  times.end = __shfl_sync(kAll, times.sum, 31);
#pragma unroll
  for (int k = 0; k < 2; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * k + 2 * (lane % 4) + i % 2 + i / 2 * 8;
      times.at[k][i] = __shfl_sync(kAll, times.sum, row);
      times.step[k][i] = __shfl_sync(kAll, mine.x, row);
    }
  }
  return times;
}

// Rows t..t + 15 and columns p..p + 7 of sum_{j <= t} 2^(L_t - L_j) gram[t, j] x'_j.
template <int kStates>
__device__ void multiply_inside(const Stage<kStates>& stage, const Times& times, int t, int p,
                                float (&acc)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = t + lane / 4;
  const float at_row[2] = {__shfl_sync(kAll, times.sum, row),
                           __shfl_sync(kAll, times.sum, row + 8)};
  acc[0] = acc[1] = acc[2] = acc[3] = 0;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    if (16 * k > t) {
      continue;
    }
    const int j = 16 * k + 2 * (lane % 4);
    uint32_t high[4];
    uint32_t low[4];
    Pair x[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // columns j, j + 1 or j + 8, j + 9
#pragma unroll
      for (int h = 0; h < 2; ++h) {  // rows row or row + 8
        float m[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int column = j + 8 * i + e;
          // What lies above the diagonal may be anything.
          m[e] = column <= row + 8 * h ? stage.gram[row + 8 * h][column] *
                                             exp2_fast(at_row[h] - times.at[k][2 * i + e])
                                       : 0.0F;
        }
        const Pair pair = split(m[0], m[1]);
        high[2 * i + h] = pair.high;
        low[2 * i + h] = pair.low;
      }
      x[i] = split(stage.x[j + 8 * i][p + lane / 4] * times.step[k][2 * i],
                   stage.x[j + 8 * i + 1][p + lane / 4] * times.step[k][2 * i + 1]);
    }
    multiply_parts(acc, high, low, x[0], x[1]);
  }
}

// This warp's part of the state: 16 rows (p) by kFragments * 8 states.
template <int kStates>
struct State {
  static constexpr int kFragments = kStates / kStateWarps / 8;
  float s[kFragments][4];
};

// acc[m][h] = rows 16 m.. and columns p + 8 h.. of C S^T, over this warp's states alone.
template <int kStates>
__device__ void multiply_state(const Stage<kStates>& stage, const State<kStates>& state, int part,
                               float (&acc)[2][2][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    acc[0][0][i] = acc[0][1][i] = acc[1][0][i] = acc[1][1][i] = 0;
  }
#pragma unroll
  for (int k = 0; k < State<kStates>::kFragments / 2; ++k) {
    const int piece = part * State<kStates>::kFragments + 2 * k + lane / 16;
    Pair s[2][2];  // the state's fragments are those of S^T as they are
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        s[h][i] = split(state.s[2 * k + i][2 * h], state.s[2 * k + i][2 * h + 1]);
      }
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      uint32_t high[4];
      uint32_t low[4];
      load_matrices(high, piece_address<kStates>(stage.c[0], m * 16 + lane % 16, piece));
      load_matrices(low, piece_address<kStates>(stage.c[1], m * 16 + lane % 16, piece));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        multiply_parts(acc[m][h], high, low, s[h][0], s[h][1]);
      }
    }
  }
}

// S <- 2^L_end S + sum_j 2^(L_end - L_j) x'_j (outer) B_j, rows p.. of the block.
template <int kStates>
__device__ void move_state(const Stage<kStates>& stage, const Times& times, int part, int p,
                           State<kStates>* state) {
  constexpr int kFragments = State<kStates>::kFragments;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float decay = exp2_fast(times.end);
#pragma unroll
  for (int f = 0; f < kFragments; ++f) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      state->s[f][i] *= decay;
    }
  }
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    float scale[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scale[i] = times.step[k][i] * exp2_fast(times.end - times.at[k][i]);
    }
    uint32_t high[4];
    uint32_t low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // rows p or p + 8 of x^T, then columns further by 8
      const int row = p + lane / 4 + i % 2 * 8;
      const int j = 16 * k + 2 * (lane % 4) + i / 2 * 8;
      const Pair pair =
          split(stage.x[j][row] * scale[i / 2 * 2], stage.x[j + 1][row] * scale[i / 2 * 2 + 1]);
      high[i] = pair.high;
      low[i] = pair.low;
    }
#pragma unroll
    for (int f = 0; f < kFragments; f += 2) {
      const int piece = part * kFragments + f + lane / 16;
      uint32_t b[2][4];
      load_matrices_transposed(b[0], piece_address<kStates>(stage.b[0], 16 * k + lane % 16, piece));
      load_matrices_transposed(b[1], piece_address<kStates>(stage.b[1], 16 * k + lane % 16, piece));
      multiply_parts(state->s[f], high, low, {b[0][0], b[1][0]}, {b[0][1], b[1][1]});
      multiply_parts(state->s[f + 1], high, low, {b[0][2], b[1][2]}, {b[0][3], b[1][3]});
    }
  }
}

// Reads (or writes back) this warp's part of the state; ssm: the block's rows.
template <int kStates, bool kWrites>
__device__ void move_registers(const MambaLayer& layer, const Part& block, int part, int p,
                               float* ssm, State<kStates>* state) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int f = 0; f < State<kStates>::kFragments; ++f) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = p + lane / 4 + i / 2 * 8;
      const int n = (part * State<kStates>::kFragments + f) * 8 + lane % 4 * 2 + i % 2;
      const bool is_valid = row < block.n_p && n < layer.state_size;
      float* const at = ssm + static_cast<int64_t>(row) * layer.state_size + n;
      if constexpr (kWrites) {
        if (is_valid) {
          *at = state->s[f][i];
        }
      } else {
        state->s[f][i] = is_valid ? *at : 0.0F;
      }
    }
  }
}

__device__ inline int sum_column(int row, int column) {
  return column ^ (row % 4 * 8);
}

template <int kStates>
struct ScanShared {
  // C S^T of each part of the states; columns are permuted by sum_column(). A stride of 36 would
  // not fit the 99 KB that some devices have.
  float sums[kStateWarps][kScanRows][kPartRows];
  Stage<kStates> stages[2];
};

// y of one head's kPartRows rows of the state in place of x, for all rows of the chunk in order.
// ssm: the layer's [n_heads, head_dim, state_size]. Grid: (parts of head_dim, heads). first: row of
// the chunk where inner chunk 0 begins, <= 0.
template <int kStates>
__global__ void __launch_bounds__(kThreads, 1)
    scan_kernel(const __grid_constant__ MambaLayer layer, const __grid_constant__ MambaRows rows,
                float* ssm, int first, int n_chunks) {
  extern __shared__ __align__(128) char shared[];
  auto& memory = *reinterpret_cast<ScanShared<kStates>*>(shared);
  Part block;
  block.head = static_cast<int>(blockIdx.y);
  block.group = block.head / (layer.n_heads / layer.n_groups);
  block.first_p = static_cast<int>(blockIdx.x) * kPartRows;
  block.n_p = min(kPartRows, layer.head_dim - block.first_p);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int state_p = warp % 2 * 16;  // of the state's products: 16 rows by a part of the states
  const int part = warp / 2;
  const int t = warp % 2 * 16;  // of y: 16 rows by 8 columns
  const int p = warp / 2 * 8;
  float* const block_ssm =
      ssm + (static_cast<int64_t>(block.head) * layer.head_dim + block.first_p) * layer.state_size;
  State<kStates> state;
  move_registers<kStates, false>(layer, block, part, state_p, block_ssm, &state);
  const float d = layer.d[block.head];
  float* const out = rows.x + static_cast<int64_t>(block.head) * layer.head_dim + block.first_p;
  copy_stage(&memory.stages[0], layer, rows, block, 0, first);
  commit_copies();
  for (int chunk = 0; chunk < n_chunks; ++chunk, first += kScanRows) {
    const Stage<kStates>& stage = memory.stages[chunk % 2];
    wait_copies<0>();
    __syncthreads();
    if (chunk + 1 < n_chunks) {
      copy_stage(&memory.stages[(chunk + 1) % 2], layer, rows, block, chunk + 1, first + kScanRows);
    }
    commit_copies();
    const Times times = read_times(stage.steps);
    float acc[2][2][4];
    multiply_state(stage, state, part, acc);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = i / 4 * 16 + lane / 4 + i % 2 * 8;
      const int column = sum_column(row, state_p + i / 2 % 2 * 8 + lane % 4 * 2);
      const float* const pair = &acc[i / 4][i / 2 % 2][i % 2 * 2];
      *reinterpret_cast<float2*>(&memory.sums[part][row][column]) = {pair[0], pair[1]};
    }
    move_state(stage, times, part, state_p, &state);
    float inside[4];
    multiply_inside(stage, times, t, p, inside);
    __syncthreads();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = t + lane / 4 + h * 8;
      const int column = p + lane % 4 * 2;
      const int at = sum_column(row, column);
      float2 sum = {0, 0};
#pragma unroll
      for (int i = 0; i < kStateWarps; ++i) {
        const float2 add = *reinterpret_cast<const float2*>(&memory.sums[i][row][at]);
        sum = {sum.x + add.x, sum.y + add.y};
      }
      const float decay = exp2_fast(__shfl_sync(kAll, times.sum, row));
      const float2 x = *reinterpret_cast<const float2*>(&stage.x[row][column]);
      const int r = first + row;
      if (r < 0 || r >= rows.rows) {
        continue;
      }
      float* const to = out + static_cast<int64_t>(r) * rows.ld_x + column;
      if (column < block.n_p) {
        to[0] = fmaf(d, x.x, fmaf(decay, sum.x, inside[2 * h]));
      }
      if (column + 1 < block.n_p) {
        to[1] = fmaf(d, x.y, fmaf(decay, sum.y, inside[2 * h + 1]));
      }
    }
  }
  move_registers<kStates, true>(layer, block, part, state_p, block_ssm, &state);
}

template <int kStates>
cudaError_t launch(const DeviceLimits& limits, const MambaLayer& layer, const MambaRows& rows,
                   float* ssm, int start, cudaStream_t stream) {
  constexpr int kGramBytes = sizeof(Stage<kStates>);
  constexpr int kScanBytes = sizeof(ScanShared<kStates>);
  if (kScanBytes > limits.shared_bytes) {
    return cudaErrorNotSupported;
  }
  cudaError_t error = cudaFuncSetAttribute(gram_kernel<kStates>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, kGramBytes);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(scan_kernel<kStates>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 kScanBytes);
  }
  if (error != cudaSuccess) {
    return error;
  }
  const int first = -(start % kScanRows);
  const int n_chunks = (rows.rows - first + kScanRows - 1) / kScanRows;
  gram_kernel<kStates>
      <<<dim3(n_chunks, layer.n_groups), kGramThreads, kGramBytes, stream>>>(layer, rows, first);
  const dim3 grid((layer.head_dim + kPartRows - 1) / kPartRows, layer.n_heads);
  scan_kernel<kStates><<<grid, kThreads, kScanBytes, stream>>>(layer, rows, ssm, first, n_chunks);
  return cudaGetLastError();
}

}  // namespace

cudaError_t scan(const DeviceLimits& limits, const MambaLayer& layer, const Sequence& sequence,
                 const MambaRows& rows, cudaStream_t stream) {
  float* const ssm =
      sequence.ssm + static_cast<int64_t>(layer.state_layer) * layer.inner() * layer.state_size;
  if (layer.state_size <= 64) {
    return launch<64>(limits, layer, rows, ssm, sequence.length, stream);
  }
  if (layer.state_size <= 128) {
    return launch<128>(limits, layer, rows, ssm, sequence.length, stream);
  }
  if (layer.state_size <= 256) {
    return launch<256>(limits, layer, rows, ssm, sequence.length, stream);
  }
  return cudaErrorNotSupported;
}

}  // namespace logitlab::cuda::chunk
