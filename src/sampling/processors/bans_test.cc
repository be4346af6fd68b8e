// What forbids tokens, what forces them, and when.
#include <gtest/gtest.h>

#include "sampling/processors/forced_tokens.h"
#include "sampling/processors/min_length.h"
#include "sampling/processors/no_repeat_ngram.h"
#include "sampling/processors/remove_invalid_values.h"
#include "sampling/processors/suppress_tokens.h"
#include "sampling/processors/thinking_budget.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

Row applied(LogitsProcessor&& processor, Row row, const Ids& ids, int64_t prompt_length = 1) {
  processor.apply(row, SequenceView{.ids = ids, .prompt_length = prompt_length});
  return row;
}
Ids kept_after(LogitsProcessor&& processor, const Ids& ids, size_t vocab_size = 8,
               int64_t prompt_length = 1) {
  return kept_ids(applied(std::move(processor), Row(vocab_size), ids, prompt_length));
}

TEST(NoRepeatNgram, BansWhatWouldCompleteAGroup) {
  EXPECT_EQ(kept_after(NoRepeatNgram(3), {1, 2, 3, 1, 2}), (Ids{0, 1, 2, 4, 5, 6, 7}));
  EXPECT_EQ(kept_after(NoRepeatNgram(2), {5, 6, 5}), (Ids{0, 1, 2, 3, 4, 5, 7}));
  EXPECT_EQ(kept_after(NoRepeatNgram(1), {1, 3}, 4), (Ids{0, 2}));
  EXPECT_EQ(kept_after(NoRepeatNgram(4), {1, 3}, 4), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept_after(NoRepeatNgram(2), {0, 0}, 2), (Ids{1}));
  EXPECT_EQ(kept_after(NoRepeatNgram(2), {}, 2), (Ids{0, 1}));
  EXPECT_EQ(kept_after(NoRepeatNgram(1), {0}, 1), (Ids{}));
  // An id beyond the row is not banned.
  EXPECT_EQ(kept_after(NoRepeatNgram(1), {9, -1}, 2), (Ids{0, 1}));
}

TEST(NoRepeatNgram, AHugeSizeBansNothing) {
  EXPECT_EQ(kept_after(NoRepeatNgram(std::numeric_limits<int64_t>::max()), {1, 1, 1}, 2),
            (Ids{0, 1}));
}

TEST(EncoderNoRepeatNgram, LooksForGroupsInThePromptAlone) {
  EXPECT_EQ(kept_after(EncoderNoRepeatNgram(2), {1, 2, 3, 1}, 4, 3), (Ids{0, 1, 3}));
  // 3 1 stands in the answer, so nothing is banned after 3.
  EXPECT_EQ(kept_after(EncoderNoRepeatNgram(2), {1, 2, 3, 1, 3}, 4, 3), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept_after(EncoderNoRepeatNgram(1), {1, 2, 3}, 4, 2), (Ids{0, 3}));
  EXPECT_EQ(kept_after(EncoderNoRepeatNgram(5), {1, 2, 3}, 4, 3), (Ids{0, 1, 2, 3}));
}

TEST(MinLength, CountsThePrompt) {
  EXPECT_EQ(kept_after(MinLength(3, {1, 99, -1}), {0, 0}, 3), (Ids{0, 2}));
  EXPECT_EQ(kept_after(MinLength(3, {1}), {0, 0, 0}, 3), (Ids{0, 1, 2}));
}

TEST(ForcedBos, AfterASingleToken) {
  EXPECT_EQ(applied(ForcedBos(2), {7, kNan, 1}, {5}), (Row{kMinusInfinity, kMinusInfinity, 0}));
  EXPECT_EQ(applied(ForcedBos(2), {7, 8, 1}, {5, 6}), (Row{7, 8, 1}));
}

TEST(ForcedEos, OneBeforeTheLimit) {
  EXPECT_EQ(applied(ForcedEos({1, 2}, 3), {7, 8, 1}, {5, 6}), (Row{kMinusInfinity, 0, 0}));
  EXPECT_EQ(applied(ForcedEos({1, 2}, 3), {7, 8, 1}, {5}), (Row{7, 8, 1}));
  EXPECT_EQ(applied(ForcedEos({1, 2}, 3), {7, 8, 1}, {5, 6, 7}), (Row{7, 8, 1}));
}

TEST(SuppressTokens, AlwaysOrAtTheBeginning) {
  EXPECT_EQ(kept_after(SuppressTokens({1, 3, -1, 100}), {0, 0}, 4), (Ids{0, 2}));
  EXPECT_EQ(kept_after(BeginSuppressTokens({1, 3}, 2), {0, 0}, 4), (Ids{0, 2}));
  EXPECT_EQ(kept_after(BeginSuppressTokens({1, 3}, 2), {0, 0, 0}, 4), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(SuppressTokens({1}).kind(), ProcessorKind::kFilter);
}

TEST(RemoveInvalidValues, ReplacesThem) {
  const float largest = std::numeric_limits<float>::max();
  EXPECT_EQ(applied(RemoveInvalidValues(), {kNan, kPlusInfinity, kMinusInfinity, 1}, {0}),
            (Row{0, largest, -largest, 1}));
}

TEST(ThinkingBudget, ClosesAfterSoManyTokens) {
  const ThinkingIds marks{.open = 2, .close = 3};
  const Row closed = {kMinusInfinity, kMinusInfinity, kMinusInfinity, 0};
  const Row row = {1, 2, 3, -4};
  EXPECT_EQ(applied(ThinkingBudget(2, marks), row, {0, 2, 1, 1}, 1), closed);
  EXPECT_EQ(applied(ThinkingBudget(2, marks), row, {0, 2, 1, 1, 1}, 1), closed);
  EXPECT_EQ(applied(ThinkingBudget(2, marks), row, {0, 2, 1}, 1), row);
  // The mark may stand in the prompt.
  EXPECT_EQ(applied(ThinkingBudget(2, marks), row, {0, 2, 1, 1}, 3), closed);
  // A budget of 0 closes at once.
  EXPECT_EQ(applied(ThinkingBudget(0, marks), row, {0, 2}, 2), closed);
  // Closed, never opened, nothing there; and opened again.
  EXPECT_EQ(applied(ThinkingBudget(0, marks), row, {2, 1, 3}, 1), row);
  EXPECT_EQ(applied(ThinkingBudget(0, marks), row, {1, 1}, 1), row);
  EXPECT_EQ(applied(ThinkingBudget(0, marks), row, {}, 0), row);
  EXPECT_EQ(applied(ThinkingBudget(2, marks), row, {2, 1, 1, 3, 2, 1}, 1), row);
  EXPECT_EQ(applied(ThinkingBudget(2, marks), row, {2, 3, 2, 1, 1}, 1), closed);
}

}  // namespace
}  // namespace logitlab
