#include "backend/reference/mamba2.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace logitlab {
namespace {

double silu(double x) {
  return x / (1 + std::exp(-x));
}

// ln(1 + e^x) without overflow; past 20 it is x to the last bit of a float.
double softplus(double x) {
  return x > 20 ? x : std::log1p(std::exp(x));
}

// Convolves one token's x | B | C and moves it into the state. input, out: [conv_size].
void convolve(const Mamba2Weights& weights, const Mamba2Shape& shape, const float* input,
              float* state, double* out) {
  const int64_t taps = shape.conv_kernel;
  const int64_t n = shape.conv_size();
  for (int64_t c = 0; c < n; ++c) {
    const float* tap = weights.conv_weight + c * taps;
    double sum = weights.conv_bias != nullptr ? double{weights.conv_bias[c]} : 0;
    for (int64_t k = 0; k + 1 < taps; ++k) {
      sum += double{tap[k]} * double{state[k * n + c]};
    }
    out[c] = silu(sum + double{tap[taps - 1]} * double{input[c]});
  }
  if (taps > 1) {
    std::copy(state + n, state + (taps - 1) * n, state);
    std::copy(input, input + n, state + (taps - 2) * n);
  }
}

// One head's state and output for one token. x, y: [head_dim]; b, c: [state_size].
void scan(double step, double a, double d, const Mamba2Shape& shape, const double* x,
          const double* b, const double* c, float* state, double* y) {
  const double decay = std::exp(step * a);
  for (int64_t p = 0; p < shape.head_dim; ++p) {
    float* row = state + p * shape.state_size;
    double sum = d * x[p];
    for (int64_t n = 0; n < shape.state_size; ++n) {
      row[n] = static_cast<float>(decay * double{row[n]} + step * x[p] * b[n]);
      sum += double{row[n]} * c[n];
    }
    y[p] = sum;
  }
}

// The gate, then the norm of each group. y: [inner_size], changed.
void gated_norm(const Mamba2Weights& weights, const Mamba2Shape& shape, const float* z, double* y,
                float* out) {
  const int64_t size = shape.inner_size() / shape.n_groups;
  for (int64_t first = 0; first < shape.inner_size(); first += size) {
    double sum = 0;
    for (int64_t i = first; i < first + size; ++i) {
      y[i] *= silu(double{z[i]});
      sum += y[i] * y[i];
    }
    const double scale = 1 / std::sqrt(sum / static_cast<double>(size) + double{weights.norm_eps});
    for (int64_t i = first; i < first + size; ++i) {
      out[i] = static_cast<float>(double{weights.norm_weight[i]} * (y[i] * scale));
    }
  }
}

void run_span(const Mamba2Weights& weights, const Mamba2Shape& shape, const Mamba2Span& span,
              const float* projected, float* out) {
  const int64_t inner = shape.inner_size();
  const int64_t group = shape.n_heads / shape.n_groups;
  std::vector<double> v(static_cast<size_t>(shape.conv_size()));
  std::vector<double> y(static_cast<size_t>(inner));
  for (int64_t row = span.first_row; row < span.first_row + span.n_rows; ++row) {
    const float* z = projected + row * shape.projected_size();
    const float* dt = z + inner + shape.conv_size();
    convolve(weights, shape, z + inner, span.conv, v.data());
    const double* b = v.data() + inner;
    const double* c = b + shape.n_groups * shape.state_size;
    for (int64_t h = 0; h < shape.n_heads; ++h) {
      const double step = std::clamp(softplus(double{dt[h]} + double{weights.dt_bias[h]}),
                                     double{weights.time_step_low}, double{weights.time_step_high});
      const int64_t in_group = h / group * shape.state_size;
      scan(step, double{weights.a[h]}, double{weights.d[h]}, shape, v.data() + h * shape.head_dim,
           b + in_group, c + in_group, span.ssm + h * shape.head_dim * shape.state_size,
           y.data() + h * shape.head_dim);
    }
    gated_norm(weights, shape, z, y.data(), out + row * inner);
  }
}

}  // namespace

void reference_mamba2(ExecContext& context, const Mamba2Weights& weights, const Mamba2Shape& shape,
                      std::span<const Mamba2Span> spans, const float* projected, float* out) {
  context.threads.parallel_for(static_cast<int64_t>(spans.size()), [&](int64_t i, int /*thread*/) {
    run_span(weights, shape, spans[static_cast<size_t>(i)], projected, out);
  });
}

}  // namespace logitlab
