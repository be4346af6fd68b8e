// Every instruction set against the reference, over odd shapes and all types of weights, and the
// promises of backend.h about equal bits. The bounds are derived in docs/numerics.md.
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

constexpr double kUnit = 0x1p-24;  // half a step of a float in [1, 2): one rounding

// Roundings that may add up in a result: per_input for every input of the sum, plus fixed. One
// rounding moves the result by at most kUnit times the sum of the absolute values of its terms.
struct Bound {
  double per_input;
  double fixed;
};

// The one table. Weights decode exactly, so all types share the bound of the sum:
// a lane rounds once for each of its K / 16 inputs (twice without FMA), then come 4 levels of the
// tree, bias, residual and the reference's own rounding.
constexpr double kLane = 2.0 / 16;
Bound linear_bound(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      return {kLane, 9};
    default:
      return {0, 0};
  }
}
// embed, rope: the same bits. rms_norm: half of the sum's error (a square root), 4 more roundings.
constexpr Bound kRmsNormBound = {kLane / 2, 9};
// silu_mul: exp 6, 1 + e, the division and two products 4, the reference 1.
constexpr Bound kSiluMulBound = {0, 11};
// attention, per position: one rounding of the value's sum and 1/16 of the weights' sum, each twice
// without FMA; fixed: exp 6, trees, division and product. The scores' error comes on top (below).
constexpr Bound kAttentionBound = {2 + kLane, 18};
constexpr Bound kScoreBound = {kLane, 7};

double allowed(const Bound& bound, int64_t inputs, double magnitude) {
  return (bound.per_input * static_cast<double>(inputs) + bound.fixed) * kUnit * magnitude;
}

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

std::vector<float> absolute(std::vector<float> values) {
  for (float& value : values) {
    value = std::fabs(value);
  }
  return values;
}

class Ops : public ::testing::TestWithParam<std::string> {
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

  static std::vector<float> linear(const Backend& backend, int n_threads,
                                   const std::vector<float>& x, int64_t rows, const Tensor& weight,
                                   const float* bias = nullptr,
                                   const std::vector<float>* residual = nullptr) {
    std::vector<float> out(static_cast<size_t>(rows * weight.rows()), NAN);
    if (residual != nullptr) {
      out = *residual;
    }
    LinearPart part{weight, bias, out.data(), residual != nullptr};
    run(backend, n_threads, [&](ExecContext& context) {
      context.backend.linear(context, x.data(), rows, {&part, 1});
    });
    return out;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> reference_ = make_reference_backend();
};

struct LinearShape {
  int64_t rows;
  int64_t in;
  int64_t out;
};

// Inputs that fit the type; plain types get the odd lengths.
std::vector<LinearShape> linear_shapes(DType dtype) {
  const int64_t block = traits(dtype).block_elements;
  if (block == 1) {
    return {{1, 1, 1},   {1, 33, 67}, {1, 16, 4},  {2, 15, 3},   {3, 100, 5}, {4, 31, 6},
            {5, 64, 67}, {6, 65, 33}, {7, 800, 8}, {8, 1601, 9}, {9, 47, 34}, {1, 1601, 13}};
  }
  return {{1, block, 1},      {1, 3 * block, 67}, {1, 5 * block, 2},  {2, block, 3},
          {3, 2 * block, 5},  {4, block, 6},      {5, 3 * block, 67}, {6, block, 33},
          {7, 26 * block, 8}, {8, 5 * block, 9},  {9, 2 * block, 34}};
}

std::string describe(DType dtype, const LinearShape& shape) {
  return fmt::format("{} rows {} in {} out {}", name(dtype), shape.rows, shape.in, shape.out);
}

TEST_P(Ops, LinearIsWithinTheBound) {
  uint32_t seed = 1;
  for (const DType dtype : kWeightTypes) {
    for (const LinearShape& shape : linear_shapes(dtype)) {
      const RandomWeight weight(dtype, shape.out, shape.in, ++seed);
      const std::vector<float> x = random_floats(shape.rows * shape.in, ++seed);
      const std::vector<float> bias = random_floats(shape.out, ++seed);
      const std::vector<float> residual = random_floats(shape.rows * shape.out, ++seed);
      const auto found =
          linear(*backend_, 2, x, shape.rows, weight.tensor(), bias.data(), &residual);
      const auto wanted =
          linear(*reference_, 1, x, shape.rows, weight.tensor(), bias.data(), &residual);
      const std::vector<float> weights = absolute(weight.floats());
      const Tensor magnitude{reinterpret_cast<const std::byte*>(weights.data()), DType::kF32,
                             weight.tensor().shape};
      const std::vector<float> positive_bias = absolute(bias);
      const std::vector<float> positive_residual = absolute(residual);
      const auto sums = linear(*reference_, 1, absolute(x), shape.rows, magnitude,
                               positive_bias.data(), &positive_residual);
      for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(found[i], wanted[i], allowed(linear_bound(dtype), shape.in, double{sums[i]}))
            << describe(dtype, shape) << ", element " << i;
      }
    }
  }
}

TEST_P(Ops, LinearDoesNotDependOnThreadsOrNeighbours) {
  uint32_t seed = 1000;
  for (const DType dtype : kWeightTypes) {
    const int64_t block = traits(dtype).block_elements;
    for (const int64_t in : {block == 1 ? int64_t{77} : block, 1024 + block * 8}) {
      const int64_t rows = 9;
      const int64_t n_out = 67;
      const RandomWeight weight(dtype, n_out, in, ++seed);
      const std::vector<float> x = random_floats(rows * in, ++seed);
      const std::string what = fmt::format("{} in {}", name(dtype), in);
      const auto one = linear(*backend_, 1, x, rows, weight.tensor());
      expect_same_bits(one, linear(*backend_, 2, x, rows, weight.tensor()), what + " 2 threads");
      expect_same_bits(one, linear(*backend_, 3, x, rows, weight.tensor()), what + " 3 threads");
      for (int64_t begin = 0; begin < rows; ++begin) {
        for (int64_t n = 1; begin + n <= rows; ++n) {
          const std::vector<float> some(x.begin() + begin * in, x.begin() + (begin + n) * in);
          const std::vector<float> expected(one.begin() + begin * n_out,
                                            one.begin() + (begin + n) * n_out);
          expect_same_bits(linear(*backend_, 2, some, n, weight.tensor()), expected,
                           fmt::format("{} rows {} + {}", what, begin, n));
        }
      }
    }
  }
}

// A batch large enough to be split by rows, too.
TEST_P(Ops, LinearOfManyRowsHasTheBitsOfOneRow) {
  const int64_t rows = 201;
  const RandomWeight weight(DType::kBF16, 40, 96, 5);
  const std::vector<float> x = random_floats(rows * 96, 6);
  for (const int n_threads : {1, 4}) {
    const auto all = linear(*backend_, n_threads, x, rows, weight.tensor());
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row(x.begin() + r * 96, x.begin() + (r + 1) * 96);
      expect_same_bits(linear(*backend_, 1, row, 1, weight.tensor()),
                       {all.begin() + r * 40, all.begin() + (r + 1) * 40}, "row");
    }
  }
}

TEST_P(Ops, PartsOfOneCallAreSeparate) {
  for (const int64_t rows : {1, 5}) {
    const RandomWeight a(DType::kQ4_1, 19, 64, 1);
    const RandomWeight b(DType::kBF16, 70, 64, 2);
    const RandomWeight c(DType::kF32, 1, 64, 3);
    const std::vector<float> x = random_floats(rows * 64, 4);
    const std::vector<float> bias = random_floats(70, 5);
    std::vector<float> out_a(static_cast<size_t>(rows * 19));
    std::vector<float> out_b(static_cast<size_t>(rows * 70));
    std::vector<float> out_c(static_cast<size_t>(rows));
    const LinearPart parts[] = {{a.tensor(), nullptr, out_a.data(), false},
                                {b.tensor(), bias.data(), out_b.data(), false},
                                {c.tensor(), nullptr, out_c.data(), false}};
    run(*backend_, 2,
        [&](ExecContext& context) { context.backend.linear(context, x.data(), rows, parts); });
    expect_same_bits(out_a, linear(*backend_, 1, x, rows, a.tensor()), "first part");
    expect_same_bits(out_b, linear(*backend_, 1, x, rows, b.tensor(), bias.data()), "second part");
    expect_same_bits(out_c, linear(*backend_, 1, x, rows, c.tensor()), "third part");
  }
}

TEST_P(Ops, NotANumberStaysInItsRow) {
  const RandomWeight weight(DType::kBF16, 12, 50, 1);
  std::vector<float> x = random_floats(3 * 50, 2);
  x[50 + 49] = NAN;
  const auto out = linear(*backend_, 2, x, 3, weight.tensor());
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(std::isnan(out[i]), i / 12 == 1) << i;
  }
}

TEST_P(Ops, EmbedIsExact) {
  for (const DType dtype : kWeightTypes) {
    // Scales down to halves without their leading one.
    for (const float scale : {0.02F, 6e-5F}) {
      for (const int64_t blocks : {1, 2, 3}) {
        const int64_t d = traits(dtype).block_elements * (traits(dtype).is_quantised ? 1 : 23);
        const RandomWeight table(dtype, 50, d * blocks, 9, scale);
        const std::vector<TokenId> ids = {0, 49, 7, 7, 31};
        const std::vector<float> all = table.floats();
        std::vector<float> wanted;
        for (const TokenId id : ids) {
          wanted.insert(wanted.end(), all.begin() + id * d * blocks,
                        all.begin() + (id + 1) * d * blocks);
        }
        std::vector<float> found(wanted.size());
        run(*backend_, 2, [&](ExecContext& context) {
          context.backend.embed(context, table.tensor(), ids, found.data());
        });
        expect_same_bits(found, wanted, std::string(name(dtype)));
      }
    }
  }
}

TEST_P(Ops, EveryHalfIsExact) {
  std::vector<uint16_t> halves(65536);
  std::vector<float> wanted(65536);
  for (size_t i = 0; i < halves.size(); ++i) {
    halves[i] = static_cast<uint16_t>(i);
    wanted[i] = f16_to_float(halves[i]);
  }
  const Tensor table{reinterpret_cast<const std::byte*>(halves.data()), DType::kF16, {1, 65536}};
  std::vector<float> found(65536);
  const TokenId id = 0;
  run(*backend_, 1, [&](ExecContext& context) {
    context.backend.embed(context, table, {&id, 1}, found.data());
  });
  for (size_t i = 0; i < halves.size(); ++i) {
    if (std::isnan(wanted[i])) {
      ASSERT_TRUE(std::isnan(found[i])) << i;
    } else {
      ASSERT_EQ(bits_of(found[i]), bits_of(wanted[i])) << i;
    }
  }
}

TEST_P(Ops, RmsNormIsWithinTheBound) {
  for (const int64_t d : {1, 7, 16, 33, 576, 1000}) {
    const int64_t rows = 5;
    const std::vector<float> x = random_floats(rows * d, 1);
    const std::vector<float> weight = random_floats(d, 2);
    std::vector<float> found(x.size());
    std::vector<float> wanted(x.size());
    const auto norm = [&](const Backend& backend, int n_threads, const float* from, int64_t n,
                          float* to) {
      run(backend, n_threads, [&](ExecContext& context) {
        context.backend.rms_norm(context, from, weight.data(), 1e-5F, n, d, to);
      });
    };
    norm(*backend_, 1, x.data(), rows, found.data());
    norm(*reference_, 1, x.data(), rows, wanted.data());
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(found[i], wanted[i], allowed(kRmsNormBound, d, std::fabs(double{wanted[i]})))
          << d << ", " << i;
    }
    std::vector<float> alias = x;
    norm(*backend_, 3, alias.data(), rows, alias.data());
    expect_same_bits(alias, found, "in place");
    std::vector<float> last(static_cast<size_t>(d));
    norm(*backend_, 1, x.data() + 4 * d, 1, last.data());
    expect_same_bits(last, {found.end() - d, found.end()}, "alone");
  }
}

TEST_P(Ops, RopeHasTheBitsOfTheReference) {
  for (const RopeLayout layout : {RopeLayout::kHalfSplit, RopeLayout::kInterleaved}) {
    for (const int64_t head_dim : {2, 6, 64, 80, 128}) {
      for (const int64_t rotary_dim : {head_dim, head_dim / 4 * 2}) {
        const int64_t rows = 40;
        const int64_t n_heads = 9;
        const std::vector<float> x = random_floats(rows * n_heads * head_dim, 1);
        const std::vector<float> cosine = random_floats(rows * rotary_dim / 2, 2);
        const std::vector<float> sine = random_floats(rows * rotary_dim / 2, 3);
        std::vector<float> found = x;
        std::vector<float> wanted = x;
        const auto rope = [&](const Backend& backend, std::vector<float>& values) {
          run(backend, 2, [&](ExecContext& context) {
            context.backend.rope(context, values.data(), cosine.data(), sine.data(), rows, n_heads,
                                 head_dim, rotary_dim, layout);
          });
        };
        rope(*backend_, found);
        rope(*reference_, wanted);
        expect_same_bits(found, wanted, fmt::format("{} of {}", rotary_dim, head_dim));
      }
    }
  }
}

TEST_P(Ops, SiluMulIsWithinTheBound) {
  std::vector<float> gate = random_floats(40000, 1);
  for (size_t i = 0; i < gate.size(); ++i) {
    gate[i] *= i % 2 == 0 ? 8.0F : 86.0F;
  }
  for (const int64_t n : {int64_t{1}, int64_t{15}, int64_t{17}, int64_t{40000}}) {
    const std::vector<float> up = random_floats(n, 2);
    std::vector<float> found(static_cast<size_t>(n));
    std::vector<float> wanted(static_cast<size_t>(n));
    const auto silu_mul = [&](const Backend& backend, int n_threads, std::vector<float>& out) {
      run(backend, n_threads, [&](ExecContext& context) {
        context.backend.silu_mul(context, gate.data(), up.data(), n, out.data());
      });
    };
    silu_mul(*backend_, 1, found);
    silu_mul(*reference_, 1, wanted);
    for (size_t i = 0; i < found.size(); ++i) {
      // Subnormal results have fewer digits than a rounding assumes.
      ASSERT_NEAR(found[i], wanted[i],
                  allowed(kSiluMulBound, 0, std::fabs(double{wanted[i]})) + 0x1p-140)
          << gate[i];
    }
    std::vector<float> threaded(found.size());
    silu_mul(*backend_, 3, threaded);
    expect_same_bits(threaded, found, "threads");
  }
}

TEST_P(Ops, SiluMulAtTheEnds) {
  const float infinity = INFINITY;
  const std::vector<float> gate = {0.0F, -0.0F, 200.0F, -200.0F, infinity, NAN, 1e30F, -1e30F};
  const std::vector<float> up(gate.size(), 2.0F);
  std::vector<float> out(gate.size());
  run(*backend_, 1, [&](ExecContext& context) {
    context.backend.silu_mul(context, gate.data(), up.data(), static_cast<int64_t>(gate.size()),
                             out.data());
  });
  EXPECT_EQ(out[0], 0.0F);
  EXPECT_EQ(out[1], 0.0F);
  EXPECT_EQ(out[2], 400.0F);
  EXPECT_NEAR(out[3], 0.0F, 1e-35);
  EXPECT_EQ(out[4], infinity);
  EXPECT_TRUE(std::isnan(out[5]));
  EXPECT_EQ(out[6], 2e30F);
  EXPECT_TRUE(std::isfinite(out[7]));
}

struct AttentionCase {
  AttentionShape shape;
  int64_t page_positions;
  std::vector<std::pair<int64_t, int64_t>> rows;  // first, last
};

std::vector<AttentionCase> attention_cases() {
  const auto scale = [](int64_t d) { return 1 / std::sqrt(static_cast<float>(d)); };
  return {
      {{1, 1, 1, 1.0F}, 4, {{0, 0}, {0, 6}}},
      {{9, 3, 64, scale(64)}, 32, {{0, 0}, {0, 1}, {0, 31}, {0, 32}, {0, 99}, {40, 99}}},
      {{8, 1, 20, scale(20)}, 5, {{0, 17}, {3, 3}, {0, 40}}},
      {{4, 4, 80, scale(80)}, 16, {{0, 15}, {0, 16}, {1, 63}}},
      {{10, 2, 128, scale(128)}, 64, {{0, 200}, {150, 201}}},
      {{3, 1, 36, 3.0F}, 7, {{2, 50}}},
      {{2, 1, 64, scale(64)}, 16, {{0, 4999}}},
  };
}

std::vector<float> attend(const Backend& backend, int n_threads, const float* q,
                          const std::vector<AttentionRow>& rows, const AttentionShape& shape) {
  ThreadPool threads(n_threads);
  ExecContext context{backend, threads};
  std::vector<float> out(rows.size() * static_cast<size_t>(shape.n_heads * shape.head_dim), NAN);
  backend.attention(context, q, rows, shape, out.data());
  return out;
}

// The largest sum of |q_i k_i| * scale that a row's head meets: scores err by a share of it.
double largest_score_magnitude(const float* q, const RandomKv& kv, const AttentionShape& shape,
                               const AttentionRow& row) {
  double largest = 0;
  for (int64_t h = 0; h < shape.n_heads; ++h) {
    for (int64_t p = row.first; p <= row.last; ++p) {
      const float* key = kv.key(p, h / (shape.n_heads / shape.n_kv_heads));
      double sum = 0;
      for (int64_t i = 0; i < shape.head_dim; ++i) {
        sum += std::fabs(double{q[h * shape.head_dim + i]} * double{key[i]});
      }
      largest = std::max(largest, sum * double{shape.scale});
    }
  }
  return largest;
}

TEST_P(Ops, AttentionIsWithinTheBound) {
  for (const AttentionCase& test : attention_cases()) {
    const AttentionShape& shape = test.shape;
    const int64_t width = shape.n_heads * shape.head_dim;
    const int64_t positions =
        std::max_element(test.rows.begin(), test.rows.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; })
            ->second +
        1;
    RandomKv kv(positions, test.page_positions, shape.n_kv_heads, shape.head_dim, 77);
    std::vector<AttentionRow> rows;
    for (const auto& [first, last] : test.rows) {
      rows.push_back({&kv.view(), first, last});
    }
    const auto n_rows = static_cast<int64_t>(rows.size());
    const std::vector<float> q = random_floats(n_rows * width, 5);
    const auto found = attend(*backend_, 2, q.data(), rows, shape);
    const auto wanted = attend(*reference_, 1, q.data(), rows, shape);
    for (int64_t r = 0; r < n_rows; ++r) {
      const float* q_row = q.data() + r * width;
      expect_same_bits(attend(*backend_, 1, q_row, {rows[static_cast<size_t>(r)]}, shape),
                       {found.begin() + r * width, found.begin() + (r + 1) * width}, "alone");
    }
    expect_same_bits(attend(*backend_, 3, q.data(), rows, shape), found, "3 threads");

    kv.make_values_positive();
    const auto magnitudes = attend(*reference_, 1, q.data(), rows, shape);
    for (size_t i = 0; i < found.size(); ++i) {
      const AttentionRow& row = rows[i / static_cast<size_t>(width)];
      const int64_t n = row.last - row.first + 1;
      const double score = largest_score_magnitude(
          q.data() + static_cast<int64_t>(i) / width * width, kv, shape, row);
      // A weight errs by twice the score's error: its own and the one in the sum; 2 more for the
      // subtraction of the maximum.
      const double relative =
          2 * allowed(kScoreBound, shape.head_dim, score) + 2 * kUnit * 2 * score;
      ASSERT_NEAR(
          found[i], wanted[i],
          allowed(kAttentionBound, n, double{magnitudes[i]}) + relative * double{magnitudes[i]})
          << "heads " << shape.n_heads << " head_dim " << shape.head_dim << ", element " << i;
    }
  }
}

// Sequences of one batch do not see each other.
TEST_P(Ops, AttentionReadsEachRowsOwnSequence) {
  const AttentionShape shape{6, 2, 32, 0.2F};
  const RandomKv a(70, 16, 2, 32, 1);
  const RandomKv b(33, 16, 2, 32, 1000);
  const std::vector<float> q = random_floats(2 * 6 * 32, 3);
  const std::vector<AttentionRow> rows = {{&a.view(), 0, 69}, {&b.view(), 0, 32}};
  const auto both = attend(*backend_, 2, q.data(), rows, shape);
  const auto first = attend(*backend_, 1, q.data(), {rows[0]}, shape);
  const auto second = attend(*backend_, 1, q.data() + 6 * 32, {rows[1]}, shape);
  expect_same_bits(first, {both.begin(), both.begin() + 192}, "first");
  expect_same_bits(second, {both.begin() + 192, both.end()}, "second");
}

// Instruction sets with FMA give the same bits.
TEST_P(Ops, SameBitsAsTheBestInstructionSet) {
  const std::vector<std::string> isas = cpu_isas();
  const auto has_fma = [](const std::string& isa) { return isa.starts_with("AVX"); };
  if (!has_fma(isas.front()) || !has_fma(GetParam())) {
    GTEST_SKIP() << GetParam() << " has no FMA";
  }
  const auto best = std::move(make_cpu_backend(isas.front())).value();
  uint32_t seed = 1;
  for (const DType dtype : kWeightTypes) {
    for (const LinearShape& shape : linear_shapes(dtype)) {
      const RandomWeight weight(dtype, shape.out, shape.in, ++seed);
      const std::vector<float> x = random_floats(shape.rows * shape.in, ++seed);
      expect_same_bits(linear(*backend_, 2, x, shape.rows, weight.tensor()),
                       linear(*best, 2, x, shape.rows, weight.tensor()), describe(dtype, shape));
    }
  }
  for (const AttentionCase& test : attention_cases()) {
    const AttentionShape& shape = test.shape;
    const RandomKv kv(test.rows[0].second + 1, test.page_positions, shape.n_kv_heads,
                      shape.head_dim, 7);
    const std::vector<float> q = random_floats(shape.n_heads * shape.head_dim, 5);
    const std::vector<AttentionRow> rows = {{&kv.view(), test.rows[0].first, test.rows[0].second}};
    expect_same_bits(attend(*backend_, 1, q.data(), rows, shape),
                     attend(*best, 1, q.data(), rows, shape), "attention");
  }
  std::vector<float> gate = random_floats(5000, 1);
  for (float& g : gate) {
    g *= 100;
  }
  const std::vector<float> weight = random_floats(5000, 2);
  const auto pointwise = [&](const Backend& backend) {
    std::vector<float> out(10000);
    run(backend, 1, [&](ExecContext& context) {
      context.backend.silu_mul(context, gate.data(), weight.data(), 5000, out.data());
      context.backend.rms_norm(context, gate.data(), weight.data(), 1e-6F, 1, 5000,
                               out.data() + 5000);
    });
    return out;
  };
  expect_same_bits(pointwise(*backend_), pointwise(*best), "silu_mul and rms_norm");
}

INSTANTIATE_TEST_SUITE_P(Isa, Ops, ::testing::ValuesIn(cpu_isas()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace logitlab
