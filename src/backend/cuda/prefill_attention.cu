// Attention of a chunk's rows: keys and values go into their pages, then the rows attend over the
// pages in ascending order with a running maximum (softmax in float32; queries, keys, values and
// weights enter the products as BF16).
#include "backend/cuda/prefill_mma.cuh"
#include "backend/cuda/prefill_ops.h"

namespace logitlab::cuda::chunk {
namespace {

constexpr int kMaxHeadDim = 256;
constexpr int kPlaceWarps = 4;

// See place_keys. A warp has one head of one row: queries, then keys, then values.
__global__ void __launch_bounds__(kPlaceWarps * 32)
    place_kernel(const __grid_constant__ AttentionLayer layer, const RopeTable rope,
                 const KvPool kv, const Sequence sequence, const float* qkv, int ld_qkv, int rows,
                 __nv_bfloat16* queries) {
  __shared__ float vectors[kPlaceWarps][kMaxHeadDim];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int n_all = layer.n_heads + 2 * layer.n_kv_heads;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kPlaceWarps + warp;
  const int row = static_cast<int>(index / n_all);
  if (row >= rows) {
    return;
  }
  const int head = static_cast<int>(index % n_all);
  const int n = layer.head_dim;
  const bool is_query = head < layer.n_heads;
  const bool is_value = head >= layer.n_heads + layer.n_kv_heads;
  const int position = sequence.length + row;
  float* const v = vectors[warp];
  const float* const from = qkv + static_cast<int64_t>(row) * ld_qkv + head * n;
  float squares = 0;
  for (int i = lane; i < n; i += 32) {
    v[i] = from[i];
    squares += v[i] * v[i];
  }
  const float* const gain = is_value ? nullptr : is_query ? layer.q_norm : layer.k_norm;
  if (gain != nullptr) {
    const float scale =
        1.0F / sqrtf(sum_of_warp(squares) / static_cast<float>(n) + layer.qk_norm_eps);
    for (int i = lane; i < n; i += 32) {
      v[i] = gain[i] * (v[i] * scale);
    }
  }
  __syncwarp();
  if (layer.has_rope && !is_value) {
    const int half = rope.rotary_dim / 2;
    for (int i = lane; i < half; i += 32) {
      const float angle = static_cast<float>(position) * rope.inv_freq[i];
      const float cosine = cosf(angle) * rope.attention_factor;
      const float sine = sinf(angle) * rope.attention_factor;
      const int first = rope.interleaved ? 2 * i : i;
      const int second = rope.interleaved ? 2 * i + 1 : i + half;
      const float a = v[first];
      const float b = v[second];
      v[first] = a * cosine - b * sine;
      v[second] = b * cosine + a * sine;
    }
    __syncwarp();
  }
  __nv_bfloat16* to = queries + (static_cast<int64_t>(row) * layer.n_heads + head) * n;
  if (!is_query) {
    const int kv_head = (head - layer.n_heads) % layer.n_kv_heads;
    to = kv.at(sequence.page_table[position / kPagePositions], layer.state_layer, is_value ? 1 : 0,
               kv_head) +
         position % kPagePositions * n;
  }
  for (int i = lane; i < n; i += 32) {
    to[i] = __float2bfloat16_rn(v[i]);
  }
}

struct AttendArguments {
  KvPool kv;
  const int* page_table;
  const __nv_bfloat16* queries;
  __nv_bfloat16* out;
  float scale;  // with log2(e): scores are exponents of 2
  int n_heads;
  int n_kv_heads;
  int head_dim;
  int window;
  int state_layer;
  int start;  // positions before the chunk
  int rows;
};

constexpr int kAttendThreads = 128;

// A block's 4 warps have kWarpRows queries each and take kPagePositions keys at a time. kDim: at
// least head_dim, the rest is zeros.
template <int kDimension>
struct Shape {
  static constexpr int kDim = kDimension;
  static constexpr int kWarpRows = kDim <= 128 ? 32 : 16;
  static constexpr int kRows = 4 * kWarpRows;
  // A second stage does not fit 99 KB beside 256 dimensions.
  static constexpr int kStages = kDim <= 128 ? 2 : 1;
  static constexpr int kBytesPerRow = kDim * 2;
  // A row's address has zeros where its pieces' numbers go: piece 2 k + b is piece b xor 32 k.
  static constexpr int kAlignment = kBytesPerRow;
  static constexpr int kPageBytes = kPagePositions * kBytesPerRow;
  static constexpr int kSharedBytes = kRows * kBytesPerRow + 2 * kStages * kPageBytes + kAlignment;
  static constexpr int kM = kWarpRows / 16;
};

// Offset of 16-byte piece `piece` of a row: permuted so that 8 rows' equal pieces differ in banks.
template <typename S>
__device__ uint32_t offset_of(int row, int piece) {
  const int mixed = S::kDim >= 64 ? piece ^ (row % 8) : piece ^ (row / 2 % 4);
  return static_cast<uint32_t>(row * S::kBytesPerRow + mixed * 16);
}

// target [n_rows, kDim] = rows of `source`, zeros past n_valid rows and head_dim columns.
template <typename S>
__device__ void copy_rows(uint32_t target, const __nv_bfloat16* source, int64_t stride, int n_rows,
                          int n_valid, int head_dim) {
  constexpr int kPieces = S::kDim / 8;
  for (int i = threadIdx.x; i < n_rows * kPieces; i += kAttendThreads) {
    const int row = i / kPieces;
    const int piece = i % kPieces;
    const bool is_valid = row < n_valid && piece * 8 < head_dim;
    copy_16(target + offset_of<S>(row, piece),
            is_valid ? source + row * stride + piece * 8 : source, is_valid);
  }
}

// Keys or values (value = 0 or 1) of page number `page`; those past `n_positions` are zeros, since
// what lies there may be anything.
template <typename S>
__device__ void copy_page(uint32_t target, const AttendArguments& a, int page, int value,
                          int kv_head, int n_positions) {
  copy_rows<S>(target, a.kv.at(a.page_table[page], a.state_layer, value, kv_head), a.head_dim,
               kPagePositions, n_positions - page * kPagePositions, a.head_dim);
}

// A warp's running softmax: per row of a fragment, the maximum, this lane's part of the sum of
// weights, and the weighted values.
template <typename S>
struct Running {
  float maximum[S::kM][2];
  float sum[S::kM][2];
  float out[S::kM][S::kDim / 8][4];
};

// Keys whose scores a warp holds at once: more would not fit its registers beside the sums.
constexpr int kKeys = 32;
constexpr int kScoreColumns = kKeys / 8;

template <typename S>
__device__ void score(uint32_t queries, uint32_t keys, float (&s)[S::kM][kScoreColumns][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * S::kWarpRows;
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int n = 0; n < kScoreColumns; ++n) {
      s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
    }
  }
  const uint32_t query = queries + offset_of<S>(first_row + lane % 16, lane / 16);
  const uint32_t key = keys + offset_of<S>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int k = 0; k < S::kDim / 16; ++k) {
    uint32_t q[S::kM][4];
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
      load_matrices(q[m], (query ^ (32 * k)) + m * 16 * S::kBytesPerRow);
    }
#pragma unroll
    for (int n = 0; n < kScoreColumns; n += 2) {
      uint32_t b[4];
      load_matrices(b, (key ^ (32 * k)) + n * 8 * S::kBytesPerRow);
#pragma unroll
      for (int m = 0; m < S::kM; ++m) {
        multiply(s[m][n], q[m], b[0], b[1]);
        multiply(s[m][n + 1], q[m], b[2], b[3]);
      }
    }
  }
}

// Sets scores of keys that a query may not see to -inf. first_row: position of the warp's first.
template <typename S>
__device__ void mask(const AttendArguments& a, int first_position, int first_key,
                     float (&s)[S::kM][kScoreColumns][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int last = first_position + S::kWarpRows - 1;
  const bool all_seen =
      first_key + kKeys - 1 <= first_position && (a.window == 0 || first_key > last - a.window);
  if (all_seen) {
    return;
  }
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int n = 0; n < kScoreColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int position = first_position + m * 16 + lane / 4 + i / 2 * 8;
        const int key = first_key + n * 8 + lane % 4 * 2 + i % 2;
        if (key > position || (a.window > 0 && key <= position - a.window)) {
          s[m][n][i] = -INFINITY;
        }
      }
    }
  }
}

// Moves the running maximum on and turns scores into weights.
template <typename S>
__device__ void weigh(float scale, float (&s)[S::kM][kScoreColumns][4], Running<S>* running) {
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float best = running->maximum[m][h];
#pragma unroll
      for (int n = 0; n < kScoreColumns; ++n) {
        best = fmaxf(best, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
      }
      best = fmaxf(best, __shfl_xor_sync(0xffffffffU, best, 1));
      best = fmaxf(best, __shfl_xor_sync(0xffffffffU, best, 2));
      // A row that has seen no key yet: any finite shift keeps its weights at 0.
      const float shift = best == -INFINITY ? 0.0F : best * scale;
      const float shrink = exp2_fast(running->maximum[m][h] * scale - shift);
      running->maximum[m][h] = best;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kScoreColumns; ++n) {
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale, -shift));
          sum += s[m][n][i];
        }
      }
      running->sum[m][h] = running->sum[m][h] * shrink + sum;
      // Mostly the maximum has not moved for any row of the warp.
      if (__any_sync(0xffffffffU, shrink != 1.0F)) {
#pragma unroll
        for (int n = 0; n < S::kDim / 8; ++n) {
          running->out[m][n][2 * h] *= shrink;
          running->out[m][n][2 * h + 1] *= shrink;
        }
      }
    }
  }
}

template <typename S>
__device__ void add_values(uint32_t values, const float (&s)[S::kM][kScoreColumns][4],
                           Running<S>* running) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t value = values + offset_of<S>(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < kScoreColumns / 2; ++k) {
    uint32_t p[S::kM][4];
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
      p[m][0] = pack(s[m][2 * k][0], s[m][2 * k][1]);
      p[m][1] = pack(s[m][2 * k][2], s[m][2 * k][3]);
      p[m][2] = pack(s[m][2 * k + 1][0], s[m][2 * k + 1][1]);
      p[m][3] = pack(s[m][2 * k + 1][2], s[m][2 * k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < S::kDim / 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, (value ^ (16 * n)) + k * 16 * S::kBytesPerRow);
#pragma unroll
      for (int m = 0; m < S::kM; ++m) {
        multiply(running->out[m][n], p[m], b[0], b[1]);
        multiply(running->out[m][n + 1], p[m], b[2], b[3]);
      }
    }
  }
}

// Divides by the sums of weights and writes the rows that exist.
template <typename S>
__device__ void write_rows(const AttendArguments& a, int first_row, int head, Running<S>* running) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = running->sum[m][h];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      const float scale = 1.0F / sum;
      const int row = first_row + m * 16 + lane / 4 + h * 8;
      if (row >= a.rows) {
        continue;
      }
      __nv_bfloat16* const out =
          a.out + (static_cast<int64_t>(row) * a.n_heads + head) * a.head_dim;
#pragma unroll
      for (int n = 0; n < S::kDim / 8; ++n) {
        const int column = n * 8 + lane % 4 * 2;
        if (column < a.head_dim) {
          *reinterpret_cast<uint32_t*>(out + column) =
              pack(running->out[m][n][2 * h] * scale, running->out[m][n][2 * h + 1] * scale);
        }
      }
    }
  }
}

// See attend. Grid: (heads, tiles of S::kRows rows, the last first: they take longest).
template <typename S>
__global__ void __launch_bounds__(kAttendThreads, S::kStages)
    attend_kernel(const __grid_constant__ AttendArguments a) {
  extern __shared__ char shared[];
  const uint32_t queries =
      (shared_address(shared) + S::kAlignment - 1) / S::kAlignment * S::kAlignment;
  const uint32_t keys = queries + S::kRows * S::kBytesPerRow;
  const uint32_t values = keys + S::kStages * S::kPageBytes;
  const int head = static_cast<int>(blockIdx.x);
  const int kv_head = head / (a.n_heads / a.n_kv_heads);
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * S::kRows;
  const int n_rows = min(S::kRows, a.rows - first);
  const int n_positions = a.start + a.rows;
  const int begin = a.window > 0 ? max(0, a.start + first - a.window + 1) / kPagePositions : 0;
  const int end = (a.start + first + n_rows - 1) / kPagePositions + 1;
  const int warp_row = first + static_cast<int>(threadIdx.x) / 32 * S::kWarpRows;

  copy_rows<S>(queries, a.queries + (static_cast<int64_t>(first) * a.n_heads + head) * a.head_dim,
               static_cast<int64_t>(a.n_heads) * a.head_dim, S::kRows, n_rows, a.head_dim);
  copy_page<S>(keys, a, begin, 0, kv_head, n_positions);
  copy_page<S>(values, a, begin, 1, kv_head, n_positions);
  commit_copies();
  Running<S> running;
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
    running.maximum[m][0] = running.maximum[m][1] = -INFINITY;
    running.sum[m][0] = running.sum[m][1] = 0;
#pragma unroll
    for (int n = 0; n < S::kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        running.out[m][n][i] = 0;
      }
    }
  }
  for (int page = begin; page < end; ++page) {
    const int stage = (page - begin) % S::kStages;
    if (S::kStages > 1 && page + 1 < end) {
      copy_page<S>(keys + (stage ^ 1) * S::kPageBytes, a, page + 1, 0, kv_head, n_positions);
      copy_page<S>(values + (stage ^ 1) * S::kPageBytes, a, page + 1, 1, kv_head, n_positions);
    }
    commit_copies();
    wait_copies<S::kStages - 1>();
    __syncthreads();
    for (int i = 0; i < kPagePositions / kKeys; ++i) {
      const int first_key = page * kPagePositions + i * kKeys;
      // Keys that no row of this warp may see would only cost time.
      if (first_key >= a.start + warp_row + S::kWarpRows) {
        break;
      }
      const uint32_t offset = stage * S::kPageBytes + i * kKeys * S::kBytesPerRow;
      float s[S::kM][kScoreColumns][4];
      score<S>(queries, keys + offset, s);
      mask<S>(a, a.start + warp_row, first_key, s);
      weigh<S>(a.scale, s, &running);
      add_values<S>(values + offset, s, &running);
    }
    __syncthreads();
    if (S::kStages == 1 && page + 1 < end) {
      copy_page<S>(keys, a, page + 1, 0, kv_head, n_positions);
      copy_page<S>(values, a, page + 1, 1, kv_head, n_positions);
    }
  }
  write_rows<S>(a, warp_row, head, &running);
}

template <typename S>
cudaError_t launch(const AttendArguments& arguments, cudaStream_t stream) {
  const cudaError_t error = cudaFuncSetAttribute(
      attend_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  if (error != cudaSuccess) {
    return error;
  }
  const dim3 grid(arguments.n_heads, (arguments.rows + S::kRows - 1) / S::kRows);
  attend_kernel<S><<<grid, kAttendThreads, S::kSharedBytes, stream>>>(arguments);
  return cudaGetLastError();
}

}  // namespace

cudaError_t place_keys(const AttentionLayer& layer, const RopeTable& rope, const KvPool& kv,
                       const Sequence& sequence, const float* qkv, int ld_qkv, int rows,
                       __nv_bfloat16* queries, cudaStream_t stream) {
  if (layer.head_dim > kMaxHeadDim) {
    return cudaErrorNotSupported;
  }
  const int64_t warps = int64_t{rows} * (layer.n_heads + 2 * layer.n_kv_heads);
  const auto blocks = static_cast<unsigned>((warps + kPlaceWarps - 1) / kPlaceWarps);
  place_kernel<<<blocks, kPlaceWarps * 32, 0, stream>>>(layer, rope, kv, sequence, qkv, ld_qkv,
                                                        rows, queries);
  return cudaGetLastError();
}

cudaError_t attend(const AttentionLayer& layer, const KvPool& kv, const Sequence& sequence,
                   const __nv_bfloat16* queries, int rows, __nv_bfloat16* out,
                   cudaStream_t stream) {
  constexpr float kLog2E = 1.44269504088896340736F;
  const AttendArguments arguments = {
      .kv = kv,
      .page_table = sequence.page_table,
      .queries = queries,
      .out = out,
      .scale = layer.scale * kLog2E,
      .n_heads = layer.n_heads,
      .n_kv_heads = layer.n_kv_heads,
      .head_dim = layer.head_dim,
      .window = layer.window,
      .state_layer = layer.state_layer,
      .start = sequence.length,
      .rows = rows,
  };
  if (layer.head_dim % 8 != 0 || layer.head_dim > kMaxHeadDim) {
    return cudaErrorNotSupported;
  }
  if (layer.head_dim <= 32) {
    return launch<Shape<32>>(arguments, stream);
  }
  if (layer.head_dim <= 64) {
    return launch<Shape<64>>(arguments, stream);
  }
  if (layer.head_dim <= 128) {
    return launch<Shape<128>>(arguments, stream);
  }
  return launch<Shape<256>>(arguments, stream);
}

}  // namespace logitlab::cuda::chunk
