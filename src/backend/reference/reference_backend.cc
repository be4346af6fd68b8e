// Every op written the plain way, in double, so that the SIMD backends have something to be
// compared with. Threads only split outputs.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/backend.h"
#include "backend/reference/mamba2.h"
#include "base/check.h"
#include "tensor/dtype.h"

namespace logitlab {
namespace {

class ReferenceBackend final : public Backend {
 public:
  [[nodiscard]] std::string_view name() const override { return "reference"; }
  [[nodiscard]] std::string_view isa() const override { return "scalar"; }

  [[nodiscard]] bool supports(Op op, DType weight) const override {
    return op == Op::kEmbed || op == Op::kLinear ? is_weight_type(weight) : weight == DType::kF32;
  }

  void embed(ExecContext& /*context*/, const Tensor& table, std::span<const TokenId> ids,
             float* out) const override {
    const int64_t d = table.columns();
    for (size_t r = 0; r < ids.size(); ++r) {
      row_to_float(table.dtype, table.row(ids[r]), out + static_cast<int64_t>(r) * d, d);
    }
  }

  void linear(ExecContext& context, const float* x, int64_t rows,
              std::span<const LinearPart> parts) const override {
    for (const LinearPart& part : parts) {
      const int64_t n_out = part.weight.rows();
      context.threads.parallel_for(
          n_out, [&](int64_t o, int /*thread*/) { linear_output(x, rows, part, n_out, o); });
    }
  }

  void rms_norm(ExecContext& /*context*/, const float* x, const float* weight, float eps,
                int64_t rows, int64_t d, float* out) const override {
    for (int64_t r = 0; r < rows; ++r, x += d, out += d) {
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) {
        sum += double{x[i]} * double{x[i]};
      }
      const double scale = 1 / std::sqrt(sum / static_cast<double>(d) + double{eps});
      for (int64_t i = 0; i < d; ++i) {
        out[i] = static_cast<float>(double{weight[i]} * (double{x[i]} * scale));
      }
    }
  }

  void rope(ExecContext& /*context*/, float* x, const float* cosine, const float* sine,
            int64_t rows, int64_t n_heads, int64_t head_dim, int64_t rotary_dim,
            RopeLayout layout) const override {
    const int64_t half = rotary_dim / 2;
    const bool interleaved = layout == RopeLayout::kInterleaved;
    for (int64_t r = 0; r < rows; ++r, cosine += half, sine += half) {
      for (int64_t h = 0; h < n_heads; ++h, x += head_dim) {
        for (int64_t i = 0; i < half; ++i) {
          float& first = x[interleaved ? 2 * i : i];
          float& second = x[interleaved ? 2 * i + 1 : i + half];
          const float a = first;
          const float b = second;
          first = a * cosine[i] - b * sine[i];
          second = b * cosine[i] + a * sine[i];
        }
      }
    }
  }

  void attention(ExecContext& context, const float* q, std::span<const AttentionRow> rows,
                 const AttentionShape& shape, float* out) const override {
    const int64_t n_tasks = static_cast<int64_t>(rows.size()) * shape.n_heads;
    context.threads.parallel_for(n_tasks, [&](int64_t task, int /*thread*/) {
      const AttentionRow& row = rows[static_cast<size_t>(task / shape.n_heads)];
      const int64_t offset = task * shape.head_dim;
      attend(q + offset, row, shape, task % shape.n_heads, out + offset);
    });
  }

  void silu_mul(ExecContext& /*context*/, const float* gate, const float* up, int64_t n,
                float* out) const override {
    for (int64_t i = 0; i < n; ++i) {
      const double g = gate[i];
      out[i] = static_cast<float>(g / (1 + std::exp(-g)) * double{up[i]});
    }
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
      const double value = x[i];
      const double positive = std::max(value, 0.0);
      x[i] = static_cast<float>(activation == Activation::kRelu2 ? positive * positive
                                                                 : value / (1 + std::exp(-value)));
    }
  }

  void mamba2(ExecContext& context, const Mamba2Weights& weights, const Mamba2Shape& shape,
              std::span<const Mamba2Span> spans, float* projected, float* out) const override {
    reference_mamba2(context, weights, shape, spans, projected, out);
  }

 private:
  static void linear_output(const float* x, int64_t rows, const LinearPart& part, int64_t n_out,
                            int64_t o) {
    const int64_t n_in = part.weight.columns();
    std::vector<float> weight(static_cast<size_t>(n_in));
    row_to_float(part.weight.dtype, part.weight.row(o), weight.data(), n_in);
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x + r * n_in;
      double sum = 0;
      for (int64_t i = 0; i < n_in; ++i) {
        sum += double{row[i]} * double{weight[static_cast<size_t>(i)]};
      }
      float& result = part.out[r * n_out + o];
      sum += part.bias != nullptr ? double{part.bias[o]} : 0;
      sum += part.accumulate ? double{result} : 0;
      result = static_cast<float>(sum);
    }
  }

  // One query head of one row. q, out: [head_dim].
  static void attend(const float* q, const AttentionRow& row, const AttentionShape& shape,
                     int64_t head, float* out) {
    const int64_t d = shape.head_dim;
    const int64_t kv_head = head / (shape.n_heads / shape.n_kv_heads);
    const int64_t page = row.kv->page_positions;
    const auto vector_at = [&](const float* const* pages, int64_t position) {
      return pages[position / page] + (kv_head * page + position % page) * d;
    };
    DCHECK(row.first >= 0 && row.first <= row.last);
    std::vector<double> scores(static_cast<size_t>(row.last - row.first + 1));
    double largest = -std::numeric_limits<double>::infinity();
    for (int64_t p = row.first; p <= row.last; ++p) {
      const float* key = vector_at(row.kv->key_pages, p);
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) {
        sum += double{q[i]} * double{key[i]};
      }
      sum *= double{shape.scale};
      scores[static_cast<size_t>(p - row.first)] = sum;
      largest = std::max(largest, sum);
    }
    double total = 0;
    for (double& score : scores) {
      score = std::exp(score - largest);
      total += score;
    }
    std::vector<double> sums(static_cast<size_t>(d));
    for (int64_t p = row.first; p <= row.last; ++p) {
      const float* value = vector_at(row.kv->value_pages, p);
      const double weight = scores[static_cast<size_t>(p - row.first)];
      for (int64_t i = 0; i < d; ++i) {
        sums[static_cast<size_t>(i)] += weight * double{value[i]};
      }
    }
    for (int64_t i = 0; i < d; ++i) {
      out[i] = static_cast<float>(sums[static_cast<size_t>(i)] / total);
    }
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() {
  return std::make_unique<ReferenceBackend>();
}

}  // namespace logitlab
