#include "lab/coupling.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "sampling/sampler.h"

namespace logitlab {
namespace {

double equal_by_definition(const std::vector<CoupledToken>& tokens) {
  double equal = 0;
  for (const CoupledToken& own : tokens) {
    if (own.first <= 0 || own.second <= 0) {
      continue;
    }
    double sum = 0;
    for (const CoupledToken& other : tokens) {
      sum += std::max(other.first / own.first, other.second / own.second);
    }
    equal += 1 / sum;
  }
  return equal;
}

std::vector<CoupledToken> random_tokens(std::mt19937* random, size_t n) {
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<CoupledToken> tokens(n);
  for (CoupledToken& token : tokens) {
    token.first = uniform(*random) < 0.2 ? 0 : std::exp(4 * uniform(*random));
    token.second = uniform(*random) < 0.2 ? 0 : std::exp(4 * uniform(*random));
  }
  tokens.front() = {1, 1};
  return tokens;
}

TEST(Coupling, SortedSumIsTheFormula) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 300; ++trial) {
    const auto tokens = random_tokens(&random, 1 + trial % 40);
    const ChoiceDifference difference = choice_difference(tokens, {});
    EXPECT_NEAR(difference.shared.low, 1 - equal_by_definition(tokens), 1e-12) << trial;
    EXPECT_EQ(difference.shared.low, difference.shared.high);
    double p = 0;
    double q = 0;
    double both = 0;
    for (const CoupledToken& token : tokens) {
      p += token.first;
      q += token.second;
      both += token.first * token.second;
    }
    EXPECT_NEAR(difference.independent.low, 1 - both / (p * q), 1e-12);
    EXPECT_NEAR(difference.independent.high, 1 - both / (p * q), 1e-12);
  }
}

TEST(Coupling, CountsOfRealDrawsAgree) {
  std::mt19937 random(2);
  constexpr int kDraws = 40000;
  for (int trial = 0; trial < 5; ++trial) {
    const auto tokens = random_tokens(&random, 6);
    std::vector<float> first;
    std::vector<float> second;
    for (const CoupledToken& token : tokens) {
      first.push_back(static_cast<float>(std::log(token.first)));
      second.push_back(static_cast<float>(std::log(token.second)));
    }
    int differ = 0;
    for (uint32_t i = 0; i < kDraws; ++i) {
      const Draw draw{.seed = 7, .sequence_index = static_cast<uint32_t>(trial), .step = i};
      differ += sample(first, draw).value() != sample(second, draw).value() ? 1 : 0;
    }
    const double expected = choice_difference(tokens, {}).shared.low;
    // Five standard deviations of a count; a right formula misses that once in two million.
    const double bound = 5 * std::sqrt(expected * (1 - expected) / kDraws);
    EXPECT_NEAR(static_cast<double>(differ) / kDraws, expected, bound) << trial;
  }
}

TEST(Coupling, OneSidedChoicesNeedNoFormula) {
  // A greedy choice against a draw: they differ as often as the draw misses it.
  const std::vector<CoupledToken> tokens = {{0.5, 1}, {0.3, 0}, {0.2, 0}};
  EXPECT_NEAR(choice_difference(tokens, {}).shared.low, 0.5, 1e-15);
  EXPECT_NEAR(choice_difference(tokens, {}).independent.low, 0.5, 1e-15);
  const std::vector<CoupledToken> apart = {{1, 0}, {0, 1}};
  EXPECT_EQ(choice_difference(apart, {}).shared.low, 1);
  const std::vector<CoupledToken> same = {{0.5, 5}, {0.5, 5}};
  EXPECT_NEAR(choice_difference(same, {}).shared.high, 0, 1e-15);
  EXPECT_NEAR(choice_difference(same, {}).independent.high, 0.5, 1e-15);
}

// The truth, with some tokens hidden in the rest and some unsure, is inside the bounds.
TEST(Coupling, BoundsHoldTheTruth) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 500; ++trial) {
    auto tokens = random_tokens(&random, 12);
    const ChoiceDifference truth = choice_difference(tokens, {});
    std::vector<CoupledToken> seen(tokens.begin(), tokens.begin() + 8);
    CoupledRest rest;
    for (size_t i = 8; i < tokens.size(); ++i) {
      rest.first += tokens[i].first;
      rest.second_low += tokens[i].second;
    }
    rest.second_high = rest.second_low * 1.5;
    rest.second_low *= 0.5;
    // Unsure and really gone, or really there.
    seen[3].is_sure = false;
    seen[4].is_sure = false;
    const ChoiceDifference bounds = choice_difference(seen, rest);
    EXPECT_LE(bounds.shared.low, truth.shared.low + 1e-12) << trial;
    EXPECT_GE(bounds.shared.high, truth.shared.high - 1e-12) << trial;
    EXPECT_LE(bounds.independent.low, truth.independent.low + 1e-12) << trial;
    EXPECT_GE(bounds.independent.high, truth.independent.high - 1e-12) << trial;
    tokens[3].second = 0;
    const ChoiceDifference gone = choice_difference(tokens, {});
    EXPECT_LE(bounds.shared.low, gone.shared.low + 1e-12) << trial;
    EXPECT_GE(bounds.shared.high, gone.shared.high - 1e-12) << trial;
    EXPECT_LE(bounds.independent.low, gone.independent.low + 1e-12) << trial;
    EXPECT_GE(bounds.independent.high, gone.independent.high - 1e-12) << trial;
  }
}

TEST(Coupling, NothingLeftSaysNothing) {
  const std::vector<CoupledToken> tokens = {{1, 0}};
  EXPECT_EQ(choice_difference(tokens, {}).shared.low, 0);
  EXPECT_EQ(choice_difference(tokens, {}).shared.high, 1);
}

}  // namespace
}  // namespace logitlab
