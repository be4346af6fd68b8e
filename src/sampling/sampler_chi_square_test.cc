// Draws follow softmax of the processed scores: chi-square over 1e5 draws for every filter. Seeds
// are fixed, so each outcome is always the same.
#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sampling/effective_config.h"
#include "sampling/processor_chain.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

constexpr int kDraws = 100000;
// A right sampler stays above it in all but one of a million sets of seeds.
constexpr double kSmallestPValue = 1e-6;

// Upper tail of the chi-square distribution by the Wilson-Hilferty cube root, good to a few percent
// of the p-value's logarithm from 3 degrees of freedom on.
double p_value(double statistic, int freedom) {
  const double k = freedom;
  const double z = (std::cbrt(statistic / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
  return 0.5 * std::erfc(z / std::sqrt(2.0));
}

TEST(PValue, AgreesWithTables) {
  EXPECT_NEAR(p_value(7.815, 3), 0.05, 0.005);
  EXPECT_NEAR(p_value(18.307, 10), 0.05, 0.005);
  EXPECT_NEAR(p_value(66.77, 20) / 6.2e-7, 1, 0.5);
}

std::vector<float> test_logits() {
  std::vector<float> logits;
  for (int id = 0; id < 24; ++id) {
    logits.push_back(static_cast<float>(3 * std::sin(1.7 * id) - 0.05 * id));
  }
  return logits;
}

struct FilterCase {
  std::string name;
  GenerationConfig config;
};

void PrintTo(const FilterCase& tested, std::ostream* out) {
  *out << tested.name;
}

std::vector<FilterCase> filter_cases() {
  // top_k is on by default: 0 leaves each filter alone.
  return {{"none", {.top_k = 0}},
          {"temperature", {.temperature = 0.8, .top_k = 0}},
          {"top_k", {.top_k = 7}},
          {"top_p", {.top_k = 0, .top_p = 0.85}},
          {"min_p", {.top_k = 0, .min_p = 0.05}},
          {"typical_p", {.top_k = 0, .typical_p = 0.8}},
          {"epsilon_cutoff", {.top_k = 0, .epsilon_cutoff = 0.02}},
          {"eta_cutoff", {.top_k = 0, .eta_cutoff = 0.1}},
          {"top_h", {.top_h = 0.8, .top_k = 0}},
          {"all together", {.temperature = 1.4, .top_k = 12, .top_p = 0.9, .min_p = 0.02}}};
}

class ChiSquare : public ::testing::TestWithParam<FilterCase> {};

TEST_P(ChiSquare, OfAHundredThousandDraws) {
  GenerationConfig config = GetParam().config;
  config.do_sample = true;
  std::vector<float> scores = test_logits();
  const auto n = static_cast<int64_t>(scores.size());
  auto chain =
      build_chain(merge_generation_config(config, {}).config, ChainOptions{.vocab_size = n});
  ASSERT_TRUE(chain) << chain.error().message;
  const std::vector<TokenId> ids = {0};
  chain->apply(scores, {ids, 1});
  double sum = 0;
  for (const float score : scores) {
    sum += std::exp(static_cast<double>(score));
  }
  std::vector<int> seen(scores.size(), 0);
  for (int draw = 0; draw < kDraws; ++draw) {
    const auto id =
        sample(scores, {.seed = 20, .sequence_index = 3, .step = static_cast<uint32_t>(draw)});
    ASSERT_TRUE(id);
    ++seen[static_cast<size_t>(*id)];
  }
  double statistic = 0;
  int kept = 0;
  for (size_t id = 0; id < scores.size(); ++id) {
    const double expected = kDraws * std::exp(static_cast<double>(scores[id])) / sum;
    if (expected == 0) {
      EXPECT_EQ(seen[id], 0) << "a dropped token was drawn: " << id;
      continue;
    }
    ASSERT_GT(expected, 5) << "the statistic wants more draws of " << id;
    ++kept;
    statistic += (seen[id] - expected) * (seen[id] - expected) / expected;
  }
  ASSERT_GE(kept, 4);
  if (GetParam().name != "none" && GetParam().name != "temperature") {
    EXPECT_LT(kept, n) << "the filter dropped nothing";
  }
  EXPECT_GT(p_value(statistic, kept - 1), kSmallestPValue) << statistic << " of " << kept;
}

INSTANTIATE_TEST_SUITE_P(Filters, ChiSquare, ::testing::ValuesIn(filter_cases()),
                         [](const ::testing::TestParamInfo<FilterCase>& tested) {
                           std::string name = tested.param.name;
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

// Draws over steps, over sequences and over seeds are each as good as the other.
TEST(ChiSquareOf, SeedsAndSequences) {
  const std::vector<float> scores(8, 0.0F);
  for (const bool over_seeds : {false, true}) {
    std::vector<int> seen(scores.size(), 0);
    for (uint32_t i = 0; i < kDraws; ++i) {
      const auto id = over_seeds ? sample(scores, {.seed = i}) : sample(scores, {9, i, 0});
      ASSERT_TRUE(id);
      ++seen[static_cast<size_t>(*id)];
    }
    double statistic = 0;
    for (const int n : seen) {
      statistic += std::pow(n - kDraws / 8.0, 2) / (kDraws / 8.0);
    }
    EXPECT_GT(p_value(statistic, 7), kSmallestPValue);
  }
}

TEST(BeamDraws, AreExponentialAndNotThoseOfTokens) {
  double sum = 0;
  for (uint32_t i = 0; i < kDraws; ++i) {
    sum += draw_beam_exponential({5, 0, i}, i % 97);
  }
  // The mean of an exponential is 1, its deviation 1: six standard errors.
  EXPECT_NEAR(sum / kDraws, 1, 6 / std::sqrt(kDraws));
  EXPECT_NE(draw_beam_exponential({5, 0, 1}, 6), draw_exponential({5, 0, 1}, 6));
  EXPECT_NE(draw_beam_exponential({5, 0, 1}, 6), draw_beam_exponential({5, 0, 1}, 7));
  EXPECT_EQ(draw_beam_exponential({5, 0, 1}, 7), draw_beam_exponential({5, 0, 1}, 7));
}

}  // namespace
}  // namespace logitlab
