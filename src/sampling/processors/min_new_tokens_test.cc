#include "sampling/processors/min_new_tokens.h"

#include <gtest/gtest.h>

#include "sampling/test_rows.h"

namespace logitlab {
namespace {

Ids survivors_after(int64_t prompt_length, int64_t generated, MinNewTokens processor) {
  Row row(5, 1.0F);
  const Ids ids(static_cast<size_t>(prompt_length + generated), 4);
  processor.apply(row, SequenceView{.ids = ids, .prompt_length = prompt_length});
  return kept_ids(row);
}

TEST(MinNewTokens, BansTheEndTokensUntilEnoughAreGenerated) {
  const MinNewTokens processor(2, {1, 3});
  EXPECT_EQ(survivors_after(3, 0, processor), (Ids{0, 2, 4}));
  EXPECT_EQ(survivors_after(3, 1, processor), (Ids{0, 2, 4}));
  EXPECT_EQ(survivors_after(3, 2, processor), (Ids{0, 1, 2, 3, 4}));
}

TEST(MinNewTokens, ThePromptDoesNotCount) {
  EXPECT_EQ(survivors_after(100, 1, MinNewTokens(2, {0})), (Ids{1, 2, 3, 4}));
}

TEST(MinNewTokens, SkipsIdsOutsideTheVocabulary) {
  EXPECT_EQ(survivors_after(1, 0, MinNewTokens(2, {-1, 5, 2000000000, 2})), (Ids{0, 1, 3, 4}));
}

}  // namespace
}  // namespace logitlab
