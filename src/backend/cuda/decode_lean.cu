// Products of one row with a matrix of the usual shape, a kernel for each use with nothing else in
// it: a step goes through a hundred and fifty kernels, and the code of each comes from afar.
// Sums and outputs are those of decode_dense.cu, bit for bit.
#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/gemv.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/single.cuh"

namespace logitlab::cuda {
namespace {

enum class Use {
  kConvolve,      // normed input; z | convolution of x, B, C | time steps
  kAddGrouped,    // input normed by eighths; added to the residual
  kAdd,           // plain input; added to the residual
  kStore,         // normed input; stored
  kStoreAndRelu2  // normed input; the first matrix stored, relu^2 of the second
};

__host__ __device__ constexpr bool is_normed(Use use) {
  return use != Use::kAdd;
}
__host__ __device__ constexpr bool adds(Use use) {
  return use == Use::kAdd || use == Use::kAddGrouped;
}

// Of kConvolve, with four taps and a bias.
struct ConvolveArgs {
  const float* weight;
  const float* bias;
  const float* dt_bias;
  const Sequence* sequence;
  int64_t state_offset;  // of the layer
  int inner, channels;
  float low, high;  // of a time step
};

struct LeanArgs {
  const __nv_bfloat16* weight[2];
  int rows[2];
  int columns;
  const float* x;
  const float* gain;
  float eps;
  float* out[2];
  ConvolveArgs convolve;
};

// The block's groups: its rows of the first matrix, then of the second.
template <Use USE>
struct LeanGroups {
  static constexpr bool kTwo = USE == Use::kStoreAndRelu2;
  RowRange first, second;
  int tile, n_first, n;

  LOGITLAB_DEVICE LeanGroups(const LeanArgs& args, int rows_of_stage)
      : first(args.rows[0], blockIdx.x, gridDim.x),
        second(kTwo ? args.rows[1] : 0, blockIdx.x, gridDim.x),
        tile(rows_of_stage),
        n_first(groups_of(first)),
        n(n_first + (kTwo ? groups_of(second) : 0)) {}

  LOGITLAB_DEVICE int groups_of(const RowRange& range) const {
    return static_cast<int>(static_cast<u32>(range.last - range.first + tile - 1) /
                            static_cast<u32>(tile));
  }

  // Matrix, first row in it, and number of rows of group g.
  LOGITLAB_DEVICE void at(int g, int* matrix, int* row, int* n_rows) const {
    *matrix = kTwo && g >= n_first ? 1 : 0;
    const RowRange& range = *matrix == 0 ? first : second;
    *row = range.first + tile * (g - (*matrix == 0 ? 0 : n_first));
    *n_rows = min(tile, range.last - *row);
  }
};

// What an output needs besides its sum.
struct Needs {
  float value;
  float inputs[3];
  float4 taps;
};

template <Use USE>
LOGITLAB_DEVICE Needs look_ahead(const LeanArgs& args, int row) {
  Needs needs = {};
  if constexpr (adds(USE)) {
    needs.value = load_l2_1(args.out[0] + row);
  }
  if constexpr (USE == Use::kConvolve) {
    const ConvolveArgs& c = args.convolve;
    const int channel = row - c.inner;
    if (channel >= c.channels) {
      needs.value = __ldg(c.dt_bias + channel - c.channels);
    } else if (channel >= 0) {
      const float* state = c.sequence->conv + c.state_offset + channel;
      needs.value = __ldg(c.bias + channel);
      needs.taps = __ldg(reinterpret_cast<const float4*>(c.weight) + channel);
#pragma unroll
      for (int k = 0; k < 3; ++k) {
        needs.inputs[k] = load_l2_1(state + static_cast<int64_t>(k) * c.channels);
      }
    }
  }
  return needs;
}

LOGITLAB_DEVICE float convolve(const ConvolveArgs& c, int row, float v, const Needs& needs) {
  const int channel = row - c.inner;
  if (channel < 0) {
    return v;
  }
  if (channel >= c.channels) {
    return fminf(fmaxf(softplus(__fadd_rn(v, needs.value)), c.low), c.high);
  }
  float* state = c.sequence->conv + c.state_offset + channel;
  state[0] = needs.inputs[1];
  state[c.channels] = needs.inputs[2];
  state[2 * static_cast<int64_t>(c.channels)] = v;
  float sum = __fmaf_rn(needs.taps.x, needs.inputs[0], needs.value);
  sum = __fmaf_rn(needs.taps.y, needs.inputs[1], sum);
  sum = __fmaf_rn(needs.taps.z, needs.inputs[2], sum);
  return silu(__fmaf_rn(needs.taps.w, v, sum));
}

template <Use USE>
LOGITLAB_DEVICE void finish(const LeanArgs& args, const SingleExchange& exchange, int index,
                            int matrix, int row, const Needs& needs) {
  float v = 0;
  if constexpr (USE == Use::kAddGrouped) {
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      v = __fmaf_rn(exchange.partial[s][index], exchange.squares[s], v);
    }
  } else {
    v = sum_slices(exchange.partial, index);
    if constexpr (is_normed(USE)) {
      v = __fmul_rn(v, norm_scale(exchange.squares, static_cast<float>(args.columns), args.eps));
    }
  }
  if constexpr (adds(USE)) {
    v = __fadd_rn(needs.value, v);
  } else if constexpr (USE == Use::kConvolve) {
    v = convolve(args.convolve, row, v, needs);
  } else if constexpr (USE == Use::kStoreAndRelu2) {
    v = matrix == 1 ? relu2(v) : v;
  }
  args.out[matrix][row] = v;
}

template <int NB, Use USE>
LOGITLAB_DEVICE void multiply(const LeanArgs& args, const Ring& ring, SingleExchange* exchange,
                              const LeanGroups<USE>& groups, int warp, int lane) {
  const SegmentShape shape(args.columns);
  const Slice slice(shape, warp);
  const int thread = threadIdx.x;
  SingleWarp<NB, true> worker(ring, exchange, &exchange->passage(warp), warp, lane);
  SingleRaw gain;
  if constexpr (is_normed(USE)) {
    gain = load_single(args.gain, slice, args.columns, lane, true);
  }
  wait_for_predecessor();
  const SingleRaw x = load_single(args.x, slice, args.columns, lane);
  for (int g0 = 0; g0 < groups.n; g0 += kSingleGroups) {
    int matrix = 0;
    int row = 0;
    int n = 0;
    groups.at(g0 + thread / kRowTile, &matrix, &row, &n);
    const bool is_mine = g0 + thread / kRowTile < groups.n && thread % kRowTile < n;
    row += thread % kRowTile;
    Needs needs = {};
    if (is_mine) {
      needs = look_ahead<USE>(args, row);
    }
    if (g0 == 0) {
      float squares = worker.place(x, is_normed(USE) ? &gain : nullptr);
      if constexpr (USE == Use::kAddGrouped) {
        // The slice is a group of its own: this is its scale.
        const float mean = __fdiv_rn(squares, static_cast<float>(args.columns) / kSlices);
        squares = __frsqrt_rn(__fadd_rn(mean, args.eps));
      }
      if (lane == 0) {
        exchange->squares[warp] = squares;
      }
    } else {
      sync_threads(1, kConsumers);  // the chunk before has been read
    }
    const int last = min(groups.n, g0 + kSingleGroups);
    for (int g = g0; g < last; ++g) {
      int group_matrix = 0;
      int group_row = 0;
      int group_rows = 0;
      groups.at(g, &group_matrix, &group_row, &group_rows);
      worker.multiply((g - g0) * kRowTile, group_rows, shape, slice);
    }
    sync_threads(1, kConsumers);
    if (is_mine) {
      finish<USE>(args, *exchange, thread, matrix, row, needs);
    }
  }
}

// One block per multiprocessor; shared memory: ring, exchange.
template <int NB, Use USE>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    lean_kernel(const __grid_constant__ LeanArgs args, const __grid_constant__ RingShape shape) {
  extern __shared__ __align__(128) char memory[];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  allow_successor();
  const Ring ring(memory, shape);
  ring.begin(warp == kSlices, lane);
  const LeanGroups<USE> groups(args, shape.rows);
  if (warp < kSlices) {
    multiply<NB, USE>(args, ring, reinterpret_cast<SingleExchange*>(memory + shape.bytes()), groups,
                      warp, lane);
    return;
  }
  RingLoader loader(ring, lane);
  for (int g = 0; g < groups.n; ++g) {
    int matrix = 0;
    int row = 0;
    Group group;
    groups.at(g, &matrix, &row, &group.n);
    group.first = args.weight[matrix] + static_cast<size_t>(row) * args.columns;
    loader.load(group, args.columns, 0, args.columns);
  }
}

// False where no kernel fits.
bool use_of(const DenseArgs& args, Use* use) {
  const bool is_one = args.n_matrices == 1;
  const Output output = args.output[0];
  if (is_one && args.input == Input::kNormed && output == Output::kMamba) {
    *use = Use::kConvolve;
    return args.mamba.conv_kernel == 4 && args.mamba.conv_bias != nullptr;
  }
  if (is_one && output == Output::kAdd && args.input != Input::kNormed) {
    *use = args.input == Input::kPlain ? Use::kAdd : Use::kAddGrouped;
    return true;
  }
  if (is_one && args.input == Input::kNormed && output == Output::kStore) {
    *use = Use::kStore;
    return true;
  }
  *use = Use::kStoreAndRelu2;
  return args.n_matrices == 2 && args.input == Input::kNormed && output == Output::kStore &&
         args.output[1] == Output::kRelu2;
}

LeanArgs lean_args(const DenseArgs& args) {
  LeanArgs lean = {};
  for (int m = 0; m < args.n_matrices; ++m) {
    lean.weight[m] = args.matrix[m].weight;
    lean.rows[m] = args.matrix[m].rows;
    lean.out[m] = args.out[m];
  }
  lean.columns = args.matrix[0].columns;
  lean.x = args.x;
  lean.gain = args.gain;
  lean.eps = args.eps;
  if (args.output[0] == Output::kMamba) {
    const MambaLayer& m = args.mamba;
    lean.convolve = {m.conv_weight,
                     m.conv_bias,
                     m.dt_bias,
                     args.sequences,
                     int64_t{m.state_layer} * (m.conv_kernel - 1) * m.conv_size(),
                     m.inner(),
                     m.conv_size(),
                     m.time_step_low,
                     m.time_step_high};
  }
  return lean;
}

// Blocks of the kernels there are.
int lean_blocks(int columns) {
  return is_even(columns, 12) ? 12 : is_even(columns, 16) ? 16 : 0;
}

}  // namespace

bool is_lean(const DenseArgs& args) {
  Use use{};
  const bool has_bias =
      args.matrix[0].bias != nullptr || (args.n_matrices > 1 && args.matrix[1].bias != nullptr);
  return args.n == 1 && !has_bias && lean_blocks(args.matrix[0].columns) > 0 && use_of(args, &use);
}

cudaError_t queue_lean(const DenseArgs& args, const DeviceShape& device, cudaStream_t stream) {
  Use use{};
  if (!use_of(args, &use)) {
    return cudaErrorInvalidValue;
  }
  const LeanArgs lean = lean_args(args);
  constexpr int kOther = sizeof(SingleExchange);
  const int rows = block_rows(lean.rows[0], device) + block_rows(lean.rows[1], device);
  const RingShape ring = single_ring(lean.columns, kOther, device.shared_bytes, rows);
  if (!is_ring(ring)) {
    return cudaErrorInvalidConfiguration;
  }
  const auto queue = [&](auto kernel) {
    return launch(kernel, dim3(static_cast<unsigned>(device.n_blocks)), kDecodeThreads,
                  static_cast<size_t>(ring.bytes() + kOther), stream, lean, ring);
  };
  const bool is_short = lean_blocks(lean.columns) == 12;
  switch (use) {
    case Use::kConvolve:
      return is_short ? queue(lean_kernel<12, Use::kConvolve>)
                      : queue(lean_kernel<16, Use::kConvolve>);
    case Use::kAddGrouped:
      return is_short ? queue(lean_kernel<12, Use::kAddGrouped>)
                      : queue(lean_kernel<16, Use::kAddGrouped>);
    case Use::kAdd:
      return is_short ? queue(lean_kernel<12, Use::kAdd>) : queue(lean_kernel<16, Use::kAdd>);
    case Use::kStore:
      return is_short ? queue(lean_kernel<12, Use::kStore>) : queue(lean_kernel<16, Use::kStore>);
    default:
      return is_short ? queue(lean_kernel<12, Use::kStoreAndRelu2>)
                      : queue(lean_kernel<16, Use::kStoreAndRelu2>);
  }
}

}  // namespace logitlab::cuda
