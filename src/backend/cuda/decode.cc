#include "backend/cuda/decode.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/decode_plan.h"

namespace logitlab::cuda {
namespace {

#define RETURN_IF_CUDA_ERROR(call)         \
  do {                                     \
    const cudaError_t cuda_error = (call); \
    if (cuda_error != cudaSuccess) {       \
      return cuda_error;                   \
    }                                      \
  } while (false)

// Chosen ids that lie on the device until the host takes them.
constexpr int kStepsAtOnce = 256;
// A multiprocessor keeps a kilobyte of every block for itself.
constexpr int kSpareBytes = 4096;
// Steps of one graph that chooses by itself: fewer launches for the host, fewer gaps between them.
constexpr int kGraphSteps = 8;

template <class T>
struct FreeDevice {
  void operator()(T* p) const { cudaFree(p); }
};
template <class T>
using DevicePointer = std::unique_ptr<T, FreeDevice<T>>;

// Adds up sizes first, then hands out pieces of one allocation.
class Pieces {
 public:
  template <class T>
  void want(T** pointer, size_t n) {
    const size_t bytes = (std::max<size_t>(n, 1) * sizeof(T) + 255) / 256 * 256;
    wishes_.push_back({reinterpret_cast<void**>(pointer), total_});
    total_ += bytes;
  }
  [[nodiscard]] size_t total() const { return total_; }
  void hand_out(void* memory) const {
    for (const auto& [pointer, offset] : wishes_) {
      *pointer = static_cast<char*>(memory) + offset;
    }
  }

 private:
  std::vector<std::pair<void**, size_t>> wishes_;
  size_t total_ = 0;
};

// Widths of the work space.
struct Widths {
  size_t projected = 0, y = 0, experts = 0, shared = 0, hidden = 0, expert_out = 0, latent = 0;
  size_t chosen = 0, items = 0, counters = 0;
  int columns = 0;  // of any matrix

  static Widths of(const ModelView& model) {
    Widths w;
    const auto grow = [](size_t* value, int64_t n) {
      *value = std::max(*value, static_cast<size_t>(n));
    };
    const auto seen = [&](const Matrix& m) { w.columns = std::max(w.columns, m.columns); };
    seen(model.head);
    for (const Layer& layer : model.layers) {
      switch (layer.kind) {
        case LayerKind::kMamba:
          grow(&w.projected, layer.mamba.projected());
          grow(&w.y, layer.mamba.inner());
          seen(layer.mamba.out_proj);
          break;
        case LayerKind::kAttention:
          grow(&w.projected, layer.attention.qkv.rows);
          grow(&w.y, layer.attention.o.columns);
          grow(&w.counters, attention_counters(layer.attention));
          seen(layer.attention.o);
          break;
        case LayerKind::kMoe: {
          const MoeLayer& m = layer.moe;
          grow(&w.experts, m.n_experts);
          grow(&w.shared, m.shared.down.columns);
          grow(&w.hidden, int64_t{m.n_chosen} * m.f);
          grow(&w.expert_out, int64_t{m.n_chosen} * m.w);
          grow(&w.latent, m.w);
          grow(&w.chosen, m.n_chosen);
          grow(&w.items, max_items(m));
          seen(m.shared.down);
          seen(m.latent_out);
          break;
        }
        case LayerKind::kMlp:
          grow(&w.hidden, layer.mlp.down.columns);
          seen(layer.mlp.down);
          break;
      }
    }
    return w;
  }
};

void want_routes(Routes* routes, const Widths& w, Pieces* pieces) {
  pieces->want(&routes->ids, kMaxDecodeRows * w.chosen);
  pieces->want(&routes->weights, kMaxDecodeRows * w.chosen);
  pieces->want(&routes->n_items, 1);
  pieces->want(&routes->items, w.items);
  pieces->want(&routes->entries, kMaxDecodeRows * w.chosen);
}

class GraphDecoder final : public Decoder {
 public:
  explicit GraphDecoder(const ModelView& model) : model_(model) {}
  GraphDecoder(const GraphDecoder&) = delete;
  GraphDecoder& operator=(const GraphDecoder&) = delete;
  ~GraphDecoder() override {
    drop_graphs();
    if (staged_ != nullptr) {
      cudaEventDestroy(staged_);
    }
    cudaFreeHost(staging_);
  }

  cudaError_t init() {
    int ordinal = 0;
    RETURN_IF_CUDA_ERROR(cudaGetDevice(&ordinal));
    RETURN_IF_CUDA_ERROR(
        cudaDeviceGetAttribute(&device_.n_blocks, cudaDevAttrMultiProcessorCount, ordinal));
    RETURN_IF_CUDA_ERROR(cudaDeviceGetAttribute(&device_.shared_bytes,
                                                cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal));
    // What is left lets a block of a small kernel in beside one with a ring.
    device_.shared_bytes -= kSpareBytes;
    const Widths w = Widths::of(model_);
    constexpr size_t kRows = kMaxDecodeRows;
    Pieces pieces;
    pieces.want(&b_.x, kRows * static_cast<size_t>(model_.hidden_size));
    pieces.want(&b_.projected, kRows * w.projected);
    pieces.want(&b_.y, kRows * w.y);
    pieces.want(&b_.router_logits, kRows * w.experts);
    pieces.want(&b_.shared_hidden, kRows * w.shared);
    pieces.want(&b_.shared_out, kRows * static_cast<size_t>(model_.hidden_size));
    pieces.want(&b_.hidden, kRows * w.hidden);
    pieces.want(&b_.expert_out, kRows * w.expert_out);
    pieces.want(&b_.latent, kRows * w.latent);
    pieces.want(&b_.mixed, kRows * w.latent);
    pieces.want(&b_.logits, kRows * static_cast<size_t>(model_.vocab_size));
    pieces.want(&b_.packed, packed_words(w.columns));
    pieces.want(&b_.squares, 8 * kRows);
    pieces.want(&b_.attention_arrived, kRows * w.counters);
    want_routes(&b_.routes, w, &pieces);
    pieces.want(&b_.ids, kRows);
    pieces.want(&b_.sequences, kRows);
    pieces.want(&draws_, kRows);
    pieces.want(&out_, kRows * kStepsAtOnce);
    pieces.want(&step_, 1);
    pieces.want(&best_, kRows * kChooseBlocks);
    pieces.want(&arrived_, kRows + 1);
    void* memory = nullptr;
    RETURN_IF_CUDA_ERROR(cudaMalloc(&memory, pieces.total()));
    memory_.reset(static_cast<char*>(memory));
    memory_bytes_ = pieces.total();
    pieces.hand_out(memory);
    RETURN_IF_CUDA_ERROR(cudaMemset(memory, 0, pieces.total()));
    RETURN_IF_CUDA_ERROR(
        cudaHostAlloc(reinterpret_cast<void**>(&staging_), sizeof(Staging), cudaHostAllocDefault));
    RETURN_IF_CUDA_ERROR(cudaEventCreateWithFlags(&staged_, cudaEventDisableTiming));
    return cudaSuccess;
  }

  cudaError_t step(std::span<const Sequence> sequences, std::span<const int> ids,
                   cudaStream_t stream) override {
    RETURN_IF_CUDA_ERROR(stage(sequences, ids, {}, 1, stream));
    cudaGraphExec_t graph = nullptr;
    RETURN_IF_CUDA_ERROR(graph_of(static_cast<int>(sequences.size()), 0, stream, &graph));
    return cudaGraphLaunch(graph, stream);
  }

  cudaError_t steps(std::span<const Sequence> sequences, std::span<const int> first,
                    std::span<const Draw> draws, int n_steps, int* out,
                    cudaStream_t stream) override {
    std::vector<Sequence> now(sequences.begin(), sequences.end());
    std::vector<int> ids(first.begin(), first.end());
    std::vector<Draw> draws_now(draws.begin(), draws.end());
    const size_t n = now.size();
    std::vector<int> part(n * kStepsAtOnce);
    for (int done = 0; done < n_steps;) {
      const int count = std::min(kStepsAtOnce, n_steps - done);
      RETURN_IF_CUDA_ERROR(stage(now, ids, draws_now, count, stream));
      RETURN_IF_CUDA_ERROR(cudaMemsetAsync(step_, 0, sizeof(int), stream));
      RETURN_IF_CUDA_ERROR(launch_steps(static_cast<int>(n), count, stream));
      RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(part.data(), out_, part.size() * sizeof(int),
                                           cudaMemcpyDeviceToHost, stream));
      RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
      for (size_t i = 0; i < n; ++i) {
        std::copy_n(part.data() + i * kStepsAtOnce, count, out + i * n_steps + done);
        ids[i] = std::max(0, part[i * kStepsAtOnce + count - 1]);
        now[i].length += count;
        draws_now[i].first_step += static_cast<uint64_t>(count);
      }
      done += count;
    }
    return cudaSuccess;
  }

  cudaError_t head(const float* residual, int n, cudaStream_t stream) override {
    return plan_head(model_, b_, device_, residual, n).queue(stream);
  }

  [[nodiscard]] const float* logits() const override { return b_.logits; }
  [[nodiscard]] size_t scratch_bytes() const override { return memory_bytes_ + partial_bytes_; }

  cudaError_t profile(std::span<const Sequence> sequences, int repeats,
                      std::vector<PhaseTime>* phases, cudaStream_t stream) override;

 private:
  struct Staging {
    Sequence sequences[kMaxDecodeRows];
    int ids[kMaxDecodeRows];
    Draw draws[kMaxDecodeRows];
  };

  // Brings what the host says of a step to the device, and makes room for n_steps steps' attention.
  cudaError_t stage(std::span<const Sequence> sequences, std::span<const int> ids,
                    std::span<const Draw> draws, int n_steps, cudaStream_t stream) {
    if (sequences.empty() || sequences.size() > kMaxDecodeRows || ids.size() != sequences.size()) {
      return cudaErrorInvalidValue;
    }
    RETURN_IF_CUDA_ERROR(make_room(sequences, n_steps, stream));
    // The copies of the step before may still read the staging memory.
    RETURN_IF_CUDA_ERROR(cudaEventSynchronize(staged_));
    std::copy(sequences.begin(), sequences.end(), staging_->sequences);
    std::copy(ids.begin(), ids.end(), staging_->ids);
    std::copy(draws.begin(), draws.end(), staging_->draws);
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(b_.sequences, staging_->sequences,
                                         sequences.size() * sizeof(Sequence),
                                         cudaMemcpyHostToDevice, stream));
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(b_.ids, staging_->ids, ids.size() * sizeof(int),
                                         cudaMemcpyHostToDevice, stream));
    if (!draws.empty()) {
      RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(draws_, staging_->draws, draws.size() * sizeof(Draw),
                                           cudaMemcpyHostToDevice, stream));
    }
    return cudaEventRecord(staged_, stream);
  }

  cudaError_t make_room(std::span<const Sequence> sequences, int n_steps, cudaStream_t stream) {
    int64_t splits = 0;
    for (const Sequence& s : sequences) {
      splits += (s.length + n_steps - 1) / kSplitPositions + 1;
    }
    size_t floats = 0;
    for (const Layer& layer : model_.layers) {
      if (layer.kind == LayerKind::kAttention) {
        floats = std::max(floats, attention_partial_floats(layer.attention, splits));
      }
    }
    if (floats * sizeof(float) <= partial_bytes_) {
      return cudaSuccess;
    }
    const size_t bytes = 2 * floats * sizeof(float);
    RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
    drop_graphs();
    partial_.reset();
    partial_bytes_ = 0;
    b_.attention_partial = nullptr;
    void* memory = nullptr;
    RETURN_IF_CUDA_ERROR(cudaMalloc(&memory, bytes));
    partial_.reset(static_cast<float*>(memory));
    partial_bytes_ = bytes;
    b_.attention_partial = partial_.get();
    return cudaSuccess;
  }

  cudaError_t launch_steps(int n, int count, cudaStream_t stream) {
    while (count > 0) {
      const int at_once = count >= kGraphSteps ? kGraphSteps : 1;
      cudaGraphExec_t graph = nullptr;
      RETURN_IF_CUDA_ERROR(graph_of(n, at_once, stream, &graph));
      RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph, stream));
      count -= at_once;
    }
    return cudaSuccess;
  }

  // Steps that choose by themselves, or (chosen_steps 0) one whose logits are the result.
  cudaError_t graph_of(int n, int chosen_steps, cudaStream_t stream, cudaGraphExec_t* graph) {
    const auto found = graphs_.find({n, chosen_steps});
    if (found != graphs_.end()) {
      *graph = found->second;
      return cudaSuccess;
    }
    const std::vector<DecodePhase> phases = plan_step(model_, b_, device_, n);
    const auto queue = [&](cudaStream_t s) {
      for (int i = 0; i < std::max(1, chosen_steps); ++i) {
        for (const DecodePhase& phase : phases) {
          RETURN_IF_CUDA_ERROR(phase.queue(s));
        }
        if (chosen_steps > 0) {
          RETURN_IF_CUDA_ERROR(queue_choose(choose_args(n), s));
        }
      }
      return cudaSuccess;
    };
    RETURN_IF_CUDA_ERROR(capture(queue, stream, graph));
    graphs_[{n, chosen_steps}] = *graph;
    return cudaSuccess;
  }

  template <class Queue>
  static cudaError_t capture(const Queue& queue, cudaStream_t stream, cudaGraphExec_t* exec) {
    RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    const cudaError_t queued = queue(stream);
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    if (queued != cudaSuccess || ended != cudaSuccess) {
      if (graph != nullptr) {
        cudaGraphDestroy(graph);
      }
      return queued != cudaSuccess ? queued : ended;
    }
    const cudaError_t made = cudaGraphInstantiate(exec, graph, 0);
    cudaGraphDestroy(graph);
    return made;
  }

  [[nodiscard]] ChooseArgs choose_args(int n) const {
    ChooseArgs args;
    args.logits = b_.logits;
    args.vocab_size = model_.vocab_size;
    args.n = n;
    args.draws = draws_;
    args.sequences = b_.sequences;
    args.ids = b_.ids;
    args.out = out_;
    args.out_stride = kStepsAtOnce;
    args.step = step_;
    args.best = best_;
    args.arrived = arrived_;
    return args;
  }

  void drop_graphs() {
    for (const auto& [key, graph] : graphs_) {
      cudaGraphExecDestroy(graph);
    }
    graphs_.clear();
  }

  template <class Queue>
  cudaError_t measure(const Queue& queue, int repeats, cudaStream_t stream, double* microseconds);
  cudaError_t make_routes(DecodeBuffers* buffers, DevicePointer<char>* memory) const;

  const ModelView& model_;
  DeviceShape device_;
  DecodeBuffers b_;
  DevicePointer<char> memory_;
  size_t memory_bytes_ = 0;
  DevicePointer<float> partial_;
  size_t partial_bytes_ = 0;
  Draw* draws_ = nullptr;
  int* out_ = nullptr;
  int* step_ = nullptr;
  ulonglong2* best_ = nullptr;
  int* arrived_ = nullptr;
  Staging* staging_ = nullptr;
  cudaEvent_t staged_ = nullptr;
  std::map<std::pair<int, int>, cudaGraphExec_t> graphs_;
};

// Median time of one replay of what `queue` queues.
template <class Queue>
cudaError_t GraphDecoder::measure(const Queue& queue, int repeats, cudaStream_t stream,
                                  double* microseconds) {
  constexpr int kReplays = 8;
  cudaGraphExec_t graph = nullptr;
  RETURN_IF_CUDA_ERROR(capture(queue, stream, &graph));
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cudaError_t error = cudaEventCreate(&begin);
  error = error == cudaSuccess ? cudaEventCreate(&end) : error;
  std::vector<float> times;
  for (int r = -1; r < repeats && error == cudaSuccess; ++r) {
    error = cudaEventRecord(begin, stream);
    for (int i = 0; i < kReplays && error == cudaSuccess; ++i) {
      error = cudaGraphLaunch(graph, stream);
    }
    error = error == cudaSuccess ? cudaEventRecord(end, stream) : error;
    error = error == cudaSuccess ? cudaEventSynchronize(end) : error;
    float ms = 0;
    error = error == cudaSuccess ? cudaEventElapsedTime(&ms, begin, end) : error;
    if (r >= 0) {
      times.push_back(ms * 1000 / kReplays);
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(graph);
  if (error == cudaSuccess) {
    std::sort(times.begin(), times.end());
    *microseconds = times[times.size() / 2];
  }
  return error;
}

// Routes of their own for all mixtures, so that the phases of each can run again as they did.
cudaError_t GraphDecoder::make_routes(DecodeBuffers* buffers, DevicePointer<char>* memory) const {
  const Widths w = Widths::of(model_);
  const auto is_mixture = [](const Layer& layer) { return layer.kind == LayerKind::kMoe; };
  buffers->routes_of_mixture.resize(
      static_cast<size_t>(std::count_if(model_.layers.begin(), model_.layers.end(), is_mixture)));
  Pieces pieces;
  for (Routes& routes : buffers->routes_of_mixture) {
    want_routes(&routes, w, &pieces);
  }
  void* pointer = nullptr;
  RETURN_IF_CUDA_ERROR(cudaMalloc(&pointer, std::max<size_t>(pieces.total(), 1)));
  memory->reset(static_cast<char*>(pointer));
  pieces.hand_out(pointer);
  return cudaSuccess;
}

namespace {

// Experts that the rows of one mixture have chosen.
cudaError_t count_experts(const Routes& routes, cudaStream_t stream, double* n_experts) {
  int n = 0;
  RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(&n, routes.n_items, sizeof(n), cudaMemcpyDeviceToHost, stream));
  RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  std::vector<Item> items(static_cast<size_t>(n));
  RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(items.data(), routes.items, items.size() * sizeof(Item),
                                       cudaMemcpyDeviceToHost, stream));
  RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  std::set<int> experts;
  for (const Item& item : items) {
    experts.insert(item.expert);
  }
  *n_experts = static_cast<double>(experts.size());
  return cudaSuccess;
}

cudaError_t queue_all(const std::vector<DecodePhase>& phases, cudaStream_t stream) {
  for (const DecodePhase& phase : phases) {
    RETURN_IF_CUDA_ERROR(phase.queue(stream));
  }
  return cudaSuccess;
}

// Kinds in the order in which they come, with their launches and bytes.
cudaError_t kinds_of(const std::vector<DecodePhase>& plan, const DecodeBuffers& buffers,
                     cudaStream_t stream, std::vector<PhaseTime>* kinds) {
  kinds->clear();
  for (const DecodePhase& phase : plan) {
    const auto same = [&](const PhaseTime& t) { return t.name == phase.kind; };
    auto found = std::find_if(kinds->begin(), kinds->end(), same);
    if (found == kinds->end()) {
      kinds->push_back({std::string(phase.kind), 0, 0, 0});
      found = kinds->end() - 1;
    }
    double n = 1;
    if (phase.mixture >= 0) {
      const auto mixture = static_cast<size_t>(phase.mixture);
      RETURN_IF_CUDA_ERROR(count_experts(buffers.routes_of_mixture[mixture], stream, &n));
    }
    ++found->count;
    found->bytes += phase.bytes * n;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t GraphDecoder::profile(std::span<const Sequence> sequences, int repeats,
                                  std::vector<PhaseTime>* phases, cudaStream_t stream) {
  const int n = static_cast<int>(sequences.size());
  std::vector<int> ids;
  for (int i = 0; i < n; ++i) {
    ids.push_back((1 + 7919 * i) % model_.vocab_size);
  }
  RETURN_IF_CUDA_ERROR(stage(sequences, ids, {}, 1, stream));
  DecodeBuffers buffers = b_;
  DevicePointer<char> memory;
  RETURN_IF_CUDA_ERROR(make_routes(&buffers, &memory));
  const std::vector<DecodePhase> plan = plan_step(model_, buffers, device_, n);
  RETURN_IF_CUDA_ERROR(queue_all(plan, stream));
  RETURN_IF_CUDA_ERROR(kinds_of(plan, buffers, stream, phases));
  PhaseTime whole{"step", 1, 0, 0};
  for (PhaseTime& t : *phases) {
    // A step before every kind: the kind before has left a residual to which its outputs were added
    // again and again, and no mixture would choose by it as it does.
    std::vector<DecodePhase> same;
    std::copy_if(plan.begin(), plan.end(), std::back_inserter(same),
                 [&](const DecodePhase& phase) { return phase.kind == t.name; });
    RETURN_IF_CUDA_ERROR(stage(sequences, ids, {}, 1, stream));
    RETURN_IF_CUDA_ERROR(queue_all(plan, stream));
    const auto queue = [&](cudaStream_t s) { return queue_all(same, s); };
    RETURN_IF_CUDA_ERROR(measure(queue, repeats, stream, &t.microseconds));
    whole.bytes += t.bytes;
  }
  const auto queue = [&](cudaStream_t s) { return queue_all(plan, s); };
  RETURN_IF_CUDA_ERROR(measure(queue, repeats, stream, &whole.microseconds));
  phases->push_back(whole);
  return cudaSuccess;
}

}  // namespace

cudaError_t Decoder::make(const ModelView& model, std::unique_ptr<Decoder>* decoder) {
  auto made = std::make_unique<GraphDecoder>(model);
  RETURN_IF_CUDA_ERROR(made->init());
  *decoder = std::move(made);
  return cudaSuccess;
}

}  // namespace logitlab::cuda
