// The mixture of one sequence in two kernels, with the choice of experts inside.
#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/gemv.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/routing.cuh"
#include "backend/cuda/single.cuh"

namespace logitlab::cuda {
namespace {

// What the loader warp found out for all.
struct Chosen {
  int experts[kFewExperts];
  float weights[kFewExperts];
  float work[2 * kFusedExperts];
};
static_assert(sizeof(Chosen) % 16 == 0);

LOGITLAB_DEVICE void choose(const MoeLayer& layer, const float* logits, Chosen* chosen, int lane) {
  const Choice choice = choose_among<kFusedExperts / 32, false>(layer, logits, chosen->work, lane);
  if (lane < layer.n_chosen) {
    chosen->experts[lane] = choice.expert;
    chosen->weights[lane] = choice.weight;
  }
  __syncwarp();
}

// One warp's work; another one waits for it at barrier 2.
LOGITLAB_DEVICE void choose_for_all(const ExpertsUpArgs& args, Chosen* chosen, int lane) {
  wait_for_predecessor();
  choose(args.layer, args.logits, chosen, lane);
  arrive_threads(2, 64);
  if (blockIdx.x == 0 && lane < args.layer.n_chosen) {
    args.chosen[lane] = chosen->experts[lane];
    args.weights[lane] = chosen->weights[lane];
    __threadfence();
  }
  // The successor may count on the chosen experts: it begins after this.
  __syncwarp();
  allow_successor();
}

LOGITLAB_DEVICE float activated(Gate gate, float v) {
  return gate == Gate::kSilu ? silu(v) : relu2(v);
}

// ---- up -----------------------------------------------------------------------------------------

// Rows [first, last) of one matrix.
struct MatrixRows {
  const __nv_bfloat16* weight;
  int columns, tile, row, last;

  LOGITLAB_DEVICE bool next(Group* group) {
    if (row >= last) {
      return false;
    }
    group->n = min(tile, last - row);
    group->first = weight + static_cast<size_t>(row) * columns;
    group->row = row;
    row += group->n;
    return true;
  }
};

// Rows [first, last) of the chosen experts' matrices, one after the other; a group lies in one
// expert. experts: shared memory, null where the addresses are not needed.
struct ExpertRows {
  const __nv_bfloat16* weight;
  const int* experts;
  int columns, tile, f, row, last;

  LOGITLAB_DEVICE bool next(Group* group) {
    if (row >= last) {
      return false;
    }
    const int slot = row / f;
    const int inside = row - slot * f;
    group->n = min(min(tile, last - row), f - inside);
    if (experts != nullptr) {
      group->first = weight + (static_cast<size_t>(experts[slot]) * f + inside) * columns;
    }
    group->row = row;
    row += group->n;
    return true;
  }
};

template <class Rows>
LOGITLAB_DEVICE void load_rows(Rows rows, int columns, RingLoader* loader) {
  Group group;
  while (rows.next(&group)) {
    loader->load(group, columns, 0, columns);
  }
}

// Multiplies the rows of one part of the kernel. finish(row, sum): one thread per output.
template <int N, int NB, bool EVEN, class Rows, class Finish>
LOGITLAB_DEVICE void multiply_rows(Rows rows, const SegmentShape& shape, const Slice& slice,
                                   SingleWarp<NB, EVEN>* worker, const SingleExchange& exchange,
                                   Finish finish) {
  for (bool more = true; more;) {
    Group group;
    int n = 0;
    for (; n < kSingleGroups && rows.next(&group); ++n) {
      worker->template multiply<N>(n * kRowTile, group.n, shape, slice);
      worker->name_group(n, group);
    }
    more = n == kSingleGroups;
    sync_threads(1, kConsumers);
    const int i = threadIdx.x;
    if (i / kRowTile < n) {
      const int2 rows_of = exchange.groups[i / kRowTile];
      if (i % kRowTile < rows_of.y) {
        finish(rows_of.x + i % kRowTile, sum_slices(exchange.partial, i));
      }
    }
    sync_threads(1, kConsumers);
  }
}

// Copies this warp's slice of x into shared memory without waiting; x of the whole block there.
LOGITLAB_DEVICE void fetch_slice(const float* source, const Slice& slice, int length, float* x,
                                 int lane) {
  const int last = min(slice.k + 32 * slice.n_blocks, length);
  for (int k = slice.k + 4 * lane; k < last; k += 128) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(x + k)),
                 "l"(source + k)
                 : "memory");
  }
}
// What load_single would have given.
LOGITLAB_DEVICE SingleRaw take_slice(const float* x, const Slice& slice, int length, int lane) {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncwarp();
  SingleRaw raw;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int block = (lane >> 2) + kSliceBlocks / 2 * i;
    const int k = slice.k + 32 * block + 8 * (lane & 3);
    const bool is_there = block < slice.n_blocks && k < length;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      raw.v[i][j] = is_there ? *reinterpret_cast<const float4*>(x + k + 4 * j) : float4{};
    }
  }
  return raw;
}

// NB: blocks of a slice at most; N: of the routed experts, with EVEN.
template <int NB, int N, bool EVEN>
LOGITLAB_DEVICE void experts_up(const ExpertsUpArgs& args, const Ring& ring, int shared_tile,
                                SingleExchange* exchange, float* x, int warp, int lane) {
  const MoeLayer& layer = args.layer;
  const Matrix& down = layer.shared.down;
  const RowRange shared_range(layer.has_shared ? down.rows : 0, blockIdx.x, gridDim.x);
  const RowRange up_range(layer.n_chosen * layer.f, blockIdx.x, gridDim.x);
  SingleWarp<NB, EVEN> worker(ring, exchange, &exchange->passage(warp), warp, lane);
  const SegmentShape shape(layer.w);
  const Slice slice(shape, warp);
  wait_for_predecessor();
  if (layer.has_shared) {
    const SegmentShape down_shape(down.columns);
    const Slice down_slice(down_shape, warp);
    worker.place(load_single(args.shared_hidden, down_slice, down.columns, lane), nullptr);
    // On its way while the shared expert is multiplied.
    fetch_slice(args.x, slice, layer.w, x, lane);
    multiply_rows<NB>(
        MatrixRows{down.weight, down.columns, shared_tile, shared_range.first, shared_range.last},
        down_shape, down_slice, &worker, *exchange, [&](int row, float v) {
          args.shared_out[row] = down.bias == nullptr ? v : __fadd_rn(v, down.bias[row]);
        });
  } else {
    fetch_slice(args.x, slice, layer.w, x, lane);
  }
  const SingleRaw gain = load_single(args.gain, slice, layer.w, lane, true);
  const float squares = worker.place(take_slice(x, slice, layer.w, lane), &gain);
  if (lane == 0) {
    exchange->squares[warp] = squares;
  }
  multiply_rows<N>(
      ExpertRows{layer.up, nullptr, layer.w, ring.rows, layer.f, up_range.first, up_range.last},
      shape, slice, &worker, *exchange, [&](int row, float v) {
        const float scale = norm_scale(exchange->squares, static_cast<float>(layer.w), args.eps);
        args.hidden[row] = activated(layer.gate, __fmul_rn(v, scale));
      });
}

// A warp more than others have: it chooses the experts while the loader is busy.
constexpr int kUpThreads = kDecodeThreads + 32;

// One block per multiprocessor; shared memory: ring, exchange, chosen, x. shared_tile: rows of a
// stage of the shared expert's.
template <int NB, int N, bool EVEN>
__global__ void __launch_bounds__(kUpThreads, 1)
    experts_up_kernel(const __grid_constant__ ExpertsUpArgs args,
                      const __grid_constant__ RingShape ring_shape, int shared_tile) {
  extern __shared__ __align__(128) char memory[];
  const MoeLayer& layer = args.layer;
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  const Ring ring(memory, ring_shape);
  SingleExchange* exchange = reinterpret_cast<SingleExchange*>(memory + ring_shape.bytes());
  Chosen& chosen = *reinterpret_cast<Chosen*>(exchange + 1);
  if (warp > kSlices) {
    choose_for_all(args, &chosen, lane);
    return;
  }
  ring.begin(warp == kSlices, lane);
  if (warp < kSlices) {
    experts_up<NB, N, EVEN>(args, ring, shared_tile, exchange,
                            reinterpret_cast<float*>(&chosen + 1), warp, lane);
    return;
  }
  const Matrix& down = layer.shared.down;
  const RowRange shared_range(layer.has_shared ? down.rows : 0, blockIdx.x, gridDim.x);
  const RowRange up_range(layer.n_chosen * layer.f, blockIdx.x, gridDim.x);
  RingLoader loader(ring, lane);
  load_rows(
      MatrixRows{down.weight, down.columns, shared_tile, shared_range.first, shared_range.last},
      down.columns, &loader);
  sync_threads(2, 64);
  load_rows(ExpertRows{layer.up, chosen.experts, layer.w, ring.rows, layer.f, up_range.first,
                       up_range.last},
            layer.w, &loader);
}

// ---- down ---------------------------------------------------------------------------------------

LOGITLAB_DEVICE void load_down(const ExpertsDownArgs& args, const Ring& ring, const RowRange& range,
                               int chunk_rows, int lane) {
  const MoeLayer& layer = args.layer;
  RingLoader loader(ring, lane);
  // The predecessor has written them before it let this kernel begin: they are there before the
  // wait.
  const int chosen = lane < layer.n_chosen ? __ldcg(args.chosen + lane) : 0;
  for (int first = range.first; first < range.last; first += chunk_rows) {
    const int last = min(first + chunk_rows, range.last);
    for (int slot = 0; slot < layer.n_chosen; ++slot) {
      const int expert = __shfl_sync(~0U, chosen, slot);
      const __nv_bfloat16* weight = layer.down + static_cast<size_t>(expert) * layer.w * layer.f;
      load_rows(MatrixRows{weight, layer.f, ring.rows, first, last}, layer.f, &loader);
    }
  }
}

template <int NB, bool EVEN>
LOGITLAB_DEVICE void experts_down(const ExpertsDownArgs& args, const Ring& ring,
                                  LongExchange* exchange, const RowRange& range, int chunk_rows,
                                  int warp, int lane) {
  const MoeLayer& layer = args.layer;
  const SegmentShape shape(layer.f);
  const Slice slice(shape, warp);
  const int thread = threadIdx.x;
  SingleWarp<NB, EVEN> worker(ring, exchange, &exchange->fragments[warp], warp, lane);
  wait_for_predecessor();
  SingleRaw raw = load_single(args.hidden, slice, layer.f, lane);
  for (int first = range.first; first < range.last; first += chunk_rows) {
    const int last = min(first + chunk_rows, range.last);
    const int row = first + thread;
    const bool is_mine = thread < chunk_rows && row < last;
    const float before = is_mine ? load_l2_1(args.residual + row) : 0.0F;
    const float extra =
        is_mine && args.shared_out != nullptr ? load_l2_1(args.shared_out + row) : 0.0F;
    if (first > range.first) {
      sync_threads(1, kConsumers);  // the chunk before has been read
    }
    for (int slot = 0; slot < layer.n_chosen; ++slot) {
      worker.place(raw, nullptr);
      const int next = slot + 1 < layer.n_chosen ? slot + 1 : 0;
      raw = load_single(args.hidden + static_cast<int64_t>(next) * layer.f, slice, layer.f, lane);
      for (int r = first; r < last; r += ring.rows) {
        worker.multiply(slot * chunk_rows + r - first, min(ring.rows, last - r), shape, slice);
      }
    }
    sync_threads(1, kConsumers);
    if (is_mine) {
      float total = 0;
      for (int slot = 0; slot < layer.n_chosen; ++slot) {
        total = __fmaf_rn(load_l2_1(args.weights + slot),
                          sum_slices(exchange->partial, slot * chunk_rows + thread), total);
      }
      args.residual[row] = __fadd_rn(before, __fadd_rn(total, extra));
    }
  }
}

// One block per multiprocessor; shared memory: ring, exchange.
template <int NB, bool EVEN>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    experts_down_kernel(const __grid_constant__ ExpertsDownArgs args,
                        const __grid_constant__ RingShape ring_shape) {
  extern __shared__ __align__(128) char memory[];
  const MoeLayer& layer = args.layer;
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  allow_successor();
  const Ring ring(memory, ring_shape);
  LongExchange* exchange = reinterpret_cast<LongExchange*>(memory + ring_shape.bytes());
  ring.begin(warp == kSlices, lane);
  const RowRange range(layer.w, blockIdx.x, gridDim.x);
  // As many that all experts' sums of them fit.
  const int chunk_rows = static_cast<int>(kPairs / static_cast<u32>(layer.n_chosen));
  if (warp == kSlices) {
    load_down(args, ring, range, chunk_rows, lane);
  } else {
    experts_down<NB, EVEN>(args, ring, exchange, range, chunk_rows, warp, lane);
  }
}

}  // namespace

bool has_fused_experts(const MoeLayer& layer) {
  return !layer.has_latent && layer.n_chosen <= kFewExperts && layer.n_experts <= kFusedExperts &&
         layer.n_groups == 1 && layer.w <= kSegment && layer.f <= kSegment &&
         (!layer.has_shared ||
          (layer.shared.gate != Gate::kSiluMul && layer.shared.down.columns <= kSegment));
}

cudaError_t queue_experts_up(const ExpertsUpArgs& args, const DeviceShape& device,
                             cudaStream_t stream) {
  const MoeLayer& layer = args.layer;
  const int shared_columns = layer.has_shared ? layer.shared.down.columns : 0;
  const int columns = std::max(layer.w, shared_columns);
  const int other = static_cast<int>(sizeof(SingleExchange) + sizeof(Chosen)) + layer.w * 4;
  const int rows = block_rows(layer.n_chosen * layer.f, device);
  RingShape ring = single_ring(layer.w, other, device.shared_bytes, rows);
  if (ring.stage_bytes < 2 * shared_columns) {
    ring = single_ring(shared_columns, other, device.shared_bytes, rows);
  }
  const int shared_tile =
      shared_columns == 0 ? 1 : std::min(kRowTile, ring.stage_bytes / (2 * shared_columns));
  if (!is_ring(ring)) {
    return cudaErrorInvalidConfiguration;
  }
  const auto queue = [&](auto kernel) {
    return launch(kernel, dim3(static_cast<unsigned>(device.n_blocks)), kUpThreads,
                  static_cast<size_t>(ring.bytes() + other), stream, args, ring, shared_tile);
  };
  const int blocks = slice_blocks(columns);
  if (layer.has_shared && is_even(layer.shared.down.columns, 16) && is_even(layer.w, 12)) {
    return queue(experts_up_kernel<16, 12, true>);
  }
  return blocks <= 4    ? queue(experts_up_kernel<4, 4, false>)
         : blocks <= 8  ? queue(experts_up_kernel<8, 8, false>)
         : blocks <= 12 ? queue(experts_up_kernel<12, 12, false>)
                        : queue(experts_up_kernel<16, 16, false>);
}

cudaError_t queue_experts_down(const ExpertsDownArgs& args, const DeviceShape& device,
                               cudaStream_t stream) {
  constexpr int kOther = sizeof(LongExchange);
  const RingShape ring =
      single_ring(args.layer.f, kOther, device.shared_bytes, block_rows(args.layer.w, device));
  if (!is_ring(ring)) {
    return cudaErrorInvalidConfiguration;
  }
  const auto queue = [&](auto kernel) {
    return launch(kernel, dim3(static_cast<unsigned>(device.n_blocks)), kDecodeThreads,
                  static_cast<size_t>(ring.bytes() + kOther), stream, args, ring);
  };
  const int blocks = slice_blocks(args.layer.f);
  if (is_even(args.layer.f, 8)) {
    return queue(experts_down_kernel<8, true>);
  }
  return blocks <= 4    ? queue(experts_down_kernel<4, false>)
         : blocks <= 8  ? queue(experts_down_kernel<8, false>)
         : blocks <= 12 ? queue(experts_down_kernel<12, false>)
                        : queue(experts_down_kernel<16, false>);
}

}  // namespace logitlab::cuda
