#include "sampling/sampler.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "sampling/distribution.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

TEST(ArgMax, LowestIdAmongEquals) {  // G11
  EXPECT_EQ(arg_max(Row{1, 3, 3}), 1);
  EXPECT_EQ(arg_max(Row{kNan, 5, kNan}), 0);
  EXPECT_EQ(arg_max(Row{5, kNan, kPlusInfinity, kNan}), 1);
  EXPECT_EQ(arg_max(Row(4, kMinusInfinity)), 0);
  EXPECT_EQ(arg_max(Row{kMinusInfinity, -5}), 1);
  EXPECT_EQ(arg_max(Row{-0.0F, 0.0F}), 0);
}

// Computed from the definition in sampler.h by an independent program (Python, big integers).
TEST(Draw, KnownAnswers) {
  struct Case {
    Draw draw;
    TokenId id;
    double expected;
  };
  const Case cases[] = {
      {{.seed = 0, .sequence_index = 0, .step = 0}, 0, 0x1.0ff3272d9b9a1p+1},
      {{.seed = 0, .sequence_index = 0, .step = 0}, 1, 0x1.dc34c66c4fad3p-1},
      {{.seed = 1234, .sequence_index = 0, .step = 0}, 49151, 0x1.6db4fdbb71588p+1},
      {{.seed = 0xDEADBEEFCAFEF00DU, .sequence_index = 3, .step = 17},
       151935,
       0x1.e77f3dcb639acp-1},
      {{.seed = 0xFFFFFFFFFFFFFFFFU, .sequence_index = 0xFFFFFFFFU, .step = 0xFFFFFFFFU},
       std::numeric_limits<TokenId>::max(),
       0x1.bb679bf8a8e84p-3},
  };
  for (const Case& c : cases) {
    // log1p may differ in the last place between libraries.
    EXPECT_NEAR(draw_exponential(c.draw, c.id), c.expected, 1e-15 * c.expected) << c.id;
  }
}

TEST(Sample, KnownAnswers) {
  Row row(32);
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<float>(i * 7 % 32) / 4;
  }
  const Ids expected = {27, 4, 27, 13, 27, 31, 26, 27, 18, 18, 27, 18,
                        9,  8, 22, 27, 9,  27, 4,  13, 21, 13, 22, 18};
  for (uint32_t step = 0; step < expected.size(); ++step) {
    EXPECT_EQ(sample(row, {.seed = 42, .step = step}).value(), expected[step]) << step;
  }
  const Row flat(1000, 0.0F);
  const Ids expected_flat = {508, 864, 623, 146, 949, 101, 540, 932,
                             323, 57,  372, 554, 572, 200, 393, 190};
  for (uint32_t step = 0; step < expected_flat.size(); ++step) {
    EXPECT_EQ(sample(flat, {.seed = 7, .sequence_index = 2, .step = step}).value(),
              expected_flat[step])
        << step;
  }
}

// The definition without the short cuts.
TokenId sample_plainly(const Row& scores, const Draw& draw) {
  TokenId best = -1;
  double best_key = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] == kMinusInfinity) {
      continue;
    }
    const auto id = static_cast<TokenId>(i);
    const double key = static_cast<double>(scores[i]) - std::log(draw_exponential(draw, id));
    if (best < 0 || key > best_key) {
      best = id;
      best_key = key;
    }
  }
  return best;
}

TEST(Sample, ShortCutsChangeNothing) {
  uint32_t state = 5;
  const auto next = [&state] {
    state = state * 1664525U + 1013904223U;
    return static_cast<float>(state >> 8) * 0x1p-24F;
  };
  for (const float spread : {0.0F, 1.0F, 30.0F, 1e30F}) {
    for (uint32_t step = 0; step < 200; ++step) {
      Row row(300);
      for (float& score : row) {
        score = next() < 0.2F ? kMinusInfinity : next() * spread;
      }
      const Draw draw{.seed = 11, .sequence_index = 1, .step = step};
      EXPECT_EQ(sample(row, draw).value(), sample_plainly(row, draw)) << spread << " " << step;
    }
  }
}

// Chi-square of `n_draws` tokens against softmax(row); the seed is fixed, so the value is too.
double chi_square(const Row& row, uint64_t seed, uint32_t n_draws) {
  std::vector<double> counts(row.size());
  for (uint32_t step = 0; step < n_draws; ++step) {
    counts[static_cast<size_t>(sample(row, {.seed = seed, .step = step}).value())] += 1;
  }
  const auto probabilities = softmax_probabilities(row);
  double sum = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double expected = probabilities[i] * n_draws;
    if (expected > 0) {
      sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    } else {
      EXPECT_EQ(counts[i], 0);
    }
  }
  return sum;
}

TEST(Sample, FollowsTheSoftmax) {
  // Bounds: the 0.999 quantile of chi-square with n - 1 degrees of freedom.
  for (const uint64_t seed : {1U, 2U, 3U}) {
    EXPECT_LT(chi_square(row_a(), seed, 100000), 16.27);                         // 3
    EXPECT_LT(chi_square({3, 3, 1, kMinusInfinity, -2}, seed, 100000), 16.27);   // 3
    EXPECT_LT(chi_square(Row(20, -7.0F), seed, 100000), 43.82);                  // 19
    EXPECT_LT(chi_square({0, 1, 2, 3, 4, 5, 6, 7, 8, 3}, seed, 100000), 27.88);  // 9
  }
}

TEST(Sample, TheChiSquareTestSeesAWrongDistribution) {
  // Draws from row A judged by a slightly different row are far outside.
  std::vector<double> counts(4);
  for (uint32_t step = 0; step < 100000; ++step) {
    counts[static_cast<size_t>(sample(row_a(), {.seed = 1, .step = step}).value())] += 1;
  }
  const auto wrong = softmax_probabilities(Row{2, 1.05F, 0, -1});
  double sum = 0;
  for (size_t i = 0; i < 4; ++i) {
    sum += (counts[i] - wrong[i] * 1e5) * (counts[i] - wrong[i] * 1e5) / (wrong[i] * 1e5);
  }
  EXPECT_GT(sum, 40);
}

TEST(Sample, TiesAreEven) {  // W7
  int n_first = 0;
  for (uint32_t step = 0; step < 10000; ++step) {
    const TokenId id = sample(Row{3, 3, kMinusInfinity}, {.seed = 9, .step = step}).value();
    ASSERT_LT(id, 2);
    n_first += id == 0 ? 1 : 0;
  }
  EXPECT_NEAR(n_first, 5000, 165);  // 3.3 standard deviations
}

TEST(Sample, SeedSequenceAndStepEachChangeTheDraw) {
  const Row flat(5000, 0.0F);
  const auto drawn = [&flat](const Draw& draw) { return sample(flat, draw).value(); };
  const TokenId base = drawn({.seed = 1, .sequence_index = 0, .step = 0});
  EXPECT_EQ(base, drawn({.seed = 1, .sequence_index = 0, .step = 0}));
  EXPECT_NE(base, drawn({.seed = 2, .sequence_index = 0, .step = 0}));
  EXPECT_NE(base, drawn({.seed = 1ULL << 32 | 1, .sequence_index = 0, .step = 0}));
  EXPECT_NE(base, drawn({.seed = 1, .sequence_index = 1, .step = 0}));
  EXPECT_NE(base, drawn({.seed = 1, .sequence_index = 0, .step = 1}));
}

TEST(Sample, RemovingLosersAndShiftingScoresKeepTheChoice) {
  for (uint32_t step = 0; step < 100; ++step) {
    const Draw draw{.seed = 3, .step = step};
    Row row(64);
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = static_cast<float>(i % 8);
    }
    const TokenId chosen = sample(row, draw).value();
    Row shifted = row;
    for (float& score : shifted) {
      score += 16;
    }
    EXPECT_EQ(sample(shifted, draw).value(), chosen);
    for (size_t i = step % 3; i < row.size(); i += 3) {
      if (static_cast<TokenId>(i) != chosen) {
        row[i] = kMinusInfinity;
      }
    }
    EXPECT_EQ(sample(row, draw).value(), chosen);
  }
}

TEST(Sample, RefusesWhatIsNoDistribution) {
  for (const Row& row : {Row{1, kNan, 2}, Row{1, kPlusInfinity}, Row(3, kMinusInfinity)}) {
    const auto result = sample(row, {});
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_NE(sample(Row{1, kNan, 2}, {}).error().message.find("token 1"), std::string::npos);
}

}  // namespace
}  // namespace logitlab
