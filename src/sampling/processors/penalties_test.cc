// Penalties and biases: what they touch, what they leave, what the sequence may be.
#include <gtest/gtest.h>

#include "sampling/processors/exponential_decay.h"
#include "sampling/processors/openai_penalties.h"
#include "sampling/processors/repetition_penalty.h"
#include "sampling/processors/sequence_bias.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

Row applied(LogitsProcessor& processor, Row row, const Ids& ids, int64_t prompt_length) {
  processor.apply(row, SequenceView{.ids = ids, .prompt_length = prompt_length});
  return row;
}
Row applied(LogitsProcessor&& processor, const Row& row, const Ids& ids, int64_t prompt_length) {
  return applied(processor, row, ids, prompt_length);
}

TEST(RepetitionPenalty, ActsOncePerTokenOfPromptAndAnswer) {
  EXPECT_EQ(applied(RepetitionPenalty(2.0), {2, -1, 0.5F, 3}, {0, 1, 1, 0}, 1),
            (Row{1, -2, 0.5F, 3}));
  EXPECT_EQ(applied(RepetitionPenalty(2.0), {0, -0.0F}, {0, 1}, 1), (Row{0, 0}));
  EXPECT_EQ(applied(RepetitionPenalty(2.0), {5}, {}, 0), (Row{5}));
  // Ids that the row does not have change nothing.
  EXPECT_EQ(applied(RepetitionPenalty(2.0), {4}, {-1, 7, 0}, 0), (Row{2}));
}

TEST(RepetitionPenalty, KeepsBansAndInvalidScores) {
  const Row row =
      applied(RepetitionPenalty(2.0), {kMinusInfinity, kNan, kPlusInfinity}, {0, 1, 2}, 1);
  EXPECT_EQ(row[0], kMinusInfinity);
  EXPECT_TRUE(std::isnan(row[1]));
  EXPECT_EQ(row[2], kPlusInfinity);
}

TEST(RepetitionPenalty, IsRightForAnySequenceInAnyOrder) {
  // As beams do: the sequence grows, shrinks, is another one, and the row changes its size.
  RepetitionPenalty penalty(2.0);
  EXPECT_EQ(applied(penalty, {4, 4, 4}, {0, 1}, 1), (Row{2, 2, 4}));
  EXPECT_EQ(applied(penalty, {4, 4, 4}, {2}, 1), (Row{4, 4, 2}));
  EXPECT_EQ(applied(penalty, {4, 4, 4}, {2}, 1), (Row{4, 4, 2}));
  EXPECT_EQ(applied(penalty, {4, 4, 4, 4, 4}, {4, 2}, 1), (Row{4, 4, 2, 4, 2}));
  EXPECT_EQ(applied(penalty, {4, 4}, {1}, 1), (Row{4, 2}));
}

TEST(RepetitionPenalty, AWindowCountsFromTheEnd) {
  EXPECT_EQ(applied(RepetitionPenalty(2.0, 2), {4, 4, 4}, {0, 1, 2}, 1), (Row{4, 2, 2}));
  EXPECT_EQ(applied(RepetitionPenalty(2.0, 9), {4, 4, 4}, {0, 1}, 1), (Row{2, 2, 4}));
}

TEST(EncoderRepetitionPenalty, FavoursThePromptAlone) {
  EXPECT_EQ(applied(EncoderRepetitionPenalty(2.0), {2, -1, 3}, {0, 1, 0, 2}, 2),
            (Row{4, -0.5F, 3}));
}

TEST(OpenAiPenalties, CountTheAnswerAlone) {
  const Ids ids = {0, 0, 1, 2, 2, 2};
  EXPECT_EQ(applied(FrequencyPenalty(0.5), {1, 1, 1, 1}, ids, 2), (Row{1, 0.5F, -0.5F, 1}));
  EXPECT_EQ(applied(PresencePenalty(0.5), {1, 1, 1, 1}, ids, 2), (Row{1, 0.5F, 0.5F, 1}));
  // Below 0 it rewards.
  EXPECT_EQ(applied(FrequencyPenalty(-2), {1, 1, 1, 1}, ids, 2), (Row{1, 3, 7, 1}));
  EXPECT_EQ(applied(FrequencyPenalty(1), {1}, {0}, 1), (Row{1}));
  EXPECT_EQ(applied(PresencePenalty(1), {1}, {5, -3}, 0), (Row{1}));
}

TEST(OpenAiPenalties, CountAnewEveryTime) {
  FrequencyPenalty penalty(1);
  EXPECT_EQ(applied(penalty, {0, 0}, {0, 1, 1}, 1), (Row{0, -2}));
  EXPECT_EQ(applied(penalty, {0, 0}, {0, 1}, 1), (Row{0, -1}));
  EXPECT_EQ(applied(penalty, {0, 0, 0}, {0, 2}, 1), (Row{0, 0, -1}));
}

TEST(OpenAiPenalties, AWindowCountsThePromptToo) {
  EXPECT_EQ(applied(FrequencyPenalty(1, 3), {0, 0, 0}, {0, 0, 1, 2}, 2), (Row{-1, -1, -1}));
  EXPECT_EQ(applied(PresencePenalty(1, 3), {0, 0, 0}, {0, 1, 1, 2}, 2), (Row{0, -1, -1}));
}

TEST(LogitBias, IsAddedAtEveryStep) {
  EXPECT_EQ(applied(LogitBias({{0, -100}, {2, 1.5}}), {1, 1, kMinusInfinity}, {0}, 1),
            (Row{-99, 1, kMinusInfinity}));
}

TEST(SequenceBias, SumsWhatEndsInTheSameToken) {
  const std::vector<SequenceBias> biases = {{{1, 2}, -5}, {{3}, 2}, {{4, 1, 2}, 1}};
  EXPECT_EQ(applied(SequenceBiasProcessor(biases), Row(5), {0, 4, 1}, 1), (Row{0, 0, -4, 2, 0}));
  EXPECT_EQ(applied(SequenceBiasProcessor(biases), Row(5), {4, 1}, 1), (Row{0, 0, -5, 2, 0}));
}

TEST(SequenceBias, WaitsUntilTheTextIsAsLongAsTheSequence) {
  const std::vector<SequenceBias> biases = {{{1, 2}, -5}};
  EXPECT_EQ(applied(SequenceBiasProcessor(biases), Row(3), {1}, 1), (Row{0, 0, 0}));
  EXPECT_EQ(applied(SequenceBiasProcessor(biases), Row(3), {0, 1}, 1), (Row{0, 0, -5}));
}

TEST(SequenceBias, TheLastOfEqualSequencesHoldsAndCallsDoNotAddUp) {
  SequenceBiasProcessor processor({{{1}, 3}, {{2}, 1}, {{1}, -1}});
  EXPECT_EQ(applied(processor, Row(3), {0}, 1), (Row{0, -1, 1}));
  EXPECT_EQ(applied(processor, Row(3), {0}, 1), (Row{0, -1, 1}));
  EXPECT_EQ(applied(processor, Row(4), {0}, 1), (Row{0, -1, 1, 0}));
}

TEST(BadWords, BanTheLastTokenAndSpareTheEndTokens) {
  const std::vector<TokenIds> words = {{3}, {1, 2}};
  EXPECT_EQ(kept_ids(applied(BadWords(words, {}), Row(5), {4, 1}, 1)), (Ids{0, 1, 4}));
  EXPECT_EQ(kept_ids(applied(BadWords(words, {}), Row(5), {1}, 1)), (Ids{0, 1, 2, 4}));
  EXPECT_EQ(kept_ids(applied(BadWords(words, {3, 2}), Row(5), {4, 1}, 1)), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(BadWords(words, {}).kind(), ProcessorKind::kFilter);
}

TEST(ExponentialDecay, BeginsAfterStartAndGrows) {
  const ExponentialDecay decay{.start = 1, .factor = 1.5};
  const auto score = [&decay](int64_t generated, float before) {
    return applied(ExponentialDecayLengthPenalty(decay, {1}), {0, before},
                   Ids(static_cast<size_t>(2 + generated), 0), 2)[1];
  };
  EXPECT_EQ(score(1, -2), -2.0F);
  EXPECT_EQ(score(2, -2), -1.0F);
  EXPECT_EQ(score(3, -2), 0.5F);
  EXPECT_EQ(score(2, 4), 6.0F);
  EXPECT_EQ(score(2, 0), 0.0F);
  // A start below 0, however far, is past.
  EXPECT_EQ(applied(ExponentialDecayLengthPenalty(
                        {.start = std::numeric_limits<int64_t>::min(), .factor = 0.5}, {1}),
                    {0, 4}, {0, 0}, 2),
            (Row{0, 0}));
  // As in transformers: -inf + inf.
  EXPECT_TRUE(std::isnan(score(2, kMinusInfinity)));
}

TEST(ExponentialDecay, ActsOnceOnAnIdThatIsListedTwice) {
  EXPECT_EQ(
      applied(ExponentialDecayLengthPenalty({.start = 0, .factor = 2}, {1, 1}), {1, 1}, {0, 0}, 1),
      (Row{1, 2}));
}

}  // namespace
}  // namespace logitlab
