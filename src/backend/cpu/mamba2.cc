#include "backend/cpu/mamba2.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cpu/scratch.h"

namespace logitlab {
namespace {

// Channels that are convolved at once; a multiple of 16.
constexpr int64_t kChannels = 512;
// Elements of state to renew below which a call is not worth the threads.
constexpr int64_t kParallelUpdates = 64 << 10;
// Below this e^x is 0, and so is e^(x + y): sums of logarithms of decay need not be longer.
constexpr float kLeastLogarithm = -128;

// Work space of one thread: pieces of one allocation, laid out for one shape.
struct Work {
  float* convolution = nullptr;  // [2 taps - 1, kChannels]
  float* steps = nullptr;        // [kScanChunk, heads of a group]
  float* logarithms = nullptr;
  float* decays = nullptr;
  // The rest for chunks alone.
  float* b = nullptr;         // [kScanChunk, state_size]; sizes are padded from here on
  float* c = nullptr;         // [kScanChunk, state_size]
  float* products = nullptr;  // [kScanChunk, kScanChunk]
  float* x = nullptr;         // [kScanChunk, head_dim]
  float* y = nullptr;         // [kScanChunk, head_dim]
  float* high = nullptr;      // [kScanChunk]
  float* low = nullptr;       // [kScanChunk]
  float* chunk = nullptr;     // ScanChunk::work
  float* state = nullptr;     // [head_dim, state_size]
};

class Mixer {
 public:
  Mixer(const CpuKernels& kernels, const Mamba2Weights& weights, const Mamba2Shape& shape,
        float* projected, float* out, bool has_chunks)
      : kernels_(kernels),
        weights_(weights),
        shape_(shape),
        projected_(projected),
        out_(out),
        has_chunks_(has_chunks) {}

  [[nodiscard]] int64_t heads_of_group() const { return shape_.n_heads / shape_.n_groups; }

  // Floats of work space, or its layout when `base` is given.
  int64_t lay_out(float* base, Work& work) const {
    int64_t used = 0;
    const auto take = [&](float*& part, int64_t n) {
      part = base == nullptr ? nullptr : base + used;
      used += round_up(n, 16);
    };
    take(work.convolution, (2 * shape_.conv_kernel - 1) * kChannels);
    const int64_t steps = kScanChunk * heads_of_group();
    take(work.steps, steps);
    take(work.logarithms, steps);
    take(work.decays, steps);
    if (has_chunks_) {
      take(work.b, kScanChunk * padded_state());
      take(work.c, kScanChunk * padded_state());
      take(work.products, kScanChunk * kScanChunk);
      take(work.x, kScanChunk * padded_head());
      take(work.y, kScanChunk * padded_head());
      take(work.high, kScanChunk);
      take(work.low, kScanChunk);
      take(work.chunk, (kScanChunk + 1 + padded_head()) * kScanChunk);
      take(work.state, padded_head() * padded_state());
    }
    return used;
  }

  // All of one group of one span.
  void mix(const Mamba2Span& span, int64_t group, Work& work) const {
    const int64_t inner = shape_.inner_size();
    const int64_t size = inner / shape_.n_groups;
    const int64_t state = shape_.state_size;
    convolve(span, group * size, size, work);
    convolve(span, inner + group * state, state, work);
    convolve(span, inner + (shape_.n_groups + group) * state, state, work);
    scan(span, group * heads_of_group(), heads_of_group(), work);
    for (int64_t row = span.first_row; row < span.first_row + span.n_rows; ++row) {
      norm(row, group);
    }
  }

  // Channels [first, first + n) of the convolution, in place.
  void convolve(const Mamba2Span& span, int64_t first, int64_t n, Work& work) const {
    for (int64_t c = first; c < first + n; c += kChannels) {
      ConvolveTask task;
      task.row_stride = shape_.projected_size();
      task.rows = projected_ + span.first_row * task.row_stride + shape_.inner_size() + c;
      task.n_rows = span.n_rows;
      task.n = std::min(kChannels, first + n - c);
      task.n_taps = shape_.conv_kernel;
      task.state = span.conv + c;
      task.state_stride = shape_.conv_size();
      task.weight = weights_.conv_weight + c * task.n_taps;
      task.bias = weights_.conv_bias == nullptr ? nullptr : weights_.conv_bias + c;
      task.work = work.convolution;
      kernels_.mamba->convolve(task);
    }
  }

  // The heads [first, first + n), which are of one group, over all rows: y before the gate, into
  // `out`.
  void scan(const Mamba2Span& span, int64_t first, int64_t n, Work& work) const {
    for (int64_t begin = 0; begin < span.n_rows; begin += kScanChunk) {
      const int64_t rows = std::min(kScanChunk, span.n_rows - begin);
      const int64_t row = span.first_row + begin;
      for (int64_t r = 0; r < rows; ++r) {
        const float* dt = projected_row(row + r) + shape_.inner_size() + shape_.conv_size();
        kernels_.mamba->time_steps(dt + first, weights_.dt_bias + first, weights_.a + first,
                                   weights_.time_step_low, weights_.time_step_high, n,
                                   work.steps + r * n, work.logarithms + r * n,
                                   work.decays + r * n);
      }
      if (rows >= kLeastChunkRows) {
        scan_chunk(span, row, rows, first, n, work);
      } else {
        scan_rows(span, row, rows, first, n, work);
      }
    }
  }

  void norm(int64_t row, int64_t group) const {
    const int64_t size = shape_.inner_size() / shape_.n_groups;
    const int64_t first = group * size;
    kernels_.mamba->gated_norm(projected_row(row) + first, weights_.norm_weight + first,
                               weights_.norm_eps, size, out_ + row * shape_.inner_size() + first);
  }

 private:
  // What the tiles of matrix products take.
  [[nodiscard]] int64_t padded_state() const { return round_up(shape_.state_size, kDotPadding); }
  [[nodiscard]] int64_t padded_head() const { return round_up(shape_.head_dim, 16); }

  [[nodiscard]] float* projected_row(int64_t row) const {
    return projected_ + row * shape_.projected_size();
  }

  [[nodiscard]] const float* x_of(int64_t row, int64_t head) const {
    return projected_row(row) + shape_.inner_size() + head * shape_.head_dim;
  }

  // C stands n_groups * state_size floats behind B.
  [[nodiscard]] const float* b_of(int64_t row, int64_t head) const {
    return projected_row(row) + 2 * shape_.inner_size() +
           head / heads_of_group() * shape_.state_size;
  }

  [[nodiscard]] float* state_of(const Mamba2Span& span, int64_t head) const {
    return span.ssm + head * shape_.head_dim * shape_.state_size;
  }

  [[nodiscard]] float* y_of(int64_t row, int64_t head) const {
    return out_ + row * shape_.inner_size() + head * shape_.head_dim;
  }

  // Head after head, so that a head's state stays in the L1 cache.
  void scan_rows(const Mamba2Span& span, int64_t row, int64_t rows, int64_t first, int64_t n,
                 const Work& work) const {
    for (int64_t h = 0; h < n; ++h) {
      for (int64_t r = 0; r < rows; ++r) {
        ScanStep step;
        step.state = state_of(span, first + h);
        step.x = x_of(row + r, first + h);
        step.b = b_of(row + r, first + h);
        step.c = step.b + shape_.n_groups * shape_.state_size;
        step.step = work.steps[r * n + h];
        step.decay = work.decays[r * n + h];
        step.d = weights_.d[first + h];
        step.head_dim = shape_.head_dim;
        step.state_size = shape_.state_size;
        step.y = y_of(row + r, first + h);
        kernels_.mamba->scan_step(step);
      }
    }
  }

  // out[r, i] = from[r, i] in rows of `size` padded to `padded`, with zeros around.
  static void pack(const float* from, int64_t stride, int64_t rows, int64_t size,
                   int64_t padded_rows, int64_t padded, float* out) {
    for (int64_t r = 0; r < padded_rows; ++r, out += padded) {
      const int64_t n = r < rows ? size : 0;
      std::copy_n(from + (r < rows ? r * stride : 0), n, out);
      std::fill(out + n, out + padded, 0.0F);
    }
  }

  void scan_chunk(const Mamba2Span& span, int64_t row, int64_t rows, int64_t first, int64_t n,
                  const Work& work) const {
    const int64_t padded_rows = round_up(rows, 4);
    const int64_t size = padded_state();
    const float* b = b_of(row, first);
    const float* c = b + shape_.n_groups * shape_.state_size;
    pack(b, shape_.projected_size(), rows, shape_.state_size, padded_rows, size, work.b);
    pack(c, shape_.projected_size(), rows, shape_.state_size, padded_rows, size, work.c);
    // Products of B with later C alone.
    for (int64_t j = 0; j < padded_rows; j += kMaxGemmOutputs) {
      DotOutput output;
      output.out = work.products + j * kScanChunk + j;
      output.stride = kScanChunk;
      kernels_.linear->gemm(work.b + j * size, std::min(kMaxGemmOutputs, padded_rows - j),
                            work.c + j * size, padded_rows - j, size, output);
    }
    for (int64_t h = 0; h < n; ++h) {
      sum_logarithms(work.logarithms + h, n, rows, work);
      scan_head(span, row, rows, first + h, work.steps + h, n, work);
    }
  }

  // Sums in two floats, so that a difference of two large sums keeps its digits. Padding has the
  // last sum: no decay.
  static void sum_logarithms(const float* logarithms, int64_t stride, int64_t rows,
                             const Work& work) {
    double sum = 0;
    for (int64_t r = 0; r < kScanChunk; ++r) {
      if (r < rows) {
        const float logarithm = logarithms[r * stride];
        sum += double{logarithm < kLeastLogarithm ? kLeastLogarithm : logarithm};
      }
      work.high[r] = static_cast<float>(sum);
      work.low[r] = static_cast<float>(sum - double{work.high[r]});
    }
  }

  // One head of a chunk. steps: [rows], `stride` apart.
  void scan_head(const Mamba2Span& span, int64_t row, int64_t rows, int64_t head,
                 const float* steps, int64_t stride, const Work& work) const {
    const int64_t dim = padded_head();
    const int64_t size = padded_state();
    const int64_t padded_rows = round_up(rows, 4);
    pack(x_of(row, head), shape_.projected_size(), rows, shape_.head_dim, padded_rows, dim, work.x);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t p = 0; p < dim; ++p) {
        work.x[r * dim + p] *= steps[r * stride];
      }
    }
    float* own_state = state_of(span, head);
    const bool is_in_place = dim == shape_.head_dim && size == shape_.state_size;
    float* state = is_in_place ? own_state : work.state;
    if (!is_in_place) {
      pack(own_state, shape_.state_size, shape_.head_dim, shape_.state_size, dim, size, state);
    }
    for (int64_t p = 0; p < dim; p += kMaxGemmOutputs) {
      DotOutput output;
      output.out = work.y + p;
      output.stride = dim;
      kernels_.linear->gemm(state + p * size, std::min(kMaxGemmOutputs, dim - p), work.c,
                            padded_rows, size, output);
    }
    ScanChunk chunk;
    chunk.n_rows = padded_rows;
    chunk.head_dim = dim;
    chunk.state_size = size;
    chunk.b = work.b;
    chunk.products = work.products;
    chunk.x = work.x;
    chunk.high = work.high;
    chunk.low = work.low;
    chunk.state = state;
    chunk.y = work.y;
    chunk.work = work.chunk;
    kernels_.mamba->scan_chunk(chunk);
    if (!is_in_place) {
      for (int64_t p = 0; p < shape_.head_dim; ++p) {
        std::copy_n(state + p * size, shape_.state_size, own_state + p * shape_.state_size);
      }
    }
    const float d = weights_.d[head];
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = x_of(row + r, head);
      float* y = y_of(row + r, head);
      for (int64_t p = 0; p < shape_.head_dim; ++p) {
        y[p] = work.y[r * dim + p] + d * x[p];
      }
    }
  }

  const CpuKernels& kernels_;
  const Mamba2Weights& weights_;
  const Mamba2Shape& shape_;
  float* projected_;
  float* out_;
  bool has_chunks_;
};

// Every phase shared out by itself, for calls of so few groups and spans that threads would idle.
void mix_in_phases(ThreadPool& threads, const Mixer& mixer, const Mamba2Shape& shape,
                   std::span<const Mamba2Span> spans, std::vector<Work>& works) {
  const auto n_spans = static_cast<int64_t>(spans.size());
  const int64_t n_pieces = divide_up(shape.conv_size(), kChannels);
  threads.parallel_for(n_spans * n_pieces, [&](int64_t index, int thread) {
    const int64_t first = index % n_pieces * kChannels;
    mixer.convolve(spans[static_cast<size_t>(index / n_pieces)], first,
                   std::min(kChannels, shape.conv_size() - first),
                   works[static_cast<size_t>(thread)]);
  });
  const int64_t group = mixer.heads_of_group();
  const int64_t wanted = divide_up(n_spans * shape.n_heads, int64_t{4} * threads.n_threads());
  const int64_t n_heads = std::min(group, wanted);
  const int64_t cuts = divide_up(group, n_heads);
  const int64_t cuts_of_span = cuts * shape.n_groups;
  threads.parallel_for(n_spans * cuts_of_span, [&](int64_t index, int thread) {
    const int64_t cut = index % cuts_of_span;
    const int64_t in_group = cut % cuts * n_heads;
    mixer.scan(spans[static_cast<size_t>(index / cuts_of_span)], cut / cuts * group + in_group,
               std::min(n_heads, group - in_group), works[static_cast<size_t>(thread)]);
  });
  for (const Mamba2Span& span : spans) {
    threads.parallel_for(span.n_rows * shape.n_groups, [&](int64_t index, int /*thread*/) {
      mixer.norm(span.first_row + index / shape.n_groups, index % shape.n_groups);
    });
  }
}

}  // namespace

void cpu_mamba2(ThreadPool& threads, const CpuKernels& kernels, const Mamba2Weights& weights,
                const Mamba2Shape& shape, std::span<const Mamba2Span> spans, float* projected,
                float* out) {
  int64_t rows = 0;
  int64_t longest = 0;
  for (const Mamba2Span& span : spans) {
    rows += span.n_rows;
    longest = std::max(longest, span.n_rows);
  }
  const Mixer mixer(kernels, weights, shape, projected, out, longest >= kLeastChunkRows);
  std::vector<Work> works(static_cast<size_t>(threads.n_threads()));
  const Scratch scratch(threads.n_threads(), mixer.lay_out(nullptr, works[0]));
  for (size_t i = 0; i < works.size(); ++i) {
    mixer.lay_out(scratch.piece(static_cast<int64_t>(i)), works[i]);
  }
  const int64_t n_groups = shape.n_groups;
  const int64_t n_tasks = static_cast<int64_t>(spans.size()) * n_groups;
  const auto mix = [&](int64_t index, int thread) {
    mixer.mix(spans[static_cast<size_t>(index / n_groups)], index % n_groups,
              works[static_cast<size_t>(thread)]);
  };
  if (rows * shape.inner_size() * shape.state_size < kParallelUpdates) {
    for (int64_t index = 0; index < n_tasks; ++index) {
      mix(index, 0);
    }
  } else if (n_tasks >= 2 * threads.n_threads()) {
    threads.parallel_for(n_tasks, mix);
  } else {
    mix_in_phases(threads, mixer, shape, spans, works);
  }
}

}  // namespace logitlab
