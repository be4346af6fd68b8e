// The greedy and stopping cases of the reference (G1 to G17), by their ids. Prompts are never
// padded here: the cases of padding and of masks (G14 to G17) say what holds in their place.
#include <limits>
#include <optional>

#include <gtest/gtest.h>

#include "generate/toy_model.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

using Ids = std::vector<TokenId>;

Ids ids_of(const Result<GenerationResult>& result) {
  EXPECT_TRUE(result) << result.error().message;
  return result ? result->first().ids : Ids{};
}

GenerationConfig with_end(int64_t max_new_tokens) {
  return {.max_new_tokens = max_new_tokens, .eos_token_id = Ids{1}, .pad_token_id = 0};
}

TEST(DecodingCases, G1) {
  ToyFixture f;
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, with_end(6))), (Ids{2, 3, 1}));
}

TEST(DecodingCases, G2_PromptsOfSeveralLengthsEndByThemselves) {
  ToyFixture f;
  const auto result = f.run_all(model_m(), {{2, 0}, {2}, {3}}, with_end(6));
  ASSERT_TRUE(result);
  ASSERT_EQ(result->sequences.size(), 3U);
  EXPECT_EQ(result->sequences[0].ids, (Ids{2, 3, 1}));
  EXPECT_EQ(result->sequences[1].ids, (Ids{3, 1}));
  EXPECT_EQ(result->sequences[2].ids, (Ids{1}));
  EXPECT_EQ(result->sequences[2].prompt, 2);
  EXPECT_EQ(result->prompt_tokens, 4);
  EXPECT_EQ(result->new_tokens(), 6);
}

TEST(DecodingCases, G3) {
  ToyFixture f;
  GenerationConfig config = with_end(6);
  config.min_new_tokens = 4;
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, config)), (Ids{2, 3, 0, 2, 3, 1}));
  config = with_end(6);
  config.min_length = 5;
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, config)), (Ids{2, 3, 0, 2, 3, 1}));
}

TEST(DecodingCases, G4_MinNewTokensWinsOverMinLength) {
  ToyFixture f;
  GenerationConfig config = with_end(6);
  config.min_length = 9;
  config.min_new_tokens = 1;
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, config)), (Ids{2, 3, 1}));
}

TEST(DecodingCases, G5) {
  ToyFixture f;
  GenerationConfig config = with_end(6);
  config.eos_token_id = Ids{1, 3};
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, config)), (Ids{2, 3}));
}

TEST(DecodingCases, G6_ForcedEos) {
  ToyFixture f;
  GenerationConfig config = with_end(2);
  config.forced_eos_token_id = Ids{1};
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, config)), (Ids{2, 1}));
}

TEST(DecodingCases, G7_SuppressedTokens) {
  ToyFixture f;
  GenerationConfig config = with_end(3);
  config.suppress_tokens = Ids{3};
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, config)), (Ids{2, 0, 2}));
  config = with_end(3);
  config.begin_suppress_tokens = Ids{2};
  EXPECT_EQ(ids_of(f.run(model_m(), {0}, config)), (Ids{0, 2, 3}));
}

// Without an end token transformers keeps a row going until all have stopped; here a sequence is
// what it is alone.
TEST(DecodingCases, G8_StopStringsMayBeginInThePrompt) {
  ToyFixture f;
  const TableModel model({{0, 0, 5, 0}, {5, 0, 0, 0}, {0, 0, 0, 5}, {0, 0, 5, 0}});
  const ToyTexts texts({{0, ""}, {1, ""}, {2, "st"}, {3, "op"}});
  GenerateOptions options;
  options.token_texts = &texts;
  for (const std::optional<Ids>& end : {std::optional<Ids>(Ids{1}), std::optional<Ids>()}) {
    GenerationConfig config = with_end(5);
    config.eos_token_id = end;
    config.stop_strings = {{"stop"}};
    const auto result = f.run_all(model, {{0, 2}, {0, 3}}, config, options);
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_EQ(result->sequences[0].ids, (Ids{3}));
    EXPECT_EQ(result->sequences[1].ids, (Ids{2, 3}));
    EXPECT_EQ(result->sequences[0].stop_reason, StopReason::kStopString);
    EXPECT_EQ(result->sequences[0].stop_string, "stop");
  }
}

TEST(DecodingCases, G9_G10_Lengths) {
  ToyFixture f;
  TableModel model = model_m();
  EXPECT_EQ(ids_of(f.run(model, {0, 2}, {})).size(), 20U);
  model.set_max_positions(10);
  EXPECT_EQ(ids_of(f.run(model, {0, 2}, {})).size(), 8U);
  EXPECT_EQ(ids_of(f.run(model, {0, 2}, {.max_length = 6})).size(), 4U);
  EXPECT_EQ(ids_of(f.run(model, {0, 2}, {.max_new_tokens = 5, .max_length = 3})).size(), 5U);
}

TEST(DecodingCases, G11_ArgMax) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(arg_max(std::vector<float>{1, 3, 3}), 1);
  EXPECT_EQ(arg_max(std::vector<float>{kNan, 5, kNan}), 0);
  EXPECT_EQ(arg_max(std::vector<float>{-kInf, -kInf}), 0);
}

TEST(DecodingCases, G12_RoundedLogitsTie) {
  ToyFixture f;
  const TableModel model(std::vector<std::vector<float>>(4, {10.01F, 10.02F, 0, 0}));
  GenerationConfig config{.max_new_tokens = 1};
  EXPECT_EQ(ids_of(f.run(model, {2}, config)), (Ids{1}));
  config.logits_dtype = LogitsDtype::kBfloat16;
  EXPECT_EQ(ids_of(f.run(model, {2}, config)), (Ids{0}));
}

// transformers guesses a mask from pad ids and then leaves real ids equal to pad out. Without
// padding there is nothing to guess: all ids are read whatever pad is, as in G15.
TEST(DecodingCases, G14_G15_EveryIdOfAPromptIsRead) {
  ToyFixture f;
  for (const std::optional<TokenId> pad :
       {std::optional<TokenId>(0), std::optional<TokenId>(1), std::optional<TokenId>()}) {
    const TableModel model = model_m();
    GenerationConfig config = with_end(6);
    config.pad_token_id = pad;
    const auto result = f.run_all(model, {{2, 0}, {0, 2}, {0, 3}}, config);
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_EQ(result->prompt_tokens, 6);
    EXPECT_EQ(result->sequences[0].ids, (Ids{2, 3, 1}));
    EXPECT_EQ(result->sequences[1].ids, (Ids{3, 1}));
    EXPECT_EQ(result->sequences[2].ids, (Ids{1}));
    // The prompts, then one row for every token but the last of each.
    EXPECT_EQ(model.rows(), 6 + 2 + 1 + 0);
  }
}

TEST(DecodingCases, G16_PositionsCountTheOwnPrompt) {
  ToyFixture f;
  const TableModel model = model_m();
  const Ids one = {2};
  const Ids three = {2, 3, 0};
  DecodeState short_state = model.make_state();
  DecodeState long_state = model.make_state();
  const std::vector<PromptInput> prompts = {{one, &short_state}, {three, &long_state}};
  const auto config = merge_generation_config({.max_new_tokens = 2}, {}).config;
  ASSERT_TRUE(generate(f.context, model, prompts, config, {}));
  EXPECT_EQ(short_state.length(), 2) << "its first new token is at position 1";
  EXPECT_EQ(long_state.length(), 4);
}

TEST(DecodingCases, G17_ScoresOfTheChosenTokens) {
  ToyFixture f;
  CollectedTrace trace;
  GenerateOptions options;
  options.trace.sink = &trace;
  ASSERT_TRUE(f.run_all(model_m(), {{2}, {3}}, with_end(6), options));
  std::vector<std::vector<double>> scores(2);
  for (const TracedStep& step : trace.steps) {
    scores[static_cast<size_t>(step.sequence)].push_back(step.score);
  }
  EXPECT_EQ(scores[0], (std::vector<double>{5, 5}));
  EXPECT_EQ(scores[1], (std::vector<double>{5})) << "no padding follows, so it has no score";
}

}  // namespace
}  // namespace logitlab
