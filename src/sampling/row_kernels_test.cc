#include "sampling/row_kernels.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "hwy/highway.h"
#include <gtest/gtest.h>

namespace logitlab {
namespace {

constexpr size_t kBlocks = 37;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Spread as logits are, with ties at the top, tokens far below and forbidden ones.
std::vector<float> random_scores() {
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal(0, 6);
  std::vector<float> scores(kBlocks * kRowBlock);
  for (size_t i = 0; i < scores.size(); ++i) {
    scores[i] = i % 11 == 0 ? -kInf : i % 97 == 0 ? -300.0F : normal(random);
  }
  scores[70] = 31.5F;
  scores[1000] = 31.5F;
  return scores;
}

struct Passes {
  RowMaxima found;
  RowSums sums;
  std::vector<float> maxima = std::vector<float>(kBlocks);
  std::vector<float> exponentials = std::vector<float>(kBlocks * kRowBlock);
  std::vector<double> block_sums = std::vector<double>(kBlocks);
};

Passes run(const std::vector<float>& scores, float largest) {
  Passes passes;
  find_maxima(scores.data(), kBlocks, passes.maxima.data(), &passes.found);
  sum_exponentials(scores.data(), kBlocks, largest, passes.exponentials.data(),
                   passes.block_sums.data(), &passes.sums);
  return passes;
}

// Every instruction set of this machine in turn.
template <typename Visit>
void for_each_target(const Visit& visit) {
  const int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;
  for (int64_t rest = supported; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    visit(hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

TEST(RowKernels, AgreeWithDoubleArithmetic) {
  const std::vector<float> scores = random_scores();
  const Passes passes = run(scores, 31.5F);
  double sum = 0;
  double weighted = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double difference = static_cast<double>(scores[i]) - 31.5;
    const double want = std::exp(difference);
    if (difference < -87) {
      EXPECT_EQ(passes.exponentials[i], 0.0F) << i;
    } else {
      EXPECT_NEAR(static_cast<double>(passes.exponentials[i]) / want, 1, 2e-7) << i;
      weighted += want * difference;
    }
    sum += want;
  }
  // 2e-7 of an exponential and five additions of 2^-24 each; the sums in double add nothing.
  EXPECT_NEAR(passes.sums.sum / sum, 1, 5e-7);
  EXPECT_NEAR(passes.sums.weighted / weighted, 1, 1e-6);
}

TEST(RowKernels, SameBitsOnEveryInstructionSet) {
  const std::vector<float> scores = random_scores();
  const Passes want = run(scores, 31.5F);
  int n_targets = 0;
  for_each_target([&](const char* name) {
    const Passes got = run(scores, 31.5F);
    EXPECT_EQ(got.found.n_alive, want.found.n_alive) << name;
    EXPECT_EQ(got.maxima, want.maxima) << name;
    EXPECT_EQ(got.exponentials, want.exponentials) << name;
    EXPECT_EQ(got.block_sums, want.block_sums) << name;
    EXPECT_EQ(std::bit_cast<uint64_t>(got.sums.sum), std::bit_cast<uint64_t>(want.sums.sum))
        << name;
    EXPECT_EQ(std::bit_cast<uint64_t>(got.sums.weighted),
              std::bit_cast<uint64_t>(want.sums.weighted))
        << name;
    ++n_targets;
  });
  EXPECT_GE(n_targets, 1);
}

TEST(RowKernels, MaximaLeaveNanOutAndCountWhatIsAlive) {
  for_each_target([](const char* name) {
    std::vector<float> scores(2 * kRowBlock, -kInf);
    scores[3] = kNan;
    scores[5] = 2;
    scores[63] = -4;
    RowMaxima found;
    std::vector<float> maxima(2);
    find_maxima(scores.data(), 2, maxima.data(), &found);
    EXPECT_TRUE(found.has_nan) << name;
    EXPECT_EQ(found.n_alive, 3) << name;
    EXPECT_EQ(maxima, (std::vector<float>{2, -kInf})) << name;
    scores[3] = kInf;
    found = {};
    find_maxima(scores.data(), 2, maxima.data(), &found);
    EXPECT_FALSE(found.has_nan) << name;
    EXPECT_EQ(maxima[0], kInf) << name;
  });
}

TEST(RowKernels, CountsOfAnyLength) {
  const std::vector<float> scores = random_scores();
  for_each_target([&](const char* name) {
    for (const size_t n : {0, 1, 15, 63, 64, 65, 1003}) {
      std::vector<float> row(scores.begin(), scores.begin() + static_cast<std::ptrdiff_t>(n));
      if (n > 2) {
        row[n / 2] = kNan;
      }
      int64_t n_dead = 0;
      int64_t n_at_most = 0;
      for (const float score : row) {
        n_dead += score == -kInf ? 1 : 0;
        n_at_most += score <= 1.5F ? 1 : 0;
      }
      EXPECT_EQ(count_equal(row, -kInf), n_dead) << name << " " << n;
      EXPECT_EQ(count_at_most(row, 1.5F), n_at_most) << name << " " << n;
    }
  });
}

}  // namespace
}  // namespace logitlab
