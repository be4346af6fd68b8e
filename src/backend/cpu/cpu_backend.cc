// Splits the ops into tasks over outputs and calls the kernels of one instruction set.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/reference/mamba2.h"
#include "base/check.h"
#include "tensor/dtype.h"

namespace logitlab {
namespace {

// Weights of one task of a matrix-vector product: some microseconds of memory traffic, against a
// tenth of one to hand out a task.
constexpr size_t kGemvTaskBytes = 64 << 10;
constexpr int64_t kTasksPerThread = 8;
// Rows of x below which splitting them costs more decoding of weights than it wins.
constexpr int64_t kLeastRowsOfTask = 32;
// Floats below which an elementwise op is not worth the threads.
constexpr int64_t kParallelFloats = 16 << 10;

// The kernels' index of a type of weight; is_weight_type() holds.
WeightKind kind_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return WeightKind::kF32;
    case DType::kF16:
      return WeightKind::kF16;
    case DType::kBF16:
      return WeightKind::kBF16;
    case DType::kQ4_0:
      return WeightKind::kQ4_0;
    case DType::kQ4_1:
      return WeightKind::kQ4_1;
    case DType::kQ5_0:
      return WeightKind::kQ5_0;
    case DType::kQ5_1:
      return WeightKind::kQ5_1;
    case DType::kQ8_0:
      return WeightKind::kQ8_0;
    case DType::kQ4_K:
      return WeightKind::kQ4_K;
    case DType::kQ5_K:
      return WeightKind::kQ5_K;
    case DType::kQ6_K:
      return WeightKind::kQ6_K;
    default:
      CHECK(false) << std::string(traits(dtype).name) << " is no type of weight";
      return WeightKind::kF32;
  }
}

const uint8_t* bytes_of(const std::byte* p) {
  return reinterpret_cast<const uint8_t*>(p);
}

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int64_t round_up(int64_t a, int64_t b) {
  return divide_up(a, b) * b;
}

// Work space of one call: for each of `pieces`, `floats` floats that start at a cache line.
// Uninitialised.
class Scratch {
 public:
  Scratch(int64_t pieces, int64_t floats)
      : stride_(round_up(floats, kLine)),
        memory_(std::make_unique_for_overwrite<float[]>(
            static_cast<size_t>(pieces * stride_ + kLine))) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    const uintptr_t line = kLine * sizeof(float);
    start_ = memory_.get() + (line - address % line) % line / sizeof(float);
  }

  [[nodiscard]] float* piece(int64_t index) const { return start_ + index * stride_; }

 private:
  static constexpr int64_t kLine = 16;

  int64_t stride_;
  std::unique_ptr<float[]> memory_;
  float* start_ = nullptr;
};

// The tasks of all parts of a linear call, numbered one part after the other: each is a range of
// outputs of a part (and of rows of x).
class LinearTasks {
 public:
  LinearTasks(std::span<const LinearPart> parts, int64_t rows, int n_threads) : parts_(parts) {
    size_t bytes = 0;
    int64_t n_outputs = 0;
    for (const LinearPart& part : parts) {
      bytes += part.weight.bytes();
      n_outputs += part.weight.rows();
    }
    if (rows == 1) {
      const size_t share = bytes / static_cast<size_t>(n_threads * kTasksPerThread) + 1;
      task_bytes_ = std::min(kGemvTaskBytes, share);
    } else {
      const int64_t n_tasks = divide_up(n_outputs, kMaxGemmOutputs);
      const int64_t splits =
          divide_up(n_threads * kTasksPerThread / 2, std::max<int64_t>(n_tasks, 1));
      rows_per_task_ = std::max(kLeastRowsOfTask, round_up(divide_up(rows, splits), 4));
    }
    row_tasks_ = divide_up(rows, rows_per_task_);
    rows_ = rows;
    for (const LinearPart& part : parts) {
      n_tasks_ += divide_up(part.weight.rows(), outputs_of(part)) * row_tasks_;
    }
  }

  struct Task {
    const LinearPart* part = nullptr;
    int64_t first_output = 0;
    int64_t n_outputs = 0;
    int64_t first_row = 0;
    int64_t n_rows = 0;
  };

  [[nodiscard]] int64_t size() const { return n_tasks_; }

  [[nodiscard]] Task task(int64_t index) const {
    for (const LinearPart& part : parts_) {
      const int64_t n_out = part.weight.rows();
      const int64_t step = outputs_of(part);
      const int64_t n = divide_up(n_out, step) * row_tasks_;
      if (index < n) {
        const int64_t output = index / row_tasks_ * step;
        const int64_t row = index % row_tasks_ * rows_per_task_;
        return Task{&part, output, std::min(step, n_out - output), row,
                    std::min(rows_per_task_, rows_ - row)};
      }
      index -= n;
    }
    CHECK(false) << "task past the end";
    return {};
  }

 private:
  // A multiple of 4, the number of outputs that a kernel computes at once.
  [[nodiscard]] int64_t outputs_of(const LinearPart& part) const {
    if (rows_per_task_ != 1) {
      return kMaxGemmOutputs;
    }
    const size_t row = std::max<size_t>(part.weight.row_stride_bytes(), 1);
    return round_up(static_cast<int64_t>(task_bytes_ / row) + 1, 4);
  }

  std::span<const LinearPart> parts_;
  int64_t rows_ = 0;
  size_t task_bytes_ = 0;
  int64_t rows_per_task_ = 1;
  int64_t row_tasks_ = 1;
  int64_t n_tasks_ = 0;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuKernels& kernels) : kernels_(kernels) {}

  [[nodiscard]] std::string_view name() const override { return "cpu"; }
  [[nodiscard]] std::string_view isa() const override { return kernels_.isa; }

  [[nodiscard]] bool supports(Op op, DType weight) const override {
    return op == Op::kEmbed || op == Op::kLinear ? is_weight_type(weight) : weight == DType::kF32;
  }

  void embed(ExecContext& context, const Tensor& table, std::span<const TokenId> ids,
             float* out) const override {
    const int64_t d = table.columns();
    const size_t stride = table.row_stride_bytes();
    const auto decode = kernels_.linear->decode[static_cast<size_t>(kind_of(table.dtype))];
    const auto copy_row = [&](int64_t r) {
      const uint8_t* row = bytes_of(table.row(ids[static_cast<size_t>(r)]));
      if (d % kDotPadding == 0) {
        decode(row, stride, 1, d, out + r * d);
      } else {
        row_to_float(table.dtype, row, out + r * d, d);
      }
    };
    for_each_row(context, static_cast<int64_t>(ids.size()), d, copy_row);
  }

  void linear(ExecContext& context, const float* x, int64_t rows,
              std::span<const LinearPart> parts) const override {
    if (rows == 0 || parts.empty()) {
      return;
    }
    const int64_t k = parts[0].weight.columns();
    const int64_t k_padded = round_up(k, kDotPadding);
    Scratch padded_x(k == k_padded ? 0 : rows, k_padded);
    if (k != k_padded) {
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(x + r * k, k, padded_x.piece(r));
        std::fill(padded_x.piece(r) + k, padded_x.piece(r) + k_padded, 0.0F);
      }
      x = padded_x.piece(0);
    }
    const LinearTasks tasks(parts, rows, context.threads.n_threads());
    if (rows == 1) {
      context.threads.parallel_for(tasks.size(), [&](int64_t index, int /*thread*/) {
        multiply_vector(tasks.task(index), x, k);
      });
      return;
    }
    const Scratch decoded(context.threads.n_threads(), kMaxGemmOutputs * k_padded);
    context.threads.parallel_for(tasks.size(), [&](int64_t index, int thread) {
      multiply_rows(tasks.task(index), x, k, k_padded, decoded.piece(thread));
    });
  }

  void rms_norm(ExecContext& context, const float* x, const float* weight, float eps, int64_t rows,
                int64_t d, float* out) const override {
    for_each_row(context, rows, d, [&](int64_t r) {
      kernels_.step->rms_norm(x + r * d, weight, eps, d, out + r * d);
    });
  }

  void rope(ExecContext& context, float* x, const float* cosine, const float* sine, int64_t rows,
            int64_t n_heads, int64_t head_dim, int64_t rotary_dim,
            RopeLayout layout) const override {
    const auto rotate = layout == RopeLayout::kInterleaved ? kernels_.step->rope_interleaved
                                                           : kernels_.step->rope_half_split;
    const int64_t width = n_heads * head_dim;
    const int64_t half = rotary_dim / 2;
    for_each_row(context, rows, width, [&](int64_t r) {
      rotate(x + r * width, cosine + r * half, sine + r * half, n_heads, head_dim, rotary_dim);
    });
  }

  void attention(ExecContext& context, const float* q, std::span<const AttentionRow> rows,
                 const AttentionShape& shape, float* out) const override {
    int64_t longest = 0;
    for (const AttentionRow& row : rows) {
      DCHECK(row.first >= 0 && row.first <= row.last);
      longest = std::max(longest, row.last - row.first + 1);
    }
    const int64_t n_rows = static_cast<int64_t>(rows.size());
    const int n_threads = context.threads.n_threads();
    const int64_t group = shape.n_heads / shape.n_kv_heads;
    // Heads that share keys and values are faster together: apart they are half as fast, so they
    // are parted only where threads would have nothing to do.
    const bool split_groups = n_rows * shape.n_kv_heads < n_threads;
    const int64_t heads = split_groups ? 1 : group;
    const int64_t score_stride = round_up(longest, kScorePadding);
    const Scratch scores(n_threads, heads * score_stride);
    const int64_t tasks_per_row = shape.n_heads / heads;
    context.threads.parallel_for(n_rows * tasks_per_row, [&](int64_t index, int thread) {
      // The last rows see most: they go first, so that no thread ends with the longest task.
      const int64_t r = n_rows - 1 - index / tasks_per_row;
      const int64_t head = index % tasks_per_row * heads;
      const AttentionRow& row = rows[static_cast<size_t>(r)];
      const int64_t offset = (r * shape.n_heads + head) * shape.head_dim;
      AttendTask task;
      task.q = q + offset;
      task.out = out + offset;
      task.n_heads = heads;
      task.head_dim = shape.head_dim;
      task.key_pages = row.kv->key_pages;
      task.value_pages = row.kv->value_pages;
      task.page_positions = row.kv->page_positions;
      task.page_offset = head / group * row.kv->page_positions * shape.head_dim;
      task.first = row.first;
      task.last = row.last;
      task.scale = shape.scale;
      task.scores = scores.piece(thread);
      task.score_stride = score_stride;
      kernels_.step->attend(task);
    });
  }

  void grouped_linear(ExecContext& context, std::span<const GroupedPart> parts) const override {
    for (const GroupedPart& part : parts) {
      const LinearPart single = {part.weight, part.bias, part.out, /*accumulate=*/false};
      linear(context, part.x, part.rows, {&single, 1});
    }
  }

  void activate(ExecContext& /*context*/, Activation activation, float* x,
                int64_t n) const override {
    for (int64_t i = 0; i < n; ++i) {
      const float positive = std::max(x[i], 0.0F);
      x[i] = activation == Activation::kRelu2 ? positive * positive : x[i] / (1 + std::exp(-x[i]));
    }
  }

  void mamba2(ExecContext& context, const Mamba2Weights& weights, const Mamba2Shape& shape,
              std::span<const Mamba2Span> spans, float* projected, float* out) const override {
    reference_mamba2(context, weights, shape, spans, projected, out);
  }

  void silu_mul(ExecContext& context, const float* gate, const float* up, int64_t n,
                float* out) const override {
    // Pieces of a multiple of 16: where a piece ends does not matter to a value.
    constexpr int64_t kPiece = 4 << 10;
    if (n < kParallelFloats) {
      kernels_.step->silu_mul(gate, up, n, out);
      return;
    }
    context.threads.parallel_for(divide_up(n, kPiece), [&](int64_t index, int /*thread*/) {
      const int64_t begin = index * kPiece;
      kernels_.step->silu_mul(gate + begin, up + begin, std::min(kPiece, n - begin), out + begin);
    });
  }

 private:
  // row(r) for every r; rows of d floats are shared out when there is enough of them.
  template <class Row>
  static void for_each_row(ExecContext& context, int64_t rows, int64_t d, const Row& row) {
    if (rows * d < kParallelFloats) {
      for (int64_t r = 0; r < rows; ++r) {
        row(r);
      }
      return;
    }
    const int64_t step = std::max<int64_t>(1, kParallelFloats / 4 / std::max<int64_t>(d, 1));
    context.threads.parallel_for(divide_up(rows, step), [&](int64_t index, int /*thread*/) {
      const int64_t end = std::min(rows, (index + 1) * step);
      for (int64_t r = index * step; r < end; ++r) {
        row(r);
      }
    });
  }

  static DotOutput output_of(const LinearTasks::Task& task) {
    const LinearPart& part = *task.part;
    DotOutput output;
    output.stride = part.weight.rows();
    output.out = part.out + task.first_row * output.stride + task.first_output;
    output.bias = part.bias == nullptr ? nullptr : part.bias + task.first_output;
    output.accumulate = part.accumulate;
    return output;
  }

  void multiply_vector(const LinearTasks::Task& task, const float* x, int64_t k) const {
    const Tensor& weight = task.part->weight;
    const auto gemv = kernels_.linear->gemv[static_cast<size_t>(kind_of(weight.dtype))];
    gemv(bytes_of(weight.row(task.first_output)), weight.row_stride_bytes(), task.n_outputs, x, k,
         output_of(task));
  }

  void multiply_rows(const LinearTasks::Task& task, const float* x, int64_t k, int64_t k_padded,
                     float* decoded) const {
    const Tensor& weight = task.part->weight;
    const auto decode = kernels_.linear->decode[static_cast<size_t>(kind_of(weight.dtype))];
    decode(bytes_of(weight.row(task.first_output)), weight.row_stride_bytes(), task.n_outputs, k,
           decoded);
    kernels_.linear->gemm(decoded, task.n_outputs, x + task.first_row * k_padded, task.n_rows,
                          k_padded, output_of(task));
  }

  CpuKernels kernels_;
};

}  // namespace

std::vector<std::string> cpu_isas() {
  std::vector<std::string> names;
  CpuKernels kernels;
  for (int i = 0; cpu_kernels_at(i, kernels); ++i) {
    names.emplace_back(kernels.isa);
  }
  return names;
}

Result<std::unique_ptr<Backend>> make_cpu_backend(std::string_view isa) {
  CpuKernels kernels;
  for (int i = 0; cpu_kernels_at(i, kernels); ++i) {
    if (isa.empty() || isa == kernels.isa) {
      return std::make_unique<CpuBackend>(kernels);
    }
  }
  if (cpu_isas().empty()) {
    return fail(ErrorCode::kUnavailable,
                "device cpu: this CPU has none of SSE4, AVX2, AVX3 and NEON; use device reference");
  }
  return fail(ErrorCode::kInvalidArgument,
              "instruction set \"{}\": not in this build or not of this CPU, want one of {}", isa,
              fmt::join(cpu_isas(), ", "));
}

}  // namespace logitlab
