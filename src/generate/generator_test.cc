#include "generate/generator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>
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

TEST(Generate, ForksTheStateWhereThePromptIsMarked) {
  ToyFixture f;
  const TableModel model = model_m();
  const GenerationConfig config = merge_generation_config({.max_new_tokens = 2}, {}).config;
  const std::vector<TokenId> prompt = {0, 1, 2, 3, 0, 1, 2};
  for (const int64_t chunk : {1, 2, 3, 512}) {
    for (int64_t mark = 0; mark <= 8; ++mark) {
      DecodeState state = model.make_state();
      ASSERT_TRUE(state.reserve(2));
      state.advance(2);
      std::optional<DecodeState> at_mark;
      const PromptInput input{prompt, &state, mark, &at_mark};
      const auto result = generate(f.context, model, {&input, 1}, config, {.prefill_chunk = chunk});
      ASSERT_TRUE(result);
      EXPECT_EQ(result->first().ids, (Ids{3, 1}));
      EXPECT_EQ(state.length(), 8);
      const bool is_met = mark > 2 && mark <= 7;
      ASSERT_EQ(at_mark.has_value(), is_met) << mark;
      if (is_met) {
        EXPECT_EQ(at_mark->length(), mark) << "chunks of " << chunk;
      }
    }
  }
}

TEST(Generate, SequencesOfABatchAreWhatTheyAreAlone) {
  ToyFixture f;
  std::vector<std::vector<float>> table(12, std::vector<float>(12));
  for (size_t i = 0; i < 144; ++i) {
    table[i / 12][i % 12] = static_cast<float>((i * 37) % 23) / 7.0F;
  }
  const TableModel model(table);
  const std::vector<std::vector<TokenId>> prompts = {{0}, {3, 2, 5}, {7, 7}};
  const GenerationConfig config{.do_sample = true,
                                .temperature = 0.9,
                                .top_p = 0.95,
                                .seed = 5,
                                .repetition_penalty = 1.1,
                                .max_new_tokens = 15,
                                .eos_token_id = Ids{4}};
  const auto together = f.run_all(model, prompts, config);
  ASSERT_TRUE(together) << together.error().message;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto alone =
        f.run(model, prompts[i], config, {.sequence_index = static_cast<uint32_t>(i)});
    ASSERT_TRUE(alone);
    EXPECT_EQ(together->sequences[i].ids, alone->first().ids) << i;
    EXPECT_EQ(together->sequences[i].stop_reason, alone->first().stop_reason) << i;
  }
}

TEST(Generate, SeveralSequencesReadTheirPromptOnce) {
  ToyFixture f;
  const TableModel flat(std::vector<std::vector<float>>(16, std::vector<float>(16, 0.0F)));
  GenerationConfig config{.do_sample = true, .seed = 3, .max_new_tokens = 5};
  config.num_return_sequences = 4;
  const auto result = f.run_all(flat, {{1, 2, 3}, {4}}, config);
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->sequences.size(), 8U);
  EXPECT_EQ(flat.calls(), 2 + 4) << "each prompt once, then one pass a step for all sequences";
  EXPECT_EQ(flat.rows(), 4 + 4 * 8);
  EXPECT_EQ(result->sequences[3].prompt, 0);
  EXPECT_EQ(result->sequences[4].prompt, 1);
  EXPECT_NE(result->sequences[0].ids, result->sequences[1].ids);
  const auto second = f.run(flat, {1, 2, 3}, {.do_sample = true, .seed = 3, .max_new_tokens = 5},
                            {.sequence_index = 1});
  ASSERT_TRUE(second);
  EXPECT_EQ(result->sequences[1].ids, second->first().ids);
}

TEST(Generate, StopsWhenTheTimeIsOver) {
  ToyFixture f;
  GenerationConfig config{.max_new_tokens = 6};
  config.max_time = 1e-12;
  const auto result = f.run(model_m(), {0}, config);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->first().ids, (Ids{2})) << "one token is always generated";
  EXPECT_EQ(result->first().stop_reason, StopReason::kTime);
}

TEST(Generate, RefusesBadSettingsBeforeAnyModelWork) {
  ToyFixture f;
  const TableModel model = model_m();
  GenerationConfig config{.max_new_tokens = 3};
  config.sequence_bias = {{{7}, 1.0}};
  EXPECT_FALSE(f.run(model, {0}, config)) << "an id outside the vocabulary";
  config = {.max_new_tokens = 3};
  config.stop_strings = {{"x"}};
  EXPECT_FALSE(f.run(model, {0}, config)) << "stop strings without texts of tokens";
  config = {.max_new_tokens = 3};
  config.guidance_scale = 2;
  config.negative_prompt_ids = Ids{9};
  const auto refused = f.run(model, {0}, config);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("negative_prompt_ids: token id 9"), std::string::npos);
  EXPECT_FALSE(f.run_all(model, {}, {}));
  EXPECT_EQ(model.calls(), 0);
}

TEST(Generate, GuidanceWeighsTheUnguidedSequence) {
  ToyFixture f;
  // Case P17 of the reference: guided [2, 0], unguided [0, 0], scale 2: the first wins by more.
  const TableModel model({{0, 0}, {2, 0}});
  GenerationConfig config{.max_new_tokens = 1};
  config.guidance_scale = 2;
  config.negative_prompt_ids = Ids{1, 0};
  std::vector<float> scores;
  GenerateOptions options;
  options.on_step = [&](const StepEvent& event) {
    scores.assign(event.scores.begin(), event.scores.end());
    return true;
  };
  ASSERT_TRUE(f.run(model, {0, 1}, config, options));
  ASSERT_EQ(scores.size(), 2U);
  EXPECT_NEAR(scores[0], 0.43929, 1e-5);
  EXPECT_NEAR(scores[1], -3.56071, 1e-5);
  // Without a negative prompt the last prompt token is all that the unguided side sees.
  config.negative_prompt_ids.reset();
  ASSERT_TRUE(f.run(model, {0, 1}, config, options));
  EXPECT_NEAR(scores[0] - scores[1], 2, 1e-5) << "both sides are the same: nothing changes";
}

TEST(Generate, RefusesMoreSequencesThanTheMemoryHolds) {
  ToyFixture f;
  const TableModel model = model_m();
  for (const int64_t n : {int64_t{1} << 45, std::numeric_limits<int64_t>::max()}) {
    GenerationConfig config{.do_sample = true, .max_new_tokens = 2};
    config.num_return_sequences = n;
    auto refused = f.run(model, {0}, config);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
    EXPECT_EQ(refused.error().message.find("num_return_sequences: " + std::to_string(n)), 0U)
        << refused.error().message;
    EXPECT_NE(refused.error().message.find("GiB are missing"), std::string::npos);
    config.num_return_sequences = 1;
    config.num_beams = n;
    refused = f.run(model, {0}, config);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
    EXPECT_EQ(refused.error().message.find("num_beams: "), 0U) << refused.error().message;
  }
  EXPECT_EQ(model.calls(), 0);
}

// Takes the best token's place: the token after it in the vocabulary always wins.
class NextToken final : public LogitsProcessor {
 public:
  [[nodiscard]] std::string_view name() const override { return "next_token"; }
  void apply(std::span<float> scores, const SequenceView& /*sequence*/) override {
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    scores[static_cast<size_t>(best + 1) % scores.size()] = 100;
  }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override {
    return std::make_unique<NextToken>(*this);
  }
};

TEST(Generate, RunsTheCallersProcessors) {
  ToyFixture f;
  const NextToken next;
  const std::array<const LogitsProcessor*, 1> processors = {&next};
  GenerateOptions options;
  options.processors = processors;
  const TableModel model = model_m();
  for (const int64_t beams : {1, 2}) {
    GenerationConfig config{.max_new_tokens = 3};
    config.num_beams = beams;
    const auto result = f.run_all(model, {{0}, {1}}, config, options);
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_EQ(result->sequences[0].ids, (Ids{3, 2, 0})) << beams << " beams";
    EXPECT_EQ(result->sequences[1].ids, (Ids{0, 3, 2})) << beams << " beams";
  }
  const int64_t calls = model.calls();
  CollectedTrace trace;
  options.trace.sink = &trace;
  const auto refused = f.run(model, {0}, {}, options);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("next_token"), std::string::npos);
  EXPECT_EQ(model.calls(), calls);
}

TEST(Generate, TellsTheTraceEverything) {
  ToyFixture f;
  CollectedTrace trace;
  GenerateOptions options;
  options.trace.sink = &trace;
  options.trace.n_candidates = 2;
  options.trace.run.model = "toy";
  options.trace.piece = [](TokenId id) { return "<" + std::to_string(id) + ">"; };
  options.thinking = ThinkingIds{2, 3};
  GenerationConfig config{.do_sample = true, .top_k = 2, .seed = 8, .max_new_tokens = 4};
  config.num_return_sequences = 2;
  const auto result = f.run(model_m(), {0}, config, options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(trace.n_begun, 1);
  EXPECT_EQ(trace.n_ended, 1);
  EXPECT_EQ(trace.run.model, "toy");
  EXPECT_EQ(trace.run.seed, 8U);
  EXPECT_EQ(trace.run.vocab_size, 4);
  EXPECT_EQ(trace.run.prompts, (std::vector<Ids>{{0}}));
  EXPECT_EQ(trace.run.sequence_prompts, (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(trace.run.think_close, 3);
  ASSERT_EQ(trace.steps.size(), 8U);
  std::vector<Ids> traced(2);
  int64_t n_thinking = 0;
  for (const TracedStep& step : trace.steps) {
    EXPECT_EQ(step.step, static_cast<int64_t>(traced[static_cast<size_t>(step.sequence)].size()));
    traced[static_cast<size_t>(step.sequence)].push_back(step.id);
    EXPECT_FALSE(std::isnan(step.draw));
    ASSERT_FALSE(step.stages.empty());
    EXPECT_EQ(step.stages.front().name, "top_k");
    n_thinking += step.is_thinking ? 1 : 0;
  }
  EXPECT_EQ(traced[0], result->sequences[0].ids);
  EXPECT_EQ(traced[1], result->sequences[1].ids);
  EXPECT_EQ(n_thinking,
            result->sequences[0].thinking_tokens + result->sequences[1].thinking_tokens);
  ASSERT_EQ(trace.last.sequences.size(), 2U);
  EXPECT_EQ(trace.last.sequences[1].ids, result->sequences[1].ids);
  EXPECT_EQ(trace.last.sequences[1].stop_reason, "length");
  ASSERT_FALSE(trace.last.pieces.empty());
  EXPECT_EQ(trace.last.pieces.front().second, "<0>");
}

}  // namespace
}  // namespace logitlab
