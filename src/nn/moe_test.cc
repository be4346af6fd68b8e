#include "nn/moe.h"

#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

// The logit whose sigmoid is `score`.
float logit(double score) {
  return static_cast<float>(std::log(score / (1 - score)));
}

std::vector<float> logits(const std::vector<double>& scores) {
  std::vector<float> values;
  for (const double score : scores) {
    values.push_back(logit(score));
  }
  return values;
}

std::vector<ChosenExpert> chosen(const Routing& routing, const std::vector<float>& values,
                                 const float* correction = nullptr) {
  std::vector<ChosenExpert> out(static_cast<size_t>(routing.n_chosen));
  route(routing, values.data(), correction, out);
  return out;
}

std::vector<int64_t> ids(const std::vector<ChosenExpert>& experts) {
  std::vector<int64_t> out;
  for (const ChosenExpert& expert : experts) {
    out.push_back(expert.expert);
  }
  return out;
}

TEST(Route, WeightsAreScoresWithoutTheCorrection) {
  const Routing routing{.n_experts = 4, .n_chosen = 2, .normalises = false, .scale = 2.0F};
  const std::vector<float> values = logits({0.5, 0.2, 0.4, 0.1});
  EXPECT_EQ(ids(chosen(routing, values)), (std::vector<int64_t>{0, 2}));
  const std::vector<float> correction = {-0.45F, 0.0F, 0.0F, 0.8F};
  const auto corrected = chosen(routing, values, correction.data());
  EXPECT_EQ(ids(corrected), (std::vector<int64_t>{2, 3})) << "ascending, chosen by score + bias";
  EXPECT_NEAR(corrected[0].weight, 2 * 0.4, 1e-6);
  EXPECT_NEAR(corrected[1].weight, 2 * 0.1, 1e-6);
}

TEST(Route, NormalisedWeightsSumToTheScale) {
  const Routing routing{.n_experts = 4, .n_chosen = 3, .scale = 2.5F};
  const auto experts = chosen(routing, logits({0.5, 0.2, 0.4, 0.1}));
  EXPECT_NEAR(experts[0].weight, 2.5 * 0.5 / 1.1, 1e-6);
  EXPECT_NEAR(experts[1].weight, 2.5 * 0.2 / 1.1, 1e-6);
  EXPECT_NEAR(experts[2].weight, 2.5 * 0.4 / 1.1, 1e-6);
  // All scores are 0: the weights are too, not NaN.
  for (const ChosenExpert& expert : chosen(routing, {-200, -200, -200, -200})) {
    EXPECT_EQ(expert.weight, 0.0F);
  }
  const Routing one{.n_experts = 4, .n_chosen = 1, .scale = 2.5F};
  EXPECT_FLOAT_EQ(chosen(one, logits({0.1, 0.2, 0.3, 0.2}))[0].weight, 2.5F);
}

TEST(Route, TiesGoToTheLowerIndex) {
  const Routing routing{.n_experts = 5, .n_chosen = 2};
  EXPECT_EQ(ids(chosen(routing, {0, 1, 1, 1, 0})), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(ids(chosen(routing, {1, 1, 1, 1, 1})), (std::vector<int64_t>{0, 1}));
}

TEST(Route, KeepsTheGroupsWhoseTwoBestAreLargest) {
  const Routing routing{.n_experts = 9, .n_chosen = 3, .n_groups = 3, .kept_groups = 1};
  // The best expert stands in the first group, the best pair in the third.
  const std::vector<float> values = logits({0.9, 0.1, 0.1, 0.5, 0.2, 0.2, 0.6, 0.1, 0.55});
  EXPECT_EQ(ids(chosen(routing, values)), (std::vector<int64_t>{6, 7, 8}));
  Routing two = routing;
  two.kept_groups = 2;
  EXPECT_EQ(ids(chosen(two, values)), (std::vector<int64_t>{0, 6, 8}));
  // With all choices below 0 a masked expert must not win: 0 would beat them, -inf does not.
  const std::vector<float> correction(9, -2.0F);
  EXPECT_EQ(ids(chosen(routing, values, correction.data())), (std::vector<int64_t>{6, 7, 8}));
  // Equal groups: the first.
  EXPECT_EQ(ids(chosen(routing, std::vector<float>(9, 0.5F))), (std::vector<int64_t>{0, 1, 2}));
}

TEST(Route, NeverTakesAnExpertTwice) {
  const Routing routing{.n_experts = 4, .n_chosen = 3};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(ids(chosen(routing, {nan, nan, nan, nan})), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(ids(chosen(routing, {nan, 1, nan, nan})).size(), 3U);
}

// ---- a whole layer, against the sum written out in double --------------------------------------

constexpr int64_t kHidden = 6;
constexpr int64_t kLatent = 4;
constexpr int64_t kWidth = 5;
constexpr int64_t kExperts = 4;

// Owns the numbers of a mixture.
struct Mixture {
  std::vector<std::unique_ptr<std::vector<float>>> memory;
  MixtureOfExperts layer;
  uint32_t seed = 1;

  // Values in [-1, 1).
  std::vector<float>& numbers(int64_t n) {
    memory.push_back(std::make_unique<std::vector<float>>());
    for (int64_t i = 0; i < n; ++i) {
      seed = seed * 1664525U + 1013904223U;
      memory.back()->push_back(static_cast<float>(seed >> 8U) / float{1 << 23} - 1.0F);
    }
    return *memory.back();
  }
  Tensor matrix(int64_t out, int64_t in) {
    return {reinterpret_cast<const std::byte*>(numbers(out * in).data()), DType::kF32,
            Shape{out, in}};
  }
  Linear linear(int64_t out, int64_t in) { return {matrix(out, in), numbers(out).data()}; }

  Mixture(bool has_latent, bool has_shared) {
    const int64_t w = has_latent ? kLatent : kHidden;
    layer.router = {matrix(kExperts, kHidden), nullptr};
    layer.correction = numbers(kExperts).data();
    for (int64_t e = 0; e < kExperts; ++e) {
      layer.up.push_back(matrix(kWidth, w));
      layer.down.push_back(matrix(w, kWidth));
    }
    layer.has_latent = has_latent;
    if (has_latent) {
      layer.latent_in = linear(kLatent, kHidden);
      layer.latent_out = linear(kHidden, kLatent);
    }
    layer.has_shared = has_shared;
    if (has_shared) {
      layer.shared = {linear(7, kHidden), linear(kHidden, 7), Activation::kRelu2};
    }
    layer.routing = {.n_experts = kExperts, .n_chosen = 2, .scale = 1.5F};
  }
};

std::vector<double> product(const Linear& linear, const std::vector<double>& x) {
  const auto* w = reinterpret_cast<const float*>(linear.weight.data);
  std::vector<double> out;
  for (int64_t o = 0; o < linear.out(); ++o) {
    double sum = linear.bias != nullptr ? linear.bias[o] : 0;
    for (size_t i = 0; i < x.size(); ++i) {
      sum += double{w[static_cast<size_t>(o) * x.size() + i]} * x[i];
    }
    out.push_back(sum);
  }
  return out;
}

std::vector<double> mlp(const Linear& up, const Linear& down, const std::vector<double>& x) {
  std::vector<double> hidden = product(up, x);
  for (double& value : hidden) {
    value = value > 0 ? value * value : 0;
  }
  return product(down, hidden);
}

std::vector<double> expected(const MixtureOfExperts& layer, const float* row) {
  const std::vector<double> x(row, row + kHidden);
  std::vector<float> scores;
  for (const double value : product(layer.router, x)) {
    scores.push_back(static_cast<float>(value));
  }
  const std::vector<double> source = layer.has_latent ? product(layer.latent_in, x) : x;
  std::vector<double> sum(source.size());
  for (const ChosenExpert& pair : chosen(layer.routing, scores, layer.correction)) {
    const auto e = static_cast<size_t>(pair.expert);
    const std::vector<double> part = mlp({layer.up[e], nullptr}, {layer.down[e], nullptr}, source);
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += double{pair.weight} * part[i];
    }
  }
  if (layer.has_latent) {
    sum = product(layer.latent_out, sum);
  }
  if (layer.has_shared) {
    const std::vector<double> shared = mlp(layer.shared.up, layer.shared.down, x);
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += shared[i];
    }
  }
  return sum;
}

class MixtureLayer : public testing::TestWithParam<std::pair<bool, bool>> {};

TEST_P(MixtureLayer, IsTheWeightedSumOfItsExperts) {
  Mixture mixture(GetParam().first, GetParam().second);
  for (const std::string_view name : {"reference", "cpu"}) {
    const auto backend = make_backend(name);
    ASSERT_TRUE(backend) << backend.error().message;
    ThreadPool threads(2);
    ExecContext context{**backend, threads};
    constexpr int64_t kRows = 9;
    const std::vector<float> x = mixture.numbers(kRows * kHidden);
    const std::vector<float> before = mixture.numbers(kRows * kHidden);
    std::vector<float> together = before;
    mixture.layer.apply(context, kRows, x.data(), together.data());
    for (int64_t r = 0; r < kRows; ++r) {
      const std::vector<double> want = expected(mixture.layer, x.data() + r * kHidden);
      for (int64_t i = 0; i < kHidden; ++i) {
        const auto at = static_cast<size_t>(r * kHidden + i);
        // Three products of at most 7 terms below 50: float32 rounding stays below 1e-4.
        EXPECT_NEAR(together[at], double{before[at]} + want[static_cast<size_t>(i)], 1e-4)
            << name << ", row " << r;
      }
      std::vector<float> alone(before.begin() + r * kHidden, before.begin() + (r + 1) * kHidden);
      mixture.layer.apply(context, 1, x.data() + r * kHidden, alone.data());
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + r * kHidden))
          << name << ", row " << r << " depends on its neighbours";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Parts, MixtureLayer,
                         testing::Values(std::pair{false, false}, std::pair{false, true},
                                         std::pair{true, false}, std::pair{true, true}));

}  // namespace
}  // namespace logitlab
