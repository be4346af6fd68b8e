// Splits the ops into tasks over outputs and calls the kernels of one instruction set.
#include <algorithm>
#include <utility>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear_tasks.h"
#include "backend/cpu/mamba2.h"
#include "backend/cpu/scratch.h"
#include "base/check.h"
#include "tensor/dtype.h"

namespace logitlab {
namespace {

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
    const bool fits = k % kDotPadding == 0;
    const Scratch padded(1, fits ? 0 : rows * round_up(k, kDotPadding));
    if (!fits) {
      pad_rows(x, rows, k, padded.piece(0));
      x = padded.piece(0);
    }
    std::vector<Product> products;
    products.reserve(parts.size());
    for (const LinearPart& part : parts) {
      products.push_back({part.weight, part.bias, x, rows, part.out, part.accumulate});
    }
    multiply(context, std::move(products));
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
    int64_t n_floats = 0;
    for (const GroupedPart& part : parts) {
      const int64_t k = part.weight.columns();
      n_floats += k % kDotPadding == 0 ? 0 : part.rows * round_up(k, kDotPadding);
    }
    const Scratch padded(1, n_floats);
    std::vector<Product> products;
    products.reserve(parts.size());
    float* space = padded.piece(0);
    for (const GroupedPart& part : parts) {
      if (part.rows == 0) {
        continue;
      }
      const int64_t k = part.weight.columns();
      const float* x = part.x;
      if (k % kDotPadding != 0) {
        x = space;
        space = pad_rows(part.x, part.rows, k, space);
      }
      products.push_back({part.weight, part.bias, x, part.rows, part.out, false});
    }
    multiply(context, std::move(products));
  }

  void activate(ExecContext& context, Activation activation, float* x, int64_t n) const override {
    const auto kernel =
        activation == Activation::kRelu2 ? kernels_.step->relu2 : kernels_.step->silu;
    for_each_piece(context, n, [&](int64_t begin, int64_t count) { kernel(x + begin, count); });
  }

  void mamba2(ExecContext& context, const Mamba2Weights& weights, const Mamba2Shape& shape,
              std::span<const Mamba2Span> spans, float* projected, float* out) const override {
    cpu_mamba2(context.threads, kernels_, weights, shape, spans, projected, out);
  }

  void silu_mul(ExecContext& context, const float* gate, const float* up, int64_t n,
                float* out) const override {
    for_each_piece(context, n, [&](int64_t begin, int64_t count) {
      kernels_.step->silu_mul(gate + begin, up + begin, count, out + begin);
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

  // piece(begin, count) for n values, shared out when there is enough of them. Pieces of a multiple
  // of 16: where a piece ends does not matter to a value.
  template <class Piece>
  static void for_each_piece(ExecContext& context, int64_t n, const Piece& piece) {
    constexpr int64_t kPiece = 4 << 10;
    if (n < kParallelFloats) {
      piece(0, n);
      return;
    }
    context.threads.parallel_for(divide_up(n, kPiece), [&](int64_t index, int /*thread*/) {
      piece(index * kPiece, std::min(kPiece, n - index * kPiece));
    });
  }

  // Copies rows of k floats, each with zeros behind it up to kDotPadding; returns the end.
  static float* pad_rows(const float* x, int64_t rows, int64_t k, float* to) {
    const int64_t k_padded = round_up(k, kDotPadding);
    for (int64_t r = 0; r < rows; ++r, to += k_padded) {
      std::copy_n(x + r * k, k, to);
      std::fill(to + k, to + k_padded, 0.0F);
    }
    return to;
  }

  void multiply(ExecContext& context, std::vector<Product> products) const {
    const int n_threads = context.threads.n_threads();
    const LinearTasks tasks(std::move(products), n_threads);
    const int64_t k = tasks.decoded_inputs();
    const Scratch decoded(k == 0 ? 0 : n_threads, kMaxGemmOutputs * k);
    context.threads.parallel_for(tasks.size(), [&](int64_t index, int thread) {
      const LinearTasks::Task task = tasks.task(index);
      if (task.product->rows == 1) {
        multiply_vector(task);
      } else {
        multiply_rows(task, decoded.piece(thread));
      }
    });
  }

  static DotOutput output_of(const LinearTasks::Task& task) {
    const Product& product = *task.product;
    DotOutput output;
    output.stride = product.weight.rows();
    output.out = product.out + task.first_row * output.stride + task.first_output;
    output.bias = product.bias == nullptr ? nullptr : product.bias + task.first_output;
    output.accumulate = product.accumulate;
    return output;
  }

  void multiply_vector(const LinearTasks::Task& task) const {
    const Tensor& weight = task.product->weight;
    const auto gemv = kernels_.linear->gemv[static_cast<size_t>(kind_of(weight.dtype))];
    gemv(bytes_of(weight.row(task.first_output)), weight.row_stride_bytes(), task.n_outputs,
         task.product->x, weight.columns(), output_of(task));
  }

  void multiply_rows(const LinearTasks::Task& task, float* decoded) const {
    const Tensor& weight = task.product->weight;
    const int64_t k_padded = round_up(weight.columns(), kDotPadding);
    const auto decode = kernels_.linear->decode[static_cast<size_t>(kind_of(weight.dtype))];
    decode(bytes_of(weight.row(task.first_output)), weight.row_stride_bytes(), task.n_outputs,
           weight.columns(), decoded);
    kernels_.linear->gemm(decoded, task.n_outputs, task.product->x + task.first_row * k_padded,
                          task.n_rows, k_padded, output_of(task));
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
