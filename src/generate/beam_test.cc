// Beam search: the cases B1 to B13 of the reference, by their ids, and what they leave open.
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "generate/toy_model.h"

namespace logitlab {
namespace {

using Ids = std::vector<TokenId>;
constexpr double kTolerance = 1e-4;  // the cases are printed with four places

const std::vector<double> kUniform(5, 0.2);

TableModel model_t() {
  return model_of_probabilities({{.02, .06, .50, .40, .02},
                                 kUniform,
                                 {.02, .10, .25, .60, .03},
                                 {.02, .55, .30, .10, .03},
                                 kUniform});
}

GenerationConfig two_beams(EarlyStopping early, double length_penalty) {
  GenerationConfig config;
  config.num_beams = 2;
  config.num_return_sequences = 2;
  config.max_new_tokens = 4;
  config.eos_token_id = Ids{1};
  config.pad_token_id = 4;
  config.early_stopping = early;
  config.length_penalty = length_penalty;
  return config;
}

struct Expected {
  Ids ids;
  double score;
};

void expect_beams(const Result<GenerationResult>& result, const std::vector<Expected>& expected) {
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->sequences.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(result->sequences[i].ids, expected[i].ids) << i;
    EXPECT_NEAR(result->sequences[i].beam_score, expected[i].score, kTolerance) << i;
    EXPECT_EQ(result->sequences[i].beam_indices.size(), expected[i].ids.size()) << i;
  }
}

TEST(BeamCases, B1) {
  ToyFixture f;
  expect_beams(f.run(model_t(), {0}, two_beams(EarlyStopping::kTrue, 0)),
               {{{3, 1}, -1.5141}, {{2, 3, 1}, -1.8018}});
}

TEST(BeamCases, B2_B3a) {
  ToyFixture f;
  for (const EarlyStopping early : {EarlyStopping::kTrue, EarlyStopping::kFalse}) {
    const TableModel model = model_t();
    const auto result = f.run(model, {0}, two_beams(early, 1));
    expect_beams(result, {{{2, 3, 1}, -.6006}, {{3, 1}, -.7571}});
    EXPECT_EQ(result->sequences[0].beam_indices, (std::vector<int64_t>{0, 0, 0}));
    EXPECT_EQ(result->sequences[1].beam_indices, (std::vector<int64_t>{0, 1}));
    EXPECT_EQ(model.calls(), 3) << "three steps, the prompt's included";
    EXPECT_EQ(result->sequences[0].stop_reason, StopReason::kEos);
    EXPECT_EQ(result->sequences[0].stop_id, 1);
  }
}

TEST(BeamCases, B3b) {
  ToyFixture f;
  const TableModel model = model_t();
  const auto result = f.run(model, {0}, two_beams(EarlyStopping::kNever, 1));
  expect_beams(result, {{{2, 3, 1}, -.6006}, {{2, 3, 2, 3}, -.7297}});
  EXPECT_EQ(model.calls(), 4);
  EXPECT_EQ(result->sequences[1].stop_reason, StopReason::kLength);
  EXPECT_EQ(result->beam_stop, "every candidate stops");
}

TEST(BeamCases, B4_B11) {
  ToyFixture f;
  const auto full = f.run(model_t(), {0}, two_beams(EarlyStopping::kTrue, 2));
  expect_beams(full, {{{2, 3, 1}, -.2002}, {{3, 1}, -.3785}});
  EXPECT_EQ(full->beam_stop, "num_beams hypotheses are finished");
  for (const EarlyStopping early : {EarlyStopping::kFalse, EarlyStopping::kNever}) {
    expect_beams(f.run(model_t(), {0}, two_beams(early, 2)),
                 {{{2, 3, 2, 3}, -.1824}, {{2, 2, 3, 1}, -.1993}});
  }
}

TEST(BeamCases, B5_AnEndTokenOfLowRankIsDropped) {
  ToyFixture f;
  const TableModel model = model_of_probabilities({{.01, .20, .45, .33, .01},
                                                   kUniform,
                                                   {.02, .28, .35, .33, .02},
                                                   {.02, .30, .34, .32, .02},
                                                   kUniform});
  GenerationConfig config = two_beams(EarlyStopping::kFalse, 0);
  config.max_new_tokens = 2;
  expect_beams(f.run(model, {0}, config), {{{2, 2}, -1.8483}, {{2, 3}, -1.9072}});
}

TEST(BeamCases, B6_PadIsNotPartOfASequence) {
  ToyFixture f;
  GenerationConfig config = two_beams(EarlyStopping::kTrue, 1);
  config.pad_token_id = 0;
  expect_beams(f.run(model_t(), {0}, config), {{{2, 3, 1}, -.6006}, {{3, 1}, -.7571}});
}

TEST(BeamCases, B7_TwoEndTokensKeepThreeCandidatesABeam) {
  ToyFixture f;
  GenerationConfig config = two_beams(EarlyStopping::kFalse, 1);
  config.eos_token_id = Ids{1, 3};
  expect_beams(f.run(model_t(), {0}, config), {{{2, 3}, -.6020}, {{3}, -.9163}});
}

TEST(BeamCases, B8) {
  ToyFixture f;
  GenerationConfig config = two_beams(EarlyStopping::kFalse, 1);
  config.max_new_tokens = 1;
  const auto result = f.run(model_t(), {0}, config);
  expect_beams(result, {{{2}, -.6931}, {{3}, -.9163}});
  EXPECT_EQ(result->beam_stop, "every candidate stops");
  config.max_new_tokens = 2;
  expect_beams(f.run(model_t(), {0}, config), {{{2, 3}, -.6020}, {{3, 1}, -.7571}});
}

TEST(BeamCases, B9_ThreeBeams) {
  ToyFixture f;
  GenerationConfig config = two_beams(EarlyStopping::kTrue, 1);
  config.num_beams = 3;
  config.num_return_sequences = 3;
  config.max_new_tokens = 3;
  expect_beams(f.run(model_t(), {0}, config),
               {{{2, 3, 1}, -.6006}, {{3, 1}, -.7571}, {{2, 3, 2}, -.8026}});
}

TEST(BeamCases, B10_PromptsAreSearchedByThemselves) {
  ToyFixture f;
  GenerationConfig config = two_beams(EarlyStopping::kTrue, 1);
  config.num_return_sequences = 1;
  const auto result = f.run_all(model_t(), {{0}, {3}}, config);
  expect_beams(result, {{{2, 3, 1}, -.6006}, {{1}, -.5978}});
  EXPECT_EQ(result->sequences[1].prompt, 1);
  EXPECT_EQ(result->sequences[1].beam_indices, (std::vector<int64_t>{0}));
}

TEST(BeamCases, B12_NoEndToken) {
  ToyFixture f;
  const TableModel model(std::vector<std::vector<float>>(4, {2, 1, 0, -1}));
  GenerationConfig config = two_beams(EarlyStopping::kFalse, 1);
  config.eos_token_id.reset();
  config.max_new_tokens = 2;
  const auto result = f.run(model, {1}, config);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->sequences[0].ids, (Ids{0, 0}));
  EXPECT_EQ(result->sequences[1].ids, (Ids{0, 1}));
}

TEST(BeamCases, B13_StopStringsFinishHypotheses) {
  ToyFixture f;
  const TableModel model({{0, .1F, 3, 2}, {0, 0, 1, 2}, {0, .1F, 2, 3.5F}, {0, .1F, 2, 1}});
  const ToyTexts texts({{0, ""}, {1, ""}, {2, "st"}, {3, "op"}});
  GenerateOptions options;
  options.token_texts = &texts;
  for (const EarlyStopping early :
       {EarlyStopping::kFalse, EarlyStopping::kTrue, EarlyStopping::kNever}) {
    GenerationConfig config = two_beams(early, 1);
    config.eos_token_id.reset();
    config.max_new_tokens = 5;
    config.stop_strings = {{"stop"}};
    const auto result = f.run(model, {0}, config, options);
    expect_beams(result, {{{2, 3}, -.3196}, {{3, 2, 3}, -.7139}});
    EXPECT_EQ(result->sequences[0].stop_reason, StopReason::kStopString);
  }
}

TEST(Beams, AreWhatTheyAreAlone) {
  ToyFixture f;
  const std::vector<std::vector<TokenId>> prompts = {{0}, {3, 2}, {2, 0, 4}, {4}};
  for (const bool samples : {false, true}) {
    GenerationConfig config = two_beams(EarlyStopping::kFalse, 0.5);
    config.do_sample = samples;
    config.seed = 11;
    const auto together = f.run_all(model_t(), prompts, config);
    ASSERT_TRUE(together) << together.error().message;
    for (size_t i = 0; i < prompts.size(); ++i) {
      GenerateOptions options;
      options.sequence_index = static_cast<uint32_t>(i);
      const auto alone = f.run(model_t(), prompts[i], config, options);
      ASSERT_TRUE(alone);
      for (size_t j = 0; j < 2; ++j) {
        EXPECT_EQ(together->sequences[2 * i + j].ids, alone->sequences[j].ids);
        EXPECT_EQ(together->sequences[2 * i + j].beam_score, alone->sequences[j].beam_score);
      }
    }
  }
}

TEST(Beams, ReadThePromptOnceAndRunAllBeamsTogether) {
  ToyFixture f;
  const TableModel model = model_t();
  GenerationConfig config = two_beams(EarlyStopping::kNever, 1);
  config.eos_token_id.reset();
  ASSERT_TRUE(f.run(model, {0, 2, 3}, config));
  EXPECT_EQ(model.calls(), 4);
  EXPECT_EQ(model.rows(), 3 + 3 * 2) << "the prompt once, then two beams a step";
}

TEST(Beams, LeaveTheStateOfTheCallerAsItWas) {
  ToyFixture f;
  const TableModel model = model_t();
  DecodeState state = model.make_state();
  const Ids start = {0, 2};
  const SequenceChunk chunk{&state, start, LogitRows::kNone};
  ASSERT_TRUE(model.forward(f.context, {&chunk, 1}));
  const Ids prompt = {0, 2, 0};
  const PromptInput input{prompt, &state};
  const auto result =
      generate(f.context, model, {&input, 1},
               merge_generation_config(two_beams(EarlyStopping::kTrue, 1), {}).config, {});
  expect_beams(result, {{{2, 3, 1}, -.6006}, {{3, 1}, -.7571}});
  EXPECT_EQ(result->reused_prompt_tokens, 2);
  EXPECT_EQ(state.length(), 2);
}

TEST(Beams, SampledOnesRepeatForASeedAndDifferForAnother) {
  ToyFixture f;
  const TableModel flat(std::vector<std::vector<float>>(16, std::vector<float>(16, 0.0F)));
  GenerationConfig config{.do_sample = true, .seed = 3, .max_new_tokens = 12};
  config.num_beams = 3;
  config.num_return_sequences = 3;
  const auto once = f.run(flat, {0}, config);
  const auto again = f.run(flat, {0}, config);
  config.seed = 4;
  const auto other = f.run(flat, {0}, config);
  ASSERT_TRUE(once && again && other);
  EXPECT_EQ(once->sequences[2].ids, again->sequences[2].ids);
  EXPECT_NE(once->first().ids, other->first().ids);
}

// The K candidates of the first step are drawn without replacement from softmax(logits).
TEST(Beams, SampledFirstTokensFollowTheirProbabilities) {
  ToyFixture f;
  const TableModel model = model_t();
  GenerationConfig config = two_beams(EarlyStopping::kFalse, 0);
  config.do_sample = true;
  config.top_k = 0;
  config.eos_token_id.reset();
  config.max_new_tokens = 1;
  // With one step the pool takes the first two draws, so the share of runs that return id i is the
  // chance that it is the first or second of two draws without replacement.
  const std::vector<double> p = {.02, .06, .50, .40, .02};
  std::vector<double> expected(p.size(), 0);
  for (size_t i = 0; i < p.size(); ++i) {
    expected[i] = p[i];
    for (size_t j = 0; j < p.size(); ++j) {
      expected[i] += j == i ? 0 : p[j] * p[i] / (1 - p[j]);
    }
  }
  constexpr int kRuns = 4000;
  std::vector<int> seen(p.size(), 0);
  for (int seed = 0; seed < kRuns; ++seed) {
    config.seed = static_cast<uint64_t>(seed);
    const auto result = f.run(model, {0}, config);
    ASSERT_TRUE(result);
    for (const SequenceResult& sequence : result->sequences) {
      ++seen[static_cast<size_t>(sequence.ids.front())];
    }
  }
  for (size_t i = 0; i < p.size(); ++i) {
    // Six standard deviations of a binomial; the seeds are fixed.
    const double deviation = std::sqrt(kRuns * expected[i] * (1 - expected[i]));
    EXPECT_NEAR(seen[i], kRuns * expected[i], 6 * deviation) << i;
  }
}

TEST(Beams, RefuseWhatCannotRunBeforeAnyWork) {
  ToyFixture f;
  const TableModel model = model_t();
  GenerationConfig config = two_beams(EarlyStopping::kFalse, 1);
  config.eos_token_id = Ids{0, 1, 2, 3, 4};
  const auto result = f.run(model, {0}, config);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("num_beams: 2 found with 5 end tokens"), std::string::npos)
      << result.error().message;
  config = two_beams(EarlyStopping::kFalse, 1);
  config.num_return_sequences = 3;
  EXPECT_FALSE(f.run(model, {0}, config));
  config.num_beams = 1;
  EXPECT_FALSE(f.run(model, {0}, config)) << "several sequences of one greedy run are all the same";
  EXPECT_EQ(model.calls(), 0);
}

TEST(Beams, CancelledOnesGiveWhatTheyHave) {
  ToyFixture f;
  int asked = 0;
  GenerateOptions options;
  options.is_cancelled = [&] { return ++asked > 2; };  // once before the prompt, once after a step
  GenerationConfig config = two_beams(EarlyStopping::kNever, 0);
  config.eos_token_id.reset();
  const auto result = f.run(model_t(), {0}, config, options);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().stop_reason, StopReason::kCancelled);
  EXPECT_EQ(result->first().ids, (Ids{2, 3}));
  EXPECT_EQ(result->beam_stop, "cancelled");
}

TEST(Beams, TellTheTraceWhereEveryTokenCameFrom) {
  ToyFixture f;
  CollectedTrace trace;
  GenerateOptions options;
  options.trace.sink = &trace;
  const auto result = f.run(model_t(), {0}, two_beams(EarlyStopping::kTrue, 1), options);
  ASSERT_TRUE(result);
  EXPECT_TRUE(trace.steps.empty());
  ASSERT_EQ(trace.beam_steps.size(), 3U);
  const TracedBeamStep& second = trace.beam_steps[1];
  ASSERT_EQ(second.candidates.size(), 4U);
  // 2-3, 3-end, 2-2, 3-2, as the reference works it out.
  EXPECT_EQ(second.candidates[1].id, 1);
  EXPECT_EQ(second.candidates[1].parent, 1);
  EXPECT_NEAR(second.candidates[1].score, std::log(.22), kTolerance);
  EXPECT_EQ(second.candidate_stops, (std::vector<bool>{false, true, false, false}));
  ASSERT_EQ(second.running.size(), 2U);
  EXPECT_EQ(second.running[1].id, 2);
  ASSERT_EQ(second.finished.size(), 1U);
  EXPECT_NEAR(second.finished[0], std::log(.22) / 2, kTolerance);
  EXPECT_TRUE(second.improvable);
  EXPECT_EQ(trace.last.beam_stop, "num_beams hypotheses are finished");
  EXPECT_EQ(trace.last.sequences[0].beam_indices, (std::vector<int64_t>{0, 0, 0}));
  EXPECT_NEAR(trace.last.sequences[0].beam_score, -.6006, kTolerance);
}

}  // namespace
}  // namespace logitlab
