// The mixture of any number of sequences: routes, products of the chosen experts, and their sum.
#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/gemv.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/routing.cuh"

namespace logitlab::cuda {
namespace {

constexpr int kRouteThreads = 512;
constexpr int kRouteWarps = kRouteThreads / 32;

// One block. Shared memory: work of every warp, then all chosen ids.
__global__ void __launch_bounds__(kRouteThreads)
    route_kernel(const __grid_constant__ MoeLayer layer, const float* logits, int n,
                 const Routes routes) {
  extern __shared__ __align__(16) float work[];
  __shared__ int n_pairs[kMaxExperts], first_pair[kMaxExperts], first_item[kMaxExperts];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  const int k = layer.n_chosen;
  int* ids = reinterpret_cast<int*>(work + kRouteWarps * 2 * kMaxExperts);
  allow_successor();
  wait_for_predecessor();
  for (int r = warp; r < n; r += kRouteWarps) {
    const Choice choice = choose_experts(layer, logits + static_cast<int64_t>(r) * layer.n_experts,
                                         work + warp * 2 * kMaxExperts, lane);
    if (lane < k) {
      routes.ids[r * k + lane] = choice.expert;
      routes.weights[r * k + lane] = choice.weight;
      ids[r * k + lane] = choice.expert;
    }
    __syncwarp();
  }
  __syncthreads();
  // One thread per expert counts and, later, lists its pairs in order of rows.
  const int e = threadIdx.x;
  int count = 0;
  for (int i = 0; e < layer.n_experts && i < n * k; ++i) {
    count += ids[i] == e ? 1 : 0;
  }
  n_pairs[e] = count;
  __syncthreads();
  if (warp == 0) {
    int pairs = 0;
    int items = 0;
    for (int i0 = 0; i0 < kMaxExperts; i0 += 32) {
      const int p = n_pairs[i0 + lane];
      const int q = (p + kTokens - 1) / kTokens;
      int p_sum = p;
      int q_sum = q;
#pragma unroll
      for (int d = 1; d < 32; d <<= 1) {
        const int a = __shfl_up_sync(~0U, p_sum, d);
        const int b = __shfl_up_sync(~0U, q_sum, d);
        p_sum += lane >= d ? a : 0;
        q_sum += lane >= d ? b : 0;
      }
      first_pair[i0 + lane] = pairs + p_sum - p;
      first_item[i0 + lane] = items + q_sum - q;
      pairs += __shfl_sync(~0U, p_sum, 31);
      items += __shfl_sync(~0U, q_sum, 31);
    }
    if (lane == 0) {
      *routes.n_items = items;
    }
  }
  __syncthreads();
  if (count == 0) {
    return;
  }
  int at = first_pair[e];
  for (int i = 0; i < count; i += kTokens) {
    routes.items[first_item[e] + i / kTokens] = {e, at + i, min(kTokens, count - i)};
  }
  for (int i = 0; i < n * k; ++i) {
    if (ids[i] == e) {
      routes.entries[at++] = i;
    }
  }
}

// The rows [row, last) of one item that belong to this block.
struct ItemRows {
  int item, row, last;
};

// The block's share of all items' rows, item by item.
class ItemShare {
 public:
  LOGITLAB_DEVICE ItemShare(int n_items, int rows)
      : rows_(rows), range_(n_items * rows, blockIdx.x, gridDim.x), at_(range_.first) {}

  LOGITLAB_DEVICE bool next(ItemRows* part) {
    if (at_ >= range_.last) {
      return false;
    }
    part->item = at_ / rows_;
    part->row = at_ - part->item * rows_;
    part->last = min(rows_, part->row + range_.last - at_);
    at_ += part->last - part->row;
    return true;
  }

 private:
  int rows_;
  RowRange range_;
  int at_;
};

LOGITLAB_DEVICE float item_output(Output output, float v) {
  return output == Output::kRelu2 ? relu2(v) : output == Output::kSilu ? silu(v) : v;
}

LOGITLAB_DEVICE void load_items(const ItemsArgs& args, const Ring& ring, int lane) {
  RingLoader loader(ring, lane);
  ItemShare share(__ldcg(args.routes.n_items), args.rows);
  ItemRows part;
  while (share.next(&part)) {
    const int expert = __ldcg(&args.routes.items[part.item].expert);
    const __nv_bfloat16* weight =
        args.weight + static_cast<size_t>(expert) * args.rows * args.columns;
    for (int row = part.row; row < part.last; row += kRowTile) {
      const Group group{weight + static_cast<size_t>(row) * args.columns, row,
                        min(kRowTile, part.last - row)};
      loader.load(group, args.columns, 0, args.columns);
    }
  }
}

// Shared memory: ring, exchange, gain.
template <int NB>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    items_kernel(const __grid_constant__ ItemsArgs args,
                 const __grid_constant__ RingShape ring_shape) {
  extern __shared__ __align__(128) char memory[];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  allow_successor();
  const Ring ring(memory, ring_shape);
  Exchange& exchange = *reinterpret_cast<Exchange*>(memory + ring_shape.bytes());
  const bool is_normed = args.input == Input::kNormed;
  float* gain = is_normed ? reinterpret_cast<float*>(&exchange + 1) : nullptr;
  ring.begin(warp == kSlices, lane);
  if (is_normed && warp < kSlices) {
    for (int i = threadIdx.x; i < args.columns / 4; i += kConsumers) {
      reinterpret_cast<float4*>(gain)[i] = __ldg(reinterpret_cast<const float4*>(args.gain) + i);
    }
    sync_threads(1, kConsumers);
  }
  // Which weights there are to load is the router's word.
  wait_for_predecessor();
  if (warp == kSlices) {
    load_items(args, ring, lane);
    return;
  }
  const SegmentShape shape(args.columns);
  const Slice slice(shape, warp);
  RingReader reader(ring);
  const Pair<kTokens> pair(threadIdx.x);
  ItemShare share(__ldcg(args.routes.n_items), args.rows);
  ItemRows part;
  int buffer = 0;
  int turn = 0;
  while (share.next(&part)) {
    const int first = __ldcg(&args.routes.items[part.item].first);
    const int n_entries = __ldcg(&args.routes.items[part.item].n);
    const int token = lane >> 2;
    const float* x = nullptr;
    if (token < n_entries) {
      const int entry = __ldcg(args.routes.entries + first + token);
      x = args.x +
          static_cast<int64_t>(args.by_pair ? entry : entry / args.n_chosen) * args.x_stride;
    }
    const int out_entry =
        pair.token < n_entries ? __ldcg(args.routes.entries + first + pair.token) : 0;
    RawFragments<NB> raw;
    Fragments<NB> fragments;
    load_raw(raw, x, slice, args.columns, lane);
    const float squares =
        sum_lanes_of_token(convert(fragments, raw, gain, slice, args.columns, lane));
    if ((lane & 3) == 0) {
      exchange.squares[turn][warp][token] = squares;
    }
    for (int row = part.row; row < part.last;
         row += kRowTile * kChunkGroups<kTokens>, buffer ^= 1) {
      for (int g = 0; g < kChunkGroups<kTokens> && row + kRowTile * g < part.last; ++g) {
        const int n = min(kRowTile, part.last - row - kRowTile * g);
        Accumulator sum;
        dot(sum, reader.wait(n, args.columns, lane), fragments, slice, args.columns, lane);
        reader.release(lane);
        reader.advance();
        put_partial<kTokens>(exchange.partial[buffer][warp], g, sum, lane, false);
      }
      sync_threads(1, kConsumers);
      if (pair.token < n_entries && row + pair.row < part.last) {
        float v = sum_slices(exchange.partial[buffer], pair.index);
        if (is_normed) {
          v = __fmul_rn(v, norm_scale(exchange.squares[turn], pair.token,
                                      static_cast<float>(args.columns), args.eps));
        }
        args.out[static_cast<int64_t>(out_entry) * args.rows + row + pair.row] =
            item_output(args.output, v);
      }
    }
    turn ^= 1;
  }
}

__global__ void __launch_bounds__(256) combine_kernel(const __grid_constant__ CombineArgs args) {
  allow_successor();
  wait_for_predecessor();
  const int i = blockIdx.x * 256 + threadIdx.x;
  const int r = blockIdx.y;
  if (i >= args.width) {
    return;
  }
  float total = 0;
  for (int slot = 0; slot < args.n_chosen; ++slot) {
    const int64_t pair = static_cast<int64_t>(r) * args.n_chosen + slot;
    total =
        __fmaf_rn(load_l2_1(args.weights + pair), load_l2_1(args.y + pair * args.width + i), total);
  }
  const int64_t at = static_cast<int64_t>(r) * args.width + i;
  total = __fadd_rn(total, args.extra != nullptr ? load_l2_1(args.extra + at) : 0.0F);
  args.target[at] = args.adds ? __fadd_rn(load_l2_1(args.target + at), total) : total;
}

template <int NB>
cudaError_t queue_items_of(const ItemsArgs& args, const DeviceShape& device, cudaStream_t stream) {
  const int other =
      static_cast<int>(sizeof(Exchange)) + (args.input == Input::kNormed ? args.columns * 4 : 0);
  const RingShape ring = ring_shape(args.columns, other, device.shared_bytes);
  if (!is_ring(ring)) {
    return cudaErrorInvalidConfiguration;
  }
  return launch(items_kernel<NB>, dim3(static_cast<unsigned>(device.n_blocks)), kDecodeThreads,
                static_cast<size_t>(ring.bytes() + other), stream, args, ring);
}

}  // namespace

int max_items(const MoeLayer& layer) {
  return layer.n_experts + kMaxDecodeRows * layer.n_chosen / kTokens;
}

cudaError_t queue_route(const MoeLayer& layer, const float* logits, int n, const Routes& routes,
                        cudaStream_t stream) {
  const size_t bytes =
      sizeof(float) * (kRouteWarps * 2 * kMaxExperts + static_cast<size_t>(n * layer.n_chosen));
  return launch(route_kernel, dim3(1), kRouteThreads, bytes, stream, layer, logits, n, routes);
}

cudaError_t queue_items(const ItemsArgs& args, const DeviceShape& device, cudaStream_t stream) {
  const int blocks = slice_blocks(args.columns);
  return blocks <= 4    ? queue_items_of<4>(args, device, stream)
         : blocks <= 8  ? queue_items_of<8>(args, device, stream)
         : blocks <= 12 ? queue_items_of<12>(args, device, stream)
                        : queue_items_of<16>(args, device, stream);
}

cudaError_t queue_combine(const CombineArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.width + 255) / 256), static_cast<unsigned>(args.n));
  return launch(combine_kernel, grid, 256, 0, stream, args);
}

}  // namespace logitlab::cuda
