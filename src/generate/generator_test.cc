#include "generate/generator.h"

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "generate/toy_model.h"

namespace logitlab {
namespace {

using Ids = std::vector<TokenId>;

TEST(Generate, StopsAtTheEndTokenAndKeepsIt) {
  ToyFixture f;
  const auto result = f.run(model_m(), {0}, {.max_new_tokens = 6, .eos_token_id = Ids{1}});
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->first().ids, (Ids{2, 3, 1}));
  EXPECT_EQ(result->first().stop_reason, StopReason::kEos);
  EXPECT_EQ(result->first().stop_id, 1);
}

TEST(Generate, AnyOfSeveralEndTokensStops) {
  ToyFixture f;
  const auto result = f.run(model_m(), {0}, {.max_new_tokens = 6, .eos_token_id = Ids{1, 3}});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().ids, (Ids{2, 3}));
  EXPECT_EQ(result->first().stop_id, 3);
}

TEST(Generate, BansEndTokensBeforeMinNewTokens) {
  ToyFixture f;
  const auto result =
      f.run(model_m(), {0}, {.max_new_tokens = 6, .min_new_tokens = 4, .eos_token_id = Ids{1}});
  ASSERT_TRUE(result);
  // Banning id 1 leaves a tie of zeros, which the lowest id wins.
  EXPECT_EQ(result->first().ids, (Ids{2, 3, 0, 2, 3, 1}));
}

TEST(Generate, StopsAtTheLength) {
  ToyFixture f;
  auto result = f.run(model_m(), {0, 2}, {.max_new_tokens = 2, .eos_token_id = Ids{1}});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().ids.size(), 2U);  // the end token comes second and wins over the length
  EXPECT_EQ(result->first().stop_reason, StopReason::kEos);
  result = f.run(model_m(), {0}, {.max_new_tokens = 2, .eos_token_id = Ids{1}});
  EXPECT_EQ(result->first().stop_reason, StopReason::kLength);
  result = f.run(model_m(), {0}, {.max_length = 3});
  EXPECT_EQ(result->first().ids.size(), 2U);
  result = f.run(model_m(), {0}, {});
  EXPECT_EQ(result->first().ids.size(), 20U) << "transformers generates 20 tokens when nobody says";
}

TEST(Generate, RefusesWhatCannotRun) {
  ToyFixture f;
  EXPECT_EQ(f.run(model_m(), {}, {}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(f.run(model_m(), {0, 7}, {}).error().message.find("token id 7 at position 1"),
            std::string::npos);
  EXPECT_FALSE(f.run(model_m(), {0}, {.max_new_tokens = 0}));
  EXPECT_FALSE(f.run(model_m(), {0}, {.max_length = 1}));
  EXPECT_FALSE(f.run(model_m(), {0}, {.do_sample = true, .temperature = 0.0}));
}

TEST(Generate, SamplesTheSameTokensForTheSameSeed) {
  ToyFixture f;
  const TableModel flat(std::vector<std::vector<float>>(16, std::vector<float>(16, 0.0F)));
  const auto once = f.run(flat, {0}, {.do_sample = true, .seed = 3, .max_new_tokens = 40});
  const auto again =
      f.run(flat, {0}, {.do_sample = true, .seed = 3, .max_new_tokens = 40}, {.prefill_chunk = 1});
  const auto other = f.run(flat, {0}, {.do_sample = true, .seed = 4, .max_new_tokens = 40});
  const auto neighbour =
      f.run(flat, {0}, {.do_sample = true, .seed = 3, .max_new_tokens = 40}, {.sequence_index = 1});
  ASSERT_TRUE(once && again && other && neighbour);
  EXPECT_EQ(once->first().ids, again->first().ids);
  EXPECT_NE(once->first().ids, other->first().ids);
  EXPECT_NE(once->first().ids, neighbour->first().ids);
}

TEST(Generate, ReportsEveryStepAndCanBeStopped) {
  ToyFixture f;
  std::vector<TokenId> seen;
  GenerateOptions options;
  options.on_step = [&](const StepEvent& event) {
    EXPECT_EQ(event.step, static_cast<int64_t>(seen.size()));
    EXPECT_EQ(event.logits.size(), 4U);
    EXPECT_EQ(event.scores.size(), 4U);
    seen.push_back(event.id);
    return seen.size() < 2;
  };
  const auto result = f.run(model_m(), {0}, {.max_new_tokens = 6}, options);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().stop_reason, StopReason::kCancelled);
  EXPECT_EQ(result->first().ids, seen);
}

TEST(Generate, CancelledBeforeThePromptIsReadGivesNoTokens) {
  ToyFixture f;
  GenerateOptions options;
  options.is_cancelled = [] { return true; };
  const auto result = f.run(model_m(), {0}, {}, options);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->first().ids.empty());
  EXPECT_EQ(result->first().stop_reason, StopReason::kCancelled);
}

TEST(Generate, ContinuesAStateAndLeavesItBeforeTheLastToken) {
  ToyFixture f;
  const TableModel model = model_m();
  DecodeState state = model.make_state();
  const GenerationConfig config = merge_generation_config({.max_new_tokens = 2}, {}).config;
  const std::vector<TokenId> prompt = {0, 1, 2};
  const PromptInput input{prompt, &state};
  auto result = generate(f.context, model, {&input, 1}, config, {});
  ASSERT_TRUE(result);
  EXPECT_EQ(state.length(), 4);
  state.truncate(2);
  result = generate(f.context, model, {&input, 1}, config, {});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->reused_prompt_tokens, 2);
  EXPECT_EQ(result->first().ids, (Ids{3, 1}));
}

}  // namespace
}  // namespace logitlab
