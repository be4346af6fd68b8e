#include "generate/stop_strings.h"

#include <gtest/gtest.h>

#include "generate/thinking.h"
#include "generate/toy_model.h"

namespace logitlab {
namespace {

// Whether the last of `pieces` completes one of `strings` after the others.
bool stops(const std::vector<std::string>& strings, const std::vector<std::string>& pieces) {
  std::map<TokenId, std::string> texts = {{99, "stop"}};  // so that the strings can end
  std::vector<TokenId> ids;
  for (const std::string& piece : pieces) {
    ids.push_back(static_cast<TokenId>(ids.size()));
    texts[ids.back()] = piece;
  }
  const ToyTexts tokens(texts);
  const auto stop_texts = StopTexts::make(strings, &tokens, 100);
  EXPECT_TRUE(stop_texts) << stop_texts.error().message;
  const std::span<const TokenId> all(ids);
  return stop_texts && (*stop_texts)->match(all.first(all.size() - 1), all.back()).has_value();
}

TEST(StopStrings, G13) {
  EXPECT_TRUE(stops({"stop"}, {"st", "op"}));
  EXPECT_TRUE(stops({"stop"}, {"nst", "opq"}));
  EXPECT_TRUE(stops({"stop"}, {"xstopx"}));
  EXPECT_TRUE(stops({"stop"}, {"s", "t", "o", "p"}));
  EXPECT_FALSE(stops({"stop"}, {"stop", "."})) << "an earlier token completed it";
  EXPECT_FALSE(stops({"stop"}, {"st", "o"}));
  EXPECT_FALSE(stops({"stop"}, {"a", "st", "top"}));
  EXPECT_FALSE(stops({"stop"}, {"st", "a", "op"}));
}

TEST(StopStrings, FindsCharactersThatTokensSplit) {
  EXPECT_TRUE(stops({"\xC3\xA9"}, {"\xC3", "\xA9"}));
  EXPECT_FALSE(stops({"\xC3\xA9"}, {"\xA9", "\xC3"}));
}

TEST(StopStrings, NamesTheFirstOfSeveral) {
  const ToyTexts tokens({{0, "a"}, {1, "b"}});
  const auto texts = StopTexts::make({"zz", "ab", "b"}, &tokens, 2);
  ASSERT_TRUE(texts);
  const std::vector<TokenId> earlier = {0};
  EXPECT_EQ((*texts)->match(earlier, 1), 1U);
  EXPECT_EQ((*texts)->match({}, 1), 2U);
  EXPECT_EQ((*texts)->match({}, 0), std::nullopt);
  EXPECT_EQ((*texts)->match(earlier, 7), std::nullopt) << "an id without a text";
}

TEST(StopStrings, RefusesWhatCanNeverAct) {
  const ToyTexts tokens({{0, "a"}, {1, "b"}});
  EXPECT_NE(StopTexts::make({"x"}, nullptr, 2).error().message.find("no tokenizer"),
            std::string::npos);
  EXPECT_NE(StopTexts::make({"a", ""}, &tokens, 2).error().message.find("empty string"),
            std::string::npos);
  EXPECT_NE(StopTexts::make({"x", "zz"}, &tokens, 2).error().message.find("x, zz"),
            std::string::npos);
  EXPECT_TRUE(StopTexts::make({"x", "a"}, &tokens, 2)) << "one hopeless string is inert";
}

TEST(Thinking, CountsItsTokensAndTheAnswer) {
  ThinkingCounter counter(ThinkingIds{8, 9}, std::vector<TokenId>{1, 2});
  EXPECT_FALSE(counter.push(1, false));
  EXPECT_TRUE(counter.push(8, false));
  EXPECT_TRUE(counter.push(1, false));
  EXPECT_TRUE(counter.push(9, false));
  EXPECT_FALSE(counter.push(3, false));
  EXPECT_FALSE(counter.push(0, true)) << "the end token is neither";
  EXPECT_EQ(counter.thinking_tokens(), 3);
  EXPECT_EQ(counter.answer_tokens(), 2);
}

TEST(Thinking, MayHaveBeenOpenedByThePrompt) {
  ThinkingCounter open(ThinkingIds{8, 9}, std::vector<TokenId>{8, 9, 1, 8});
  EXPECT_TRUE(open.push(1, false));
  EXPECT_EQ(open.answer_tokens(), 0);
  ThinkingCounter closed(ThinkingIds{8, 9}, std::vector<TokenId>{8, 1, 9});
  EXPECT_FALSE(closed.push(1, false));
  ThinkingCounter none(std::nullopt, std::vector<TokenId>{8});
  EXPECT_FALSE(none.push(8, false));
  EXPECT_EQ(none.thinking_tokens(), 0);
}

TEST(Thinking, SilenceAfterThinkingShows) {
  ToyFixture f;
  GenerateOptions options;
  options.thinking = ThinkingIds{2, 3};
  const auto result =
      f.run(model_m(), {0}, {.max_new_tokens = 9, .eos_token_id = TokenIds{1}}, options);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().ids, (TokenIds{2, 3, 1}));
  EXPECT_EQ(result->first().thinking_tokens, 2);
  EXPECT_EQ(result->first().answer_tokens, 0);
  EXPECT_FALSE(result->first().is_thinking_open);
  EXPECT_EQ(thinking_outcome(result->first(), true), ThinkingOutcome::kSaidNothing);
}

TEST(Thinking, ALimitInsideItIsNotSilence) {
  ToyFixture f;
  GenerateOptions options;
  options.thinking = ThinkingIds{2, 3};
  for (const int64_t beams : {1, 2}) {
    const auto cut =
        f.run(model_m(), {0},
              {.max_new_tokens = 1, .num_beams = beams, .eos_token_id = TokenIds{1}}, options);
    ASSERT_TRUE(cut);
    EXPECT_EQ(cut->first().ids, (TokenIds{2}));
    EXPECT_TRUE(cut->first().is_thinking_open);
    EXPECT_EQ(thinking_outcome(cut->first(), true), ThinkingOutcome::kCut);
  }
  // Opened by the prompt: nothing of it was generated, and it is open all the same.
  options.thinking = ThinkingIds{0, 3};
  const auto ended =
      f.run(model_m(), {3, 0}, {.max_new_tokens = 9, .eos_token_id = TokenIds{2}}, options);
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->first().ids, (TokenIds{2}));
  EXPECT_EQ(ended->first().thinking_tokens, 0);
  EXPECT_EQ(thinking_outcome(ended->first(), true), ThinkingOutcome::kBrokenOff);
}

TEST(Thinking, OutcomeNames) {
  SequenceResult sequence;
  EXPECT_EQ(name(thinking_outcome(sequence, true)), "") << "an empty answer without thinking";
  sequence.thinking_tokens = 3;
  EXPECT_EQ(name(thinking_outcome(sequence, true)), "said_nothing");
  EXPECT_EQ(name(thinking_outcome(sequence, false)), "answered");
  sequence.is_thinking_open = true;
  EXPECT_EQ(name(thinking_outcome(sequence, false)), "cut_in_thinking");
  sequence.stop_reason = StopReason::kStopString;
  EXPECT_EQ(name(thinking_outcome(sequence, false)), "ended_in_thinking");
}

}  // namespace
}  // namespace logitlab
