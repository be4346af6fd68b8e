// grouped_linear, activate and mamba2 of every instruction set: against the reference and against
// bounds that are computed beside an exact result, and the promises of backend.h about equal bits.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "backend/backend.h"
#include "backend/testing.h"
#include "tensor/dtype.h"

namespace logitlab {
namespace {

constexpr double kUnit = 0x1p-24;  // one rounding, relative

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b,
                      const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(bits_of(a[i]), bits_of(b[i]))
        << what << ", element " << i << ": " << a[i] << ", " << b[i];
  }
}

class HybridOps : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = std::move(make_cpu_backend(GetParam())).value();
    ASSERT_EQ(backend_->isa(), GetParam());
  }

  using Call = std::function<void(ExecContext&)>;
  static void run(const Backend& backend, int n_threads, const Call& call) {
    ThreadPool threads(n_threads);
    ExecContext context{backend, threads};
    call(context);
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> reference_ = make_reference_backend();
};

struct GroupCase {
  int64_t rows;
  int64_t in_blocks;  // inputs: blocks of the type, or 33 for each where a block is one element
  int64_t out;
};

TEST_P(HybridOps, GroupedLinearHasTheBitsOfLinear) {
  const std::vector<std::vector<GroupCase>> calls = {
      {{1, 3, 67}, {1, 3, 67}, {1, 3, 67}},                        // experts of one token
      {{1, 1, 1}, {0, 2, 5}, {1, 5, 130}, {2, 3, 33}, {0, 1, 7}},  // of a small batch
      {{40, 2, 40}, {3, 2, 40}, {1, 2, 40}, {0, 2, 40}, {170, 2, 40}},
      {{0, 2, 9}},
      {}};
  uint32_t seed = 1;
  for (const DType dtype : kWeightTypes) {
    const int64_t block = traits(dtype).block_elements == 1 ? 33 : traits(dtype).block_elements;
    for (const std::vector<GroupCase>& call : calls) {
      std::vector<RandomWeight> weights;
      std::vector<std::vector<float>> inputs;
      std::vector<std::vector<float>> biases;
      std::vector<std::vector<float>> wanted;
      for (const GroupCase& part : call) {
        weights.emplace_back(dtype, part.out, part.in_blocks * block, ++seed);
        inputs.push_back(random_floats(part.rows * part.in_blocks * block, ++seed));
        biases.push_back(random_floats(part.out, ++seed));
        std::vector<float>& out = wanted.emplace_back(static_cast<size_t>(part.rows * part.out));
        const LinearPart single = {weights.back().tensor(), biases.back().data(), out.data(),
                                   false};
        run(*backend_, 1, [&](ExecContext& context) {
          context.backend.linear(context, inputs.back().data(), part.rows, {&single, 1});
        });
      }
      for (const int n_threads : {1, 2, 3}) {
        std::vector<std::vector<float>> found;
        std::vector<GroupedPart> parts;
        for (size_t i = 0; i < call.size(); ++i) {
          found.emplace_back(wanted[i].size(), NAN);
          parts.push_back({weights[i].tensor(), biases[i].data(), inputs[i].data(), call[i].rows,
                           found.back().data()});
        }
        run(*backend_, n_threads,
            [&](ExecContext& context) { context.backend.grouped_linear(context, parts); });
        for (size_t i = 0; i < call.size(); ++i) {
          expect_same_bits(found[i], wanted[i], fmt::format("{} part {}", name(dtype), i));
        }
      }
    }
  }
}

// Types and widths may differ from part to part.
TEST_P(HybridOps, GroupedLinearOfMixedTypes) {
  const RandomWeight a(DType::kQ4_K, 19, 512, 1);
  const RandomWeight b(DType::kBF16, 70, 47, 2);
  const std::vector<float> x_a = random_floats(512, 3);
  const std::vector<float> x_b = random_floats(5 * 47, 4);
  const auto call = [&](const Backend& backend, bool grouped) {
    std::vector<float> out(19 + 5 * 70);
    run(backend, 2, [&](ExecContext& context) {
      if (grouped) {
        const GroupedPart parts[] = {{a.tensor(), nullptr, x_a.data(), 1, out.data()},
                                     {b.tensor(), nullptr, x_b.data(), 5, out.data() + 19}};
        backend.grouped_linear(context, parts);
      } else {
        const LinearPart first = {a.tensor(), nullptr, out.data(), false};
        const LinearPart second = {b.tensor(), nullptr, out.data() + 19, false};
        backend.linear(context, x_a.data(), 1, {&first, 1});
        backend.linear(context, x_b.data(), 5, {&second, 1});
      }
    });
    return out;
  };
  expect_same_bits(call(*backend_, true), call(*backend_, false), "cpu");
  expect_same_bits(call(*reference_, true), call(*reference_, false), "reference");
}

TEST_P(HybridOps, ActivateIsWithinTheBound) {
  std::vector<float> values = random_floats(40000, 1);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] *= i % 2 == 0 ? 8.0F : 86.0F;
  }
  for (const Activation activation : {Activation::kRelu2, Activation::kSilu}) {
    for (const size_t n : {size_t{0}, size_t{1}, size_t{15}, size_t{17}, size_t{40000}}) {
      const std::vector<float> x(values.begin(), values.begin() + static_cast<int64_t>(n));
      const auto activate = [&](const Backend& backend, int n_threads) {
        std::vector<float> out = x;
        run(backend, n_threads, [&](ExecContext& context) {
          context.backend.activate(context, activation, out.data(), static_cast<int64_t>(n));
        });
        return out;
      };
      const std::vector<float> found = activate(*backend_, 1);
      const std::vector<float> wanted = activate(*reference_, 1);
      if (activation == Activation::kRelu2) {
        expect_same_bits(found, wanted, "relu2");
      }
      for (size_t i = 0; i < n; ++i) {
        // exp 6, 1 + e, the division, the product, the reference; subnormals have fewer digits.
        ASSERT_NEAR(found[i], wanted[i], 10 * kUnit * std::fabs(wanted[i]) + 0x1p-140) << x[i];
      }
      expect_same_bits(activate(*backend_, 3), found, "threads");
    }
  }
}

TEST_P(HybridOps, ActivateAtTheEnds) {
  const float infinity = INFINITY;
  std::vector<float> relu2 = {infinity, -infinity, NAN, -0.0F, -3, 1e30F, 2};
  std::vector<float> silu = {infinity, -1e30F, NAN, 0, 50};
  run(*backend_, 1, [&](ExecContext& context) {
    context.backend.activate(context, Activation::kRelu2, relu2.data(), 7);
    context.backend.activate(context, Activation::kSilu, silu.data(), 5);
  });
  EXPECT_EQ(relu2[0], infinity);
  EXPECT_EQ(relu2[1], 0);
  EXPECT_TRUE(std::isnan(relu2[2]));
  EXPECT_EQ(relu2[3], 0);
  EXPECT_EQ(relu2[4], 0);
  EXPECT_EQ(relu2[5], infinity);
  EXPECT_EQ(relu2[6], 4);
  EXPECT_EQ(silu[0], infinity);
  EXPECT_NEAR(silu[1], 0, 1e-7);
  EXPECT_TRUE(std::isnan(silu[2]));
  EXPECT_EQ(silu[3], 0);
  EXPECT_EQ(silu[4], 50);
}

// --- mamba2 ---------------------------------------------------------------------------------

// An exact value and how far the float that a kernel has in its place may be from it, to first
// order: every operation passes on the errors of what goes in and adds its own roundings.
struct Approx {
  double value = 0;
  double error = 0;
};

// A result of a sum of terms, rounded `roundings` times on the way to at most `size`.
Approx rounded(double value, double error, double roundings, double size) {
  return {value, error + roundings * kUnit * size};
}

Approx operator*(const Approx& a, const Approx& b) {
  const double value = a.value * b.value;
  return rounded(value,
                 std::fabs(a.value) * b.error + std::fabs(b.value) * a.error + a.error * b.error, 1,
                 std::fabs(value));
}

// One FMA, or a product and a sum on SSE4.
Approx multiply_add(const Approx& a, const Approx& b, const Approx& c) {
  const Approx product = a * b;
  const double value = product.value + c.value;
  return rounded(value, product.error + c.error, 1, std::fabs(value));
}

// 6 roundings; 0 below -87.3.
Approx exp_of(const Approx& x) {
  const double value = std::exp(x.value);
  return rounded(value, value * std::expm1(x.error) + 0x1p-125, 6, value);
}

// The slope is below 1.1; exp 6, 1 + e, the division, the product. Sigmoid stops at 2^-127.5.
Approx silu_of(const Approx& x) {
  const double value = x.value / (1 + std::exp(-x.value));
  return rounded(value, 1.1 * x.error + std::fabs(x.value) * 0x1p-127, 9, std::fabs(value));
}

// The slope is below 1 and below the value. exp 6, 2 + e, the division, the double 0, the series 4
// (its last step twice without FMA, the others and the square divided by 9 and more), the product,
// the sum.
Approx softplus_of(const Approx& x) {
  const double high =
      std::max(x.value + x.error, 0.0) + std::log1p(std::exp(-std::fabs(x.value + x.error)));
  const double value = std::max(x.value, 0.0) + std::log1p(std::exp(-std::fabs(x.value)));
  return rounded(value, std::min(1.0, high) * x.error + 0x1p-125, 14, value);
}

struct MambaSizes {
  Mamba2Shape shape;
  bool has_bias = true;
  float low = 0;
  float high = INFINITY;
};

// Sizes that fill no vector, one group per head, one group, one tap, time steps that are clamped.
std::vector<MambaSizes> mamba_sizes() {
  return {{{4, 16, 32, 2, 4}},
          {{3, 7, 10, 1, 4}},
          {{4, 5, 16, 4, 3}, false},
          {{6, 33, 40, 3, 1}},
          {{2, 64, 128, 1, 2}, true, 0.05F, 1.5F},
          {{8, 64, 128, 2, 4}}};
}

std::string describe(const MambaSizes& sizes) {
  const Mamba2Shape& s = sizes.shape;
  return fmt::format("heads {} x {} state {} groups {} taps {}", s.n_heads, s.head_dim,
                     s.state_size, s.n_groups, s.conv_kernel);
}

// One layer's weights, and rows and states of sequences.
class MambaLayer {
 public:
  explicit MambaLayer(const MambaSizes& sizes, uint32_t seed = 100)
      : sizes_(sizes),
        conv_weight_(random_floats(shape().conv_size() * shape().conv_kernel, seed)),
        conv_bias_(random_floats(shape().conv_size(), seed + 1)),
        dt_bias_(random_floats(shape().n_heads, seed + 2)),
        a_(random_floats(shape().n_heads, seed + 3)),
        d_(random_floats(shape().n_heads, seed + 4)),
        norm_(random_floats(shape().inner_size(), seed + 5)) {
    for (float& a : a_) {
      a = -std::exp(2.5F * a);  // 0.08 to 12
    }
  }

  [[nodiscard]] const Mamba2Shape& shape() const { return sizes_.shape; }
  [[nodiscard]] Mamba2Weights weights() const {
    Mamba2Weights w;
    w.conv_weight = conv_weight_.data();
    w.conv_bias = sizes_.has_bias ? conv_bias_.data() : nullptr;
    w.dt_bias = dt_bias_.data();
    w.a = a_.data();
    w.d = d_.data();
    w.norm_weight = norm_.data();
    w.norm_eps = 1e-5F;
    w.time_step_low = sizes_.low;
    w.time_step_high = sizes_.high;
    return w;
  }

  // Time steps from 1e-6 to 24: past both ends of softplus.
  [[nodiscard]] std::vector<float> rows(int64_t n, uint32_t seed) const {
    std::vector<float> values = random_floats(n * shape().projected_size(), seed);
    const int64_t width = shape().projected_size();
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t h = 0; h < shape().n_heads; ++h) {
        float& dt = values[static_cast<size_t>((r + 1) * width - shape().n_heads + h)];
        dt = dt * 3 - 2 + (r % 11 == 3 ? 24.0F : 0.0F) - (r % 7 == 2 ? 12.0F : 0.0F);
      }
    }
    return values;
  }

 private:
  MambaSizes sizes_;
  std::vector<float> conv_weight_;
  std::vector<float> conv_bias_;
  std::vector<float> dt_bias_;
  std::vector<float> a_;
  std::vector<float> d_;
  std::vector<float> norm_;
};

struct MambaState {
  MambaState(const Mamba2Shape& shape, uint32_t seed)
      : conv(random_floats((shape.conv_kernel - 1) * shape.conv_size(), seed)),
        ssm(random_floats(shape.inner_size() * shape.state_size, seed + 1)) {}

  std::vector<float> conv;
  std::vector<float> ssm;
};

// What the op should give for one sequence, with the error that it may have at most when its rows
// come in spans of the given lengths.
class ExactMamba {
 public:
  ExactMamba(const MambaLayer& layer, const MambaState& state)
      : shape_(layer.shape()),
        weights_(layer.weights()),
        inputs_(state.conv),
        values_(static_cast<size_t>(shape_.conv_size())),
        state_(state.ssm.size()),
        size_(state.ssm.size()) {
    for (size_t i = 0; i < state_.size(); ++i) {
      state_[i].value = double{state.ssm[i]};
      size_[i] = std::fabs(state_[i].value);
    }
  }

  // rows: [n, projected_size]; is_chunk: of a span that may be scanned in chunks.
  std::vector<Approx> run(const std::vector<float>& rows, bool is_chunk) {
    std::vector<Approx> out;
    const int64_t n = static_cast<int64_t>(rows.size()) / shape_.projected_size();
    for (int64_t r = 0; r < n; ++r) {
      const float* row = rows.data() + r * shape_.projected_size();
      convolve(row + shape_.inner_size());
      std::vector<Approx> y(static_cast<size_t>(shape_.inner_size()));
      const bool is_end = r % 64 == 63 || r == n - 1;
      for (int64_t h = 0; h < shape_.n_heads; ++h) {
        scan(h, row[shape_.projected_size() - shape_.n_heads + h], is_chunk, is_end, y);
      }
      norm(row, y, out);
    }
    return out;
  }

  [[nodiscard]] const std::vector<Approx>& state() const { return state_; }

 private:
  void convolve(const float* input) {
    const int64_t n = shape_.conv_size();
    inputs_.insert(inputs_.end(), input, input + n);
    for (int64_t c = 0; c < n; ++c) {
      Approx sum;
      sum.value = weights_.conv_bias == nullptr ? 0 : double{weights_.conv_bias[c]};
      for (int64_t k = 0; k < shape_.conv_kernel; ++k) {
        sum = multiply_add({double{weights_.conv_weight[c * shape_.conv_kernel + k]}},
                           {double{inputs_[static_cast<size_t>(k * n + c)]}}, sum);
      }
      values_[static_cast<size_t>(c)] = silu_of(sum);
    }
    inputs_.erase(inputs_.begin(), inputs_.begin() + n);
  }

  void scan(int64_t h, float dt, bool is_chunk, bool is_end, std::vector<Approx>& y) {
    const double shifted = double{dt} + double{weights_.dt_bias[h]};
    Approx step = softplus_of(rounded(shifted, 0, 1, std::fabs(shifted)));
    step.value =
        std::clamp(step.value, double{weights_.time_step_low}, double{weights_.time_step_high});
    Approx logarithm = step * Approx{double{weights_.a[h]}};
    // The sums of a chunk: two roundings of their difference, and e^x of both ends.
    logarithm.error += is_chunk ? 3 * kUnit * std::fabs(logarithm.value) : 0;
    const Approx decay = exp_of(logarithm);
    const int64_t group = h / (shape_.n_heads / shape_.n_groups);
    const Approx* b = values_.data() + shape_.inner_size() + group * shape_.state_size;
    const Approx* c = b + shape_.n_groups * shape_.state_size;
    const double lanes = 2 * static_cast<double>(shape_.state_size) / 16 + 6;
    for (int64_t p = 0; p < shape_.head_dim; ++p) {
      const auto channel = static_cast<size_t>(h * shape_.head_dim + p);
      const Approx input = step * values_[channel];
      Approx sum;
      double size_of_sum = 0;
      double size_of_state = 0;
      for (int64_t n = 0; n < shape_.state_size; ++n) {
        const size_t i = channel * static_cast<size_t>(shape_.state_size) + static_cast<size_t>(n);
        const Approx added = input * b[n];
        size_[i] = decay.value * size_[i] + std::fabs(added.value);
        state_[i] = multiply_add(decay, state_[i], added);
        // A chunk's end: one FMA for each of its rows, to at most the sum of absolute values.
        state_[i].error += is_chunk && is_end ? (2 * 64 + 10) * kUnit * size_[i] : 0;
        state_[i].error += 0x1p-125;
        const Approx term = state_[i] * c[n];
        sum.value += term.value;
        sum.error += term.error;
        size_of_sum += std::fabs(term.value);
        size_of_state += size_[i] * std::fabs(c[n].value);
      }
      // In a chunk: products of C and B and of C and the state, their decay, a sum over 64 rows.
      const double roundings = is_chunk ? 2 * 64 + 2 * lanes + 20 : lanes;
      const Approx scanned =
          rounded(sum.value, sum.error, roundings, is_chunk ? size_of_state : size_of_sum);
      y[channel] = multiply_add({double{weights_.d[h]}}, values_[channel], scanned);
    }
  }

  void norm(const float* z, const std::vector<Approx>& y, std::vector<Approx>& out) const {
    const int64_t size = shape_.inner_size() / shape_.n_groups;
    for (int64_t first = 0; first < shape_.inner_size(); first += size) {
      std::vector<Approx> q;
      double mean = 0;
      double error = 0;
      for (int64_t i = first; i < first + size; ++i) {
        q.push_back(y[static_cast<size_t>(i)] * silu_of({double{z[i]}}));
        const Approx& v = q.back();
        mean += v.value * v.value / static_cast<double>(size);
        error += (2 * std::fabs(v.value) + v.error) * v.error / static_cast<double>(size);
      }
      error += (2 * static_cast<double>(size) / 16 + 6) * kUnit * mean;
      const double eps = double{weights_.norm_eps};
      const double scale = 1 / std::sqrt(mean + eps);
      const double largest = 1 / std::sqrt(std::max(mean - error, 0.0) + eps);
      const Approx factor = rounded(scale, largest - scale, 3, scale);
      for (int64_t i = 0; i < size; ++i) {
        out.push_back(Approx{double{weights_.norm_weight[first + i]}} *
                      (q[static_cast<size_t>(i)] * factor));
      }
    }
  }

  Mamba2Shape shape_;
  Mamba2Weights weights_;
  std::vector<float> inputs_;   // [conv_kernel - 1, conv_size]
  std::vector<Approx> values_;  // [conv_size]
  std::vector<Approx> state_;   // [inner_size, state_size]
  std::vector<double> size_;    // the same sums of absolute values
};

// The second order that ExactMamba leaves out.
constexpr double kSlack = 1.01;

class Mamba2 : public HybridOps {
 protected:
  // Runs one sequence in spans of the given lengths, one call each.
  static std::vector<float> run_spans(const Backend& backend, int n_threads,
                                      const MambaLayer& layer, std::vector<float> rows,
                                      const std::vector<int64_t>& lengths, MambaState& state) {
    const Mamba2Shape& shape = layer.shape();
    const auto n = static_cast<int64_t>(rows.size()) / shape.projected_size();
    std::vector<float> out(static_cast<size_t>(n * shape.inner_size()), NAN);
    const Mamba2Weights weights = layer.weights();
    run(backend, n_threads, [&](ExecContext& context) {
      int64_t first = 0;
      for (const int64_t length : lengths) {
        const Mamba2Span span = {first, length, state.conv.data(), state.ssm.data()};
        backend.mamba2(context, weights, shape, {&span, 1}, rows.data(), out.data());
        first += length;
      }
    });
    return out;
  }

  static void expect_near(const std::vector<float>& found, const std::vector<Approx>& wanted,
                          const std::string& what) {
    ASSERT_EQ(found.size(), wanted.size()) << what;
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(double{found[i]}, wanted[i].value, kSlack * wanted[i].error)
          << what << ", element " << i;
    }
  }
};

TEST_P(Mamba2, IsWithinTheBound) {
  for (const MambaSizes& sizes : mamba_sizes()) {
    const MambaLayer layer(sizes);
    for (const int64_t n : {1, 2, 3, 7, 8, 9, 31, 64, 65, 72, 150}) {
      const std::string what = fmt::format("{}, {} rows", describe(sizes), n);
      const std::vector<float> rows = layer.rows(n, 7);
      MambaState found_state(layer.shape(), 9);
      MambaState reference_state = found_state;
      ExactMamba exact(layer, found_state);
      const std::vector<Approx> wanted = exact.run(rows, n > 1);
      const auto found = run_spans(*backend_, 2, layer, rows, {n}, found_state);
      const auto reference = run_spans(*reference_, 1, layer, rows, {n}, reference_state);
      expect_near(found, wanted, what);
      expect_near(found_state.ssm, exact.state(), what + ", state");
      expect_near(reference, wanted, what + ", reference");
      expect_near(reference_state.ssm, exact.state(), what + ", state of the reference");
      expect_same_bits(found_state.conv, reference_state.conv, what + ", inputs");
    }
  }
}

// The bound would let nothing through: an error of one part in a thousand is seen.
TEST_P(Mamba2, TheBoundIsNarrow) {
  const MambaLayer layer(mamba_sizes()[5]);
  const std::vector<float> rows = layer.rows(150, 7);
  ExactMamba exact(layer, MambaState(layer.shape(), 9));
  const std::vector<Approx> wanted = exact.run(rows, true);
  double errors = 0;
  double values = 0;
  for (const Approx& w : wanted) {
    errors += w.error * w.error;
    values += w.value * w.value;
  }
  EXPECT_LT(std::sqrt(errors / values), 1e-3);
}

TEST_P(Mamba2, CutsOfASequenceAgreeWithinTheBounds) {
  for (const MambaSizes& sizes : mamba_sizes()) {
    const MambaLayer layer(sizes);
    const int64_t n = 150;
    const std::vector<float> rows = layer.rows(n, 17);
    const MambaState start(layer.shape(), 19);
    for (const auto& lengths : std::vector<std::vector<int64_t>>{
             {150}, std::vector<int64_t>(150, 1), {1, 149}, {64, 64, 22}, {3, 90, 57}, {149, 1}}) {
      MambaState state = start;
      const auto found = run_spans(*backend_, 2, layer, rows, lengths, state);
      ExactMamba exact(layer, start);
      std::vector<Approx> wanted;
      int64_t first = 0;
      for (const int64_t length : lengths) {
        const int64_t width = layer.shape().projected_size();
        const std::vector<Approx> part = exact.run(
            {rows.begin() + first * width, rows.begin() + (first + length) * width}, length > 1);
        wanted.insert(wanted.end(), part.begin(), part.end());
        first += length;
      }
      const std::string what = fmt::format("{}, {} spans", describe(sizes), lengths.size());
      expect_near(found, wanted, what);
      expect_near(state.ssm, exact.state(), what + ", state");
      MambaState whole = start;
      run_spans(*backend_, 1, layer, rows, {n}, whole);
      expect_same_bits(state.conv, whole.conv, what + ", inputs");
    }
  }
}

TEST_P(Mamba2, DoesNotDependOnThreads) {
  for (const MambaSizes& sizes : mamba_sizes()) {
    const MambaLayer layer(sizes);
    for (const int64_t n : {1, 20, 150}) {
      const std::vector<float> rows = layer.rows(n, 27);
      MambaState one(layer.shape(), 29);
      const MambaState start = one;
      const auto wanted = run_spans(*backend_, 1, layer, rows, {n}, one);
      for (const int n_threads : {2, 3, 9}) {
        MambaState state = start;
        const std::string what =
            fmt::format("{}, {} rows, {} threads", describe(sizes), n, n_threads);
        expect_same_bits(run_spans(*backend_, n_threads, layer, rows, {n}, state), wanted, what);
        expect_same_bits(state.ssm, one.ssm, what + ", state");
        expect_same_bits(state.conv, one.conv, what + ", inputs");
      }
    }
  }
}

TEST_P(Mamba2, DoesNotDependOnNeighboursAndNanStaysInItsSequence) {
  const std::vector<int64_t> lengths = {1, 70, 0, 1, 20, 2, 130};
  for (const MambaSizes& sizes : mamba_sizes()) {
    const MambaLayer layer(sizes);
    const Mamba2Shape& shape = layer.shape();
    for (const int spoiled : {-1, 0, 1, 4}) {
      std::vector<float> batch;
      std::vector<MambaState> states;
      for (size_t i = 0; i < lengths.size(); ++i) {
        const auto seed = static_cast<uint32_t>(40 + 5 * i);
        std::vector<float> rows = layer.rows(lengths[i], seed);
        if (static_cast<int>(i) == spoiled) {
          rows[rows.size() / 2] = NAN;
          rows[rows.size() - 1] = INFINITY;
        }
        batch.insert(batch.end(), rows.begin(), rows.end());
        states.emplace_back(shape, seed + 1);
      }
      std::vector<MambaState> alone = states;
      std::vector<Mamba2Span> spans;
      int64_t first = 0;
      for (size_t i = 0; i < lengths.size(); ++i) {
        spans.push_back({first, lengths[i], states[i].conv.data(), states[i].ssm.data()});
        first += lengths[i];
      }
      std::vector<float> out(static_cast<size_t>(first * shape.inner_size()), NAN);
      std::vector<float> work = batch;
      const Mamba2Weights weights = layer.weights();
      run(*backend_, 3, [&](ExecContext& context) {
        context.backend.mamba2(context, weights, shape, spans, work.data(), out.data());
      });
      for (size_t i = 0; i < lengths.size(); ++i) {
        if (static_cast<int>(i) == spoiled) {
          continue;
        }
        const int64_t begin = spans[i].first_row;
        const int64_t end = begin + lengths[i];
        const std::vector<float> rows(batch.begin() + begin * shape.projected_size(),
                                      batch.begin() + end * shape.projected_size());
        const std::string what = fmt::format("{}, span {}", describe(sizes), i);
        expect_same_bits(
            {out.begin() + begin * shape.inner_size(), out.begin() + end * shape.inner_size()},
            run_spans(*backend_, 1, layer, rows, {lengths[i]}, alone[i]), what);
        expect_same_bits(states[i].ssm, alone[i].ssm, what + ", state");
        expect_same_bits(states[i].conv, alone[i].conv, what + ", inputs");
      }
    }
  }
}

// Not even times 0 does a row take part in those before it.
TEST_P(Mamba2, NanDoesNotTravelBack) {
  const MambaLayer layer(mamba_sizes()[0]);
  const Mamba2Shape& shape = layer.shape();
  for (int64_t bad = 60; bad < 70; ++bad) {
    std::vector<float> rows = layer.rows(80, 3);
    for (int64_t i = 0; i < shape.projected_size(); ++i) {
      rows[static_cast<size_t>(bad * shape.projected_size() + i)] = NAN;
    }
    MambaState state(shape, 4);
    const auto out = run_spans(*backend_, 1, layer, rows, {80}, state);
    for (int64_t r = 0; r < 80; ++r) {
      for (int64_t i = 0; i < shape.inner_size(); ++i) {
        ASSERT_EQ(std::isnan(out[static_cast<size_t>(r * shape.inner_size() + i)]), r >= bad)
            << r << ", " << i << ", spoiled " << bad;
      }
    }
  }
}

// A state that nothing feeds ends at 0, not among the subnormals.
TEST_P(Mamba2, StatesEndAtZero) {
  const MambaLayer layer(mamba_sizes()[2]);  // without bias: inputs of 0 stay 0
  const Mamba2Shape& shape = layer.shape();
  for (const int64_t length : {1, 64}) {
    std::vector<float> rows(static_cast<size_t>(64 * shape.projected_size()), 0.0F);
    MambaState state(shape, 5);
    for (int round = 0; round < 40; ++round) {
      run_spans(*backend_, 1, layer, rows,
                std::vector<int64_t>(static_cast<size_t>(64 / length), length), state);
      for (const float s : state.ssm) {
        ASSERT_TRUE(s == 0 || std::isnormal(s)) << s;
      }
    }
    EXPECT_TRUE(std::all_of(state.ssm.begin(), state.ssm.end(), [](float s) { return s == 0; }));
  }
}

// The instruction sets with FMA give the same bits.
TEST_P(Mamba2, HasTheBitsOfTheBestInstructionSet) {
  if (GetParam() == "SSE4" || GetParam() == "EMU128") {
    GTEST_SKIP() << "products are rounded without FMA";
  }
  const auto best = std::move(make_cpu_backend()).value();
  for (const MambaSizes& sizes : mamba_sizes()) {
    const MambaLayer layer(sizes);
    for (const int64_t n : {1, 150}) {
      const std::vector<float> rows = layer.rows(n, 37);
      MambaState found(layer.shape(), 39);
      MambaState wanted = found;
      expect_same_bits(run_spans(*backend_, 1, layer, rows, {n}, found),
                       run_spans(*best, 1, layer, rows, {n}, wanted), describe(sizes));
      expect_same_bits(found.ssm, wanted.ssm, describe(sizes) + ", state");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, HybridOps, ::testing::ValuesIn(cpu_isas()),
                         [](const auto& test) { return test.param; });
INSTANTIATE_TEST_SUITE_P(Isa, Mamba2, ::testing::ValuesIn(cpu_isas()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace logitlab
