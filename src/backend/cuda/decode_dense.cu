// Products of whole matrices with the rows of a step, and what follows them: norms before, and
// activations, residual adds or the Mamba convolution after, in the same kernel.
#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/gemv.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/single.cuh"

namespace logitlab::cuda {
namespace {

// The groups of one block, in the order of loader and consumers: its rows of the first matrix, then
// of the second; alternating where the two belong together.
class DenseGroups {
 public:
  LOGITLAB_DEVICE explicit DenseGroups(const DenseArgs& args, int tile = kRowTile)
      : args_(&args),
        tile_(tile),
        is_paired_(args.output[0] == Output::kSiluMul),
        range0_(args.matrix[0].rows, blockIdx.x, gridDim.x),
        range1_(args.n_matrices > 1 ? args.matrix[1].rows : 0, blockIdx.x, gridDim.x),
        row_(range0_.first) {}

  LOGITLAB_DEVICE bool next(Group* group) {
    if (!is_paired_ && matrix_ == 0 && row_ >= range0_.last) {
      matrix_ = 1;
      row_ = range1_.first;
    }
    const RowRange& range = matrix_ == 0 ? range0_ : range1_;
    if (row_ >= range.last) {
      return false;
    }
    const Matrix& matrix = args_->matrix[matrix_];
    group->n = min(tile_, range.last - row_);
    group->first = matrix.weight + static_cast<size_t>(row_) * matrix.columns;
    group->row = matrix_ == 0 ? row_ : row_ + args_->matrix[0].rows;
    if (!is_paired_ || matrix_ == 1) {
      row_ += tile_;
    }
    matrix_ ^= is_paired_ ? 1 : 0;
    return true;
  }
  // The group that comes after `index` others.
  LOGITLAB_DEVICE bool at(int index, Group* group) const {
    int row = row_ + tile_ * (is_paired_ ? index / 2 : index);
    int m = is_paired_ ? index & 1 : matrix_;
    if (!is_paired_ && m == 0 && row >= range0_.last) {
      m = 1;
      const int before = range0_.last - row_;  // rows of the first matrix that are left
      row = range1_.first + tile_ * (index - (before + tile_ - 1) / tile_);
    }
    const int last = m == 0 ? range0_.last : range1_.last;
    group->n = min(tile_, last - row);
    group->row = m == 0 ? row : row + args_->matrix[0].rows;
    return row < last;
  }

 private:
  const DenseArgs* args_;
  int tile_;
  bool is_paired_;
  RowRange range0_, range1_;
  int row_;
  int matrix_ = 0;
};

// ---- what becomes of an output ------------------------------------------------------------------

constexpr int kFewTaps = 4;

// What an output needs besides its sum. Read before the sum is there, it costs no time after.
struct Beforehand {
  float bias = 0;
  float value = 0;              // of the residual
  float inputs[kFewTaps] = {};  // of the convolution, oldest first
  float taps[kFewTaps] = {};
};

LOGITLAB_DEVICE float* conv_state(const DenseArgs& args, int token, int channel) {
  const MambaLayer& layer = args.mamba;
  return args.sequences[token].conv +
         static_cast<int64_t>(layer.state_layer) * (layer.conv_kernel - 1) * layer.conv_size() +
         channel;
}

// row: as Group::row counts, over both matrices.
LOGITLAB_DEVICE Beforehand look_ahead(const DenseArgs& args, int token, int row) {
  const int m = row < args.matrix[0].rows ? 0 : 1;
  const int r = m == 0 ? row : row - args.matrix[0].rows;
  Beforehand b;
  if (args.matrix[m].bias != nullptr) {
    b.bias = __ldg(args.matrix[m].bias + r);
  }
  if (args.output[m] == Output::kAdd) {
    b.value = load_l2_1(args.out[m] + static_cast<int64_t>(token) * args.out_stride[m] + r);
  }
  const MambaLayer& layer = args.mamba;
  const int channel = r - layer.inner();
  if (args.output[m] != Output::kMamba || channel < 0) {
    return b;
  }
  if (channel >= layer.conv_size()) {
    b.value = __ldg(layer.dt_bias + channel - layer.conv_size());
    return b;
  }
  b.value = layer.conv_bias != nullptr ? __ldg(layer.conv_bias + channel) : 0.0F;
  const float* state = conv_state(args, token, channel);
#pragma unroll
  for (int k = 0; k < kFewTaps; ++k) {
    if (k < layer.conv_kernel) {
      b.taps[k] = __ldg(layer.conv_weight + channel * layer.conv_kernel + k);
    }
    if (k + 1 < layer.conv_kernel) {
      b.inputs[k] = load_l2_1(state + static_cast<int64_t>(k) * layer.conv_size());
    }
  }
  return b;
}

// Convolution of a channel, whose state moves on. v: the newest input.
LOGITLAB_DEVICE float convolve(const DenseArgs& args, int token, int channel, float v,
                               const Beforehand& b) {
  const MambaLayer& layer = args.mamba;
  const int taps = layer.conv_kernel;
  const int n = layer.conv_size();
  float* state = conv_state(args, token, channel);
  float sum = b.value;
  for (int k = 0; k + 1 < taps; ++k) {
    const bool is_read = taps <= kFewTaps;
    float input = 0;
    float weight = 0;
#pragma unroll
    for (int i = 0; i < kFewTaps; ++i) {
      input = i == k ? b.inputs[i] : input;
      weight = i == k ? b.taps[i] : weight;
    }
    if (!is_read) {
      input = load_l2_1(state + static_cast<int64_t>(k) * n);
      weight = __ldg(layer.conv_weight + channel * taps + k);
    }
    sum = __fmaf_rn(weight, input, sum);
    if (k > 0) {
      state[static_cast<int64_t>(k - 1) * n] = input;
    }
  }
  if (taps > 1) {
    state[static_cast<int64_t>(taps - 2) * n] = v;
  }
  return silu(__fmaf_rn(__ldg(layer.conv_weight + channel * taps + taps - 1), v, sum));
}

LOGITLAB_DEVICE float finish_mamba(const DenseArgs& args, int token, int row, float v,
                                   const Beforehand& b) {
  const MambaLayer& layer = args.mamba;
  const int channel = row - layer.inner();
  if (channel < 0) {
    return v;
  }
  if (channel < layer.conv_size()) {
    return convolve(args, token, channel, v, b);
  }
  const float step = softplus(__fadd_rn(v, b.value));
  return fminf(fmaxf(step, layer.time_step_low), layer.time_step_high);
}

// row: as of look_ahead. other: of the pair's second matrix (kSiluMul).
LOGITLAB_DEVICE void finish(const DenseArgs& args, int token, int row, float v, float other,
                            const Beforehand& b) {
  const int m = row < args.matrix[0].rows ? 0 : 1;
  const int r = m == 0 ? row : row - args.matrix[0].rows;
  if (args.matrix[m].bias != nullptr) {
    v = __fadd_rn(v, b.bias);
  }
  switch (args.output[m]) {
    case Output::kStore:
      break;
    case Output::kAdd:
      v = __fadd_rn(b.value, v);
      break;
    case Output::kRelu2:
      v = relu2(v);
      break;
    case Output::kSilu:
      v = silu(v);
      break;
    case Output::kSiluMul:
      if (args.matrix[1].bias != nullptr) {
        other = __fadd_rn(other, args.matrix[1].bias[r]);
      }
      v = __fmul_rn(silu(v), other);
      break;
    case Output::kMamba:
      v = finish_mamba(args, token, r, v, b);
      break;
  }
  args.out[m][static_cast<int64_t>(token) * args.out_stride[m] + r] = v;
}

// One thread's output of a chunk. first_token: of the eight that the chunk holds, whose squares
// those are.
template <int TOK>
LOGITLAB_DEVICE void finish_chunk(const DenseArgs& args, const Exchange& exchange, int buffer,
                                  const float (&squares)[kSlices][kTokens], int n_groups,
                                  int first_token, int thread) {
  const Pair<TOK> pair(thread);
  const int token = first_token + pair.token;
  const int g = pair.row / kRowTile;
  const bool is_paired = args.output[0] == Output::kSiluMul;
  if (token >= args.n || g >= n_groups || (is_paired && (g & 1) != 0)) {
    return;
  }
  const int2 group = exchange.groups[buffer][g];
  if (pair.row % kRowTile >= group.y) {
    return;
  }
  const auto& partial = exchange.partial[buffer];
  const float size = static_cast<float>(args.matrix[0].columns);
  float v;
  float other = 0;
  if (args.input == Input::kGrouped) {
    v = sum_normed_slices(partial, pair.index, squares, pair.token, size / kSlices, args.eps);
  } else {
    v = sum_slices(partial, pair.index);
    other = is_paired ? sum_slices(partial, pair.index + kRowTile) : 0.0F;
    if (args.input == Input::kNormed) {
      const float scale = norm_scale(squares, pair.token, size, args.eps);
      v = __fmul_rn(v, scale);
      other = __fmul_rn(other, scale);
    }
  }
  const int row = group.x + pair.row % kRowTile;
  finish(args, token, row, v, other, look_ahead(args, token, row));
}

// ---- up to eight rows ---------------------------------------------------------------------------

template <int TOK>
LOGITLAB_DEVICE void load_matrices(const DenseArgs& args, const Ring& ring, int tile, int lane) {
  RingLoader loader(ring, lane);
  const int columns = args.matrix[0].columns;
  DenseGroups groups(args, tile);
  for (bool more = true; more;) {
    DenseGroups chunk = groups;
    for (int k0 = 0; k0 < columns; k0 += kSegment) {
      chunk = groups;
      Group group;
      int n = 0;
      while (n < kChunkGroups<TOK> && chunk.next(&group)) {
        loader.load(group, columns, k0, min(kSegment, columns - k0));
        ++n;
      }
      more = n == kChunkGroups<TOK>;
    }
    groups = chunk;
  }
}

template <int NB, int TOK>
LOGITLAB_DEVICE void multiply(const DenseArgs& args, const Ring& ring, Exchange& exchange,
                              const float* gain, int slice_index, int lane) {
  const int columns = args.matrix[0].columns;
  const int token = lane >> 2;
  const float* x = token < args.n ? args.x + static_cast<int64_t>(token) * args.x_stride : nullptr;
  RingReader reader(ring);
  Fragments<NB> fragments;
  float squares = 0;
  DenseGroups groups(args);
  int buffer = 0;
  for (bool more = true, is_first = true; more; is_first = false, buffer ^= 1) {
    DenseGroups chunk = groups;
    int n = 0;
    for (int k0 = 0; k0 < columns; k0 += kSegment) {
      const SegmentShape shape(min(kSegment, columns - k0));
      const Slice slice(shape, slice_index);
      if (is_first || columns > kSegment) {
        RawFragments<NB> raw;
        load_raw(raw, x == nullptr ? nullptr : x + k0, slice, shape.length, lane);
        const float part = convert(fragments, raw, gain == nullptr ? nullptr : gain + k0, slice,
                                   shape.length, lane);
        squares = is_first ? __fadd_rn(squares, sum_lanes_of_token(part)) : squares;
      }
      chunk = groups;
      Group group;
      for (n = 0; n < kChunkGroups<TOK> && chunk.next(&group); ++n) {
        Accumulator sum;
        dot(sum, reader.wait(group.n, shape.length, lane), fragments, slice, shape.length, lane);
        reader.release(lane);
        reader.advance();
        put_partial<TOK>(exchange.partial[buffer][slice_index], n, sum, lane, k0 > 0);
        if (slice_index == 0 && lane == 0) {
          exchange.groups[buffer][n] = make_int2(group.row, group.n);
        }
      }
    }
    groups = chunk;
    more = n == kChunkGroups<TOK>;
    if (is_first && (lane & 3) == 0) {
      exchange.squares[0][slice_index][token] = squares;
    }
    sync_threads(1, kConsumers);
    finish_chunk<TOK>(args, exchange, buffer, exchange.squares[0], n, 0, threadIdx.x);
  }
}

// One block per multiprocessor; shared memory: ring, exchange, gain.
template <int NB, int TOK>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    dense_kernel(const __grid_constant__ DenseArgs args, const __grid_constant__ RingShape shape) {
  extern __shared__ __align__(128) char memory[];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  allow_successor();
  const Ring ring(memory, shape);
  Exchange& exchange = *reinterpret_cast<Exchange*>(memory + shape.bytes());
  float* gain = args.gain == nullptr ? nullptr : reinterpret_cast<float*>(&exchange + 1);
  ring.begin(warp == kSlices, lane);
  if (warp == kSlices) {
    load_matrices<TOK>(args, ring, kRowTile, lane);
    return;
  }
  if (gain != nullptr) {
    for (int i = threadIdx.x; i < args.matrix[0].columns / 4; i += kConsumers) {
      reinterpret_cast<float4*>(gain)[i] = __ldg(reinterpret_cast<const float4*>(args.gain) + i);
    }
    sync_threads(1, kConsumers);
  }
  wait_for_predecessor();
  multiply<NB, TOK>(args, ring, exchange, gain, warp, lane);
}

// ---- one row ------------------------------------------------------------------------------------

// One output of a chunk of one row.
LOGITLAB_DEVICE void finish_single(const DenseArgs& args, const SingleExchange& exchange, int index,
                                   int row, const Beforehand& b) {
  const bool is_paired = args.output[0] == Output::kSiluMul;
  const float size = static_cast<float>(args.matrix[0].columns);
  float v = 0;
  float other = 0;
  if (args.input == Input::kGrouped) {
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      const float mean = __fdiv_rn(exchange.squares[s], size / kSlices);
      v = __fmaf_rn(exchange.partial[s][index], __frsqrt_rn(__fadd_rn(mean, args.eps)), v);
    }
  } else {
    v = sum_slices(exchange.partial, index);
    other = is_paired ? sum_slices(exchange.partial, index + kRowTile) : 0.0F;
    if (args.input == Input::kNormed) {
      const float scale = norm_scale(exchange.squares, size, args.eps);
      v = __fmul_rn(v, scale);
      other = __fmul_rn(other, scale);
    }
  }
  finish(args, 0, row, v, other, b);
}

template <int NB>
LOGITLAB_DEVICE void multiply_single(const DenseArgs& args, const Ring& ring,
                                     LongExchange* exchange, int tile, int warp, int lane) {
  const int columns = args.matrix[0].columns;
  const int thread = threadIdx.x;
  const bool is_paired = args.output[0] == Output::kSiluMul;
  const bool has_gain = args.gain != nullptr;
  SingleWarp<NB, false> worker(ring, exchange, &exchange->fragments[warp], warp, lane);
  SingleRaw gain;
  {
    const SegmentShape shape(min(kSegment, columns));
    gain = load_single(args.gain, Slice(shape, warp), shape.length, lane, true);
  }
  DenseGroups groups(args, tile);
  Group mine;
  bool is_mine = groups.at(thread / kRowTile, &mine);
  wait_for_predecessor();
  float squares = 0;
  for (bool more = true, is_first = true; more; is_first = false) {
    if (!is_first) {
      sync_threads(1, kConsumers);  // the chunk before has been read
      is_mine = groups.at(thread / kRowTile, &mine);
    }
    is_mine = is_mine && thread % kRowTile < mine.n && !(is_paired && thread / kRowTile % 2 != 0);
    Beforehand ahead;
    if (is_mine) {
      ahead = look_ahead(args, 0, mine.row + thread % kRowTile);
    }
    DenseGroups chunk = groups;
    int n = 0;
    for (int k0 = 0; k0 < columns; k0 += kSegment) {
      const SegmentShape shape(min(kSegment, columns - k0));
      const Slice slice(shape, warp);
      if (is_first || columns > kSegment) {
        if (k0 > 0 || !is_first) {
          gain = load_single(has_gain ? args.gain + k0 : nullptr, slice, shape.length, lane, true);
        }
        const SingleRaw raw = load_single(args.x + k0, slice, shape.length, lane);
        const float part = worker.place(raw, has_gain ? &gain : nullptr);
        squares = is_first ? __fadd_rn(squares, part) : squares;
      }
      chunk = groups;
      Group group;
      for (n = 0; n < kSingleGroups && chunk.next(&group); ++n) {
        worker.multiply(n * kRowTile, group.n, shape, slice, k0 > 0);
      }
      __syncwarp();
    }
    groups = chunk;
    more = n == kSingleGroups;
    if (is_first && lane == 0) {
      exchange->squares[warp] = squares;
    }
    sync_threads(1, kConsumers);
    if (is_mine) {
      finish_single(args, *exchange, thread, mine.row + thread % kRowTile, ahead);
    }
  }
}

// One block per multiprocessor; shared memory: ring, exchange.
template <int NB>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    dense_single_kernel(const __grid_constant__ DenseArgs args,
                        const __grid_constant__ RingShape shape) {
  extern __shared__ __align__(128) char memory[];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  allow_successor();
  const Ring ring(memory, shape);
  LongExchange* exchange = reinterpret_cast<LongExchange*>(memory + shape.bytes());
  ring.begin(warp == kSlices, lane);
  if (warp == kSlices) {
    load_matrices<1>(args, ring, shape.rows, lane);
  } else {
    multiply_single<NB>(args, ring, exchange, shape.rows, warp, lane);
  }
}

// ---- more rows ----------------------------------------------------------------------------------

// Left operands of all rows: [ceil(n / 8)][blocks][half][lane][4 words]; one segment.
__global__ void __launch_bounds__(kConsumers)
    pack_kernel(const float* x, int x_stride, const float* gain, int columns, int n, u32* packed,
                float* squares) {
  const int lane = threadIdx.x & 31;
  const int slice_index = threadIdx.x >> 5;
  const int token = blockIdx.x * kTokens + (lane >> 2);
  const int n_blocks = (columns + kUnit - 1) / kUnit * 2;
  allow_successor();
  wait_for_predecessor();
  u32* target = packed + static_cast<size_t>(blockIdx.x) * n_blocks * 256 + lane * 4;
  const SegmentShape shape(columns);
  const Slice slice(shape, slice_index);
  RawFragments<kSliceBlocks> raw;
  const float* source = token < n ? x + static_cast<int64_t>(token) * x_stride : nullptr;
  load_raw(raw, source, slice, columns, lane);
  float sums[kSliceBlocks] = {};
#pragma unroll
  for (int i = 0; i < kSliceBlocks; ++i) {
    const int k = slice.k + 32 * i + 8 * (lane & 3);
    float4 u = raw.v[i][0];
    float4 v = raw.v[i][1];
    sums[i] = block_squares(u, v);
    if (i < slice.n_blocks) {
      if (gain != nullptr && k < columns) {
        u = times(u, __ldg(reinterpret_cast<const float4*>(gain + k)));
        v = times(v, __ldg(reinterpret_cast<const float4*>(gain + k + 4)));
      }
      u32 r[8];
      split_block(u, v, r);
      uint4* words = reinterpret_cast<uint4*>(target + (slice.k / 32 + i) * 256);
      words[0] = {r[0], r[1], r[2], r[3]};
      words[32] = {r[4], r[5], r[6], r[7]};
    }
  }
  const float total = sum_lanes_of_token(add_blocks(sums));
  if ((lane & 3) == 0) {
    squares[slice_index * kMaxDecodeRows + token] = total;
  }
}

// Blocks of left operands on the way. Slices of 10 and 12 blocks are two turns.
constexpr int kAhead = 6;
static_assert(kAhead % 2 == 0, "blocks are even and odd ones");

// A warp's left operands in the order of its products: its slice's blocks, for one set of eight
// rows after the other, and then again from the first set. Every block begins with another set, so
// that they do not all ask for the same lines of the cache at once.
class PackedStream {
 public:
  LOGITLAB_DEVICE PackedStream(const DenseArgs& args, int row_blocks, const Slice& slice, int lane)
      : first_(args.packed + slice.k / 32 * 256 + lane * 4),
        row_blocks_(row_blocks),
        n_sets_((args.n + kTokens - 1) / kTokens),
        n_blocks_(slice.n_blocks),
        first_set_(blockIdx.x % n_sets_) {}

  LOGITLAB_DEVICE int n_sets() const { return n_sets_; }
  // Set number `i` of this block's order.
  LOGITLAB_DEVICE int set(int i) const {
    return first_set_ + i - (first_set_ + i >= n_sets_ ? n_sets_ : 0);
  }
  LOGITLAB_DEVICE int n_turns() const { return (n_blocks_ + kAhead - 1) / kAhead; }
  LOGITLAB_DEVICE void begin() {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      fetch(first_set_, j, j);
    }
  }
  // Multiplies block `turn` * kAhead + j of set number `i` if there is one, and sends for what
  // comes in its place. use(j, high and low words of pairs 0 and 1, of pairs 2 and 3).
  template <class Use>
  LOGITLAB_DEVICE void turn(int i, int turn, Use use) {
    const bool is_last = turn + 1 == n_turns();
    const int next_set = set(!is_last ? i : i + 1 == n_sets_ ? 0 : i + 1);
    const int next = is_last ? 0 : (turn + 1) * kAhead;
    const u32* source = first_ + (static_cast<size_t>(next_set) * row_blocks_ + next) * 256;
    const int n_now = n_blocks_ - turn * kAhead;
    const int n_next = n_blocks_ - next;
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (j < n_now) {
        use(j, x_[j][0], x_[j][1]);
      }
      if (j < n_next) {
        x_[j][0] = load_l2(source + j * 256);
        x_[j][1] = load_l2(source + j * 256 + 128);
      }
    }
  }

 private:
  LOGITLAB_DEVICE void fetch(int set, int block, int j) {
    if (block < n_blocks_) {
      const u32* source = first_ + (static_cast<size_t>(set) * row_blocks_ + block) * 256;
      x_[j][0] = load_l2(source);
      x_[j][1] = load_l2(source + 128);
    }
  }

  const u32* first_;
  int row_blocks_, n_sets_, n_blocks_, first_set_;
  uint4 x_[kAhead][2] = {};
};

// One block per multiprocessor. All groups of a chunk lie in the ring while every set of eight rows
// goes over them. GROUPS: of a chunk; the ring has room for them. One segment only, with EVEN of
// whole blocks. EVEN: of whole blocks.
template <int GROUPS, bool EVEN>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    dense_many_kernel(const __grid_constant__ DenseArgs args,
                      const __grid_constant__ RingShape shape) {
  extern __shared__ __align__(128) char memory[];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  const int columns = args.matrix[0].columns;
  allow_successor();
  const Ring ring(memory, shape);
  Exchange& exchange = *reinterpret_cast<Exchange*>(memory + shape.bytes());
  ring.begin(warp == kSlices, lane);
  const SegmentShape segment(columns);
  DenseGroups groups(args);
  Group group;
  if (warp == kSlices) {
    RingLoader loader(ring, lane);
    while (groups.next(&group)) {
      loader.load(group, columns, 0, columns);
    }
    return;
  }
  wait_for_predecessor();
  const Slice slice(segment, warp);
  RingReader reader(ring);
  PackedStream stream(args, segment.units * 2, slice, lane);
  stream.begin();
  int buffer = 0;
  for (bool more = true; more;) {
    int2 rows[GROUPS];
    u32 addresses[GROUPS];
    RingReader ahead = reader;
    int n = 0;
    u32 last = ring.stages;
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      more = more && groups.next(&group);
      rows[g] = more ? make_int2(group.row, group.n) : make_int2(0, 0);
      if (more) {
        last = ahead.wait(group.n, columns, lane) + slice.k * 2 + 16 * (lane & 3);
        ahead.advance();
        ++n;
      }
      addresses[g] = last;
    }
    for (int i = 0; i < stream.n_sets() && n > 0; ++i, buffer ^= 1) {
      const int t0 = stream.set(i) * kTokens;
      Accumulator sums[GROUPS];
      for (int turn = 0; turn < stream.n_turns(); ++turn) {
        const u32 offset = turn * (kAhead * kBlockBytes);
        const int left = columns - slice.k - 32 * kAhead * turn - 8 * (lane & 3);
        stream.turn(i, turn, [&](int j, uint4 first, uint4 second) {
#pragma unroll
          for (int g = 0; g < GROUPS; ++g) {
            const uint4 w = EVEN || 32 * j < left
                                ? load_shared(addresses[g] + offset + kBlockBytes * j)
                                : uint4{};
            sums[g].add_block(j, first, second, w);
          }
        });
      }
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        put_partial<kTokens>(exchange.partial[buffer][warp], g, sums[g], lane, false);
        if (warp == 0 && lane == 0) {
          exchange.groups[buffer][g] = rows[g];
        }
      }
      if (lane < kTokens) {
        exchange.squares[buffer][warp][lane] =
            __ldcg(args.squares + warp * kMaxDecodeRows + t0 + lane);
      }
      sync_threads(1, kConsumers);
      finish_chunk<kTokens>(args, exchange, buffer, exchange.squares[buffer], n, t0, threadIdx.x);
    }
    for (int g = 0; g < n; ++g) {
      reader.release(lane);
      reader.advance();
    }
  }
}

// ---- queueing -----------------------------------------------------------------------------------

int exchange_bytes(const DenseArgs& args) {
  return static_cast<int>(sizeof(Exchange)) +
         (args.gain != nullptr ? args.matrix[0].columns * 4 : 0);
}

template <int NB>
cudaError_t queue_single(const DenseArgs& args, const DeviceShape& device, cudaStream_t stream) {
  constexpr int kOther = sizeof(LongExchange);
  const int rows = block_rows(args.matrix[0].rows, device) +
                   (args.n_matrices > 1 ? block_rows(args.matrix[1].rows, device) : 0);
  const RingShape ring = single_ring(args.matrix[0].columns, kOther, device.shared_bytes, rows);
  if (!is_ring(ring)) {
    return cudaErrorInvalidConfiguration;
  }
  return launch(dense_single_kernel<NB>, dim3(static_cast<unsigned>(device.n_blocks)),
                kDecodeThreads, static_cast<size_t>(ring.bytes() + kOther), stream, args, ring);
}

template <int NB>
cudaError_t queue_few(const DenseArgs& args, const DeviceShape& device, cudaStream_t stream) {
  const int other = exchange_bytes(args);
  const RingShape ring = ring_shape(args.matrix[0].columns, other, device.shared_bytes);
  if (!is_ring(ring)) {
    return cudaErrorInvalidConfiguration;
  }
  return launch(dense_kernel<NB, kTokens>, dim3(static_cast<unsigned>(device.n_blocks)),
                kDecodeThreads, static_cast<size_t>(ring.bytes() + other), stream, args, ring);
}

cudaError_t queue_few_rows(const DenseArgs& args, const DeviceShape& device, cudaStream_t stream) {
  const int blocks = slice_blocks(args.matrix[0].columns);
  if (is_lean(args)) {
    return queue_lean(args, device, stream);
  }
  if (args.n == 1) {
    return blocks <= 4    ? queue_single<4>(args, device, stream)
           : blocks <= 8  ? queue_single<8>(args, device, stream)
           : blocks <= 12 ? queue_single<12>(args, device, stream)
                          : queue_single<16>(args, device, stream);
  }
  return blocks <= 4    ? queue_few<4>(args, device, stream)
         : blocks <= 8  ? queue_few<8>(args, device, stream)
         : blocks <= 12 ? queue_few<12>(args, device, stream)
                        : queue_few<16>(args, device, stream);
}

template <int GROUPS>
cudaError_t queue_many(const DenseArgs& args, RingShape ring, const DeviceShape& device,
                       cudaStream_t stream) {
  const int columns = args.matrix[0].columns;
  const auto sets = static_cast<unsigned>((args.n + kTokens - 1) / kTokens);
  const cudaError_t error =
      launch(pack_kernel, dim3(sets), kConsumers, 0, stream, args.x, args.x_stride, args.gain,
             columns, args.n, args.packed, args.squares);
  if (error != cudaSuccess) {
    return error;
  }
  const auto queue = [&](auto kernel) {
    return launch(kernel, dim3(static_cast<unsigned>(device.n_blocks)), kDecodeThreads,
                  static_cast<size_t>(ring.bytes()) + sizeof(Exchange), stream, args, ring);
  };
  return columns % kUnit == 0 ? queue(dense_many_kernel<GROUPS, true>)
                              : queue(dense_many_kernel<GROUPS, false>);
}

// Sets of eight rows one after the other, each over all weights: for rows of several segments.
cudaError_t queue_in_sets(const DenseArgs& args, const DeviceShape& device, cudaStream_t stream) {
  for (int first = 0; first < args.n; first += kTokens) {
    DenseArgs part = args;
    part.n = std::min(kTokens, args.n - first);
    part.x += static_cast<int64_t>(first) * args.x_stride;
    part.sequences = args.sequences == nullptr ? nullptr : args.sequences + first;
    for (int m = 0; m < args.n_matrices; ++m) {
      part.out[m] = args.out[m] + static_cast<int64_t>(first) * args.out_stride[m];
    }
    const cudaError_t error = queue_few_rows(part, device, stream);
    if (error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace

size_t packed_words(int columns) {
  return static_cast<size_t>(kMaxDecodeRows / kTokens) *
         static_cast<size_t>((columns + kUnit - 1) / kUnit) * 2 * 256;
}

bool is_slice_norm(int columns, int n_groups) {
  return n_groups == kSlices && columns <= kSegment && columns % (kSlices * kUnit) == 0;
}

cudaError_t queue_dense(const DenseArgs& args, const DeviceShape& device, cudaStream_t stream) {
  if (args.n <= kFewRows) {
    return queue_few_rows(args, device, stream);
  }
  const int columns = args.matrix[0].columns;
  if (columns > kSegment) {
    return queue_in_sets(args, device, stream);
  }
  const RingShape ring =
      ring_shape(columns, static_cast<int>(sizeof(Exchange)), device.shared_bytes);
  // Groups that belong together stay in one chunk.
  const bool is_paired = args.output[0] == Output::kSiluMul;
  const int groups = ring.depth;
  return groups >= 4                 ? queue_many<4>(args, ring, device, stream)
         : groups == 3 && !is_paired ? queue_many<3>(args, ring, device, stream)
         : groups >= 2               ? queue_many<2>(args, ring, device, stream)
                                     : queue_in_sets(args, device, stream);
}

}  // namespace logitlab::cuda
