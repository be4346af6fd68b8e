#include "sampling/effective_config.h"

#include <limits>

#include <gtest/gtest.h>

#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"

namespace logitlab {
namespace {

// The model of cases C9 and C10.
GenerationConfig sampling_model() {
  GenerationConfig model;
  model.do_sample = true;
  model.temperature = 0.6;
  model.top_k = 20;
  model.top_p = 0.95;
  return model;
}

std::string message_of(const Status& status) {
  return status ? "" : status.error().message;
}

TEST(Merge, TheCallWinsOverTheModelOverTheTable) {
  GenerationConfig call;
  call.temperature = 1.0;  // given, although it is the default
  const EffectiveConfig effective = merge_generation_config(call, sampling_model());
  EXPECT_EQ(effective.config.temperature, 1.0);
  EXPECT_EQ(effective.origin("temperature"), Origin::kGiven);
  EXPECT_EQ(effective.config.top_k, 20);
  EXPECT_EQ(effective.origin("top_k"), Origin::kModel);
  EXPECT_EQ(effective.config.seed, 0U);
  EXPECT_EQ(effective.origin("seed"), Origin::kDefault);
  EXPECT_FALSE(effective.config.min_p.has_value());
  EXPECT_EQ(effective.origin("min_p"), Origin::kUnset);
  EXPECT_EQ(effective.origin("foo"), Origin::kUnset);
  EXPECT_EQ(effective.config.do_sample, true);
}

TEST(Merge, ABareModelSamplesFromTopK50) {
  const GenerationConfig config = merge_generation_config({}, {}).config;
  EXPECT_EQ(config.do_sample, false);
  EXPECT_EQ(config.top_k, 50);
  EXPECT_EQ(config.temperature, 1.0);
  EXPECT_EQ(config.top_p, 1.0);
  EXPECT_FALSE(config.max_length.has_value());
}

TEST(Merge, UnsetInheritsAndNoneTurnsOff) {  // C9
  GenerationConfig keyword;
  ASSERT_TRUE(set_field(&keyword, "top_k", "none").has_value());
  EXPECT_EQ(merge_generation_config(keyword, sampling_model()).config.top_k, 0);

  GenerationConfig object;  // top_k None in a GenerationConfig object: unset
  EXPECT_EQ(merge_generation_config(object, sampling_model()).config.top_k, 20);

  object.top_k = 0;
  object.temperature = 1.0;
  const GenerationConfig config = merge_generation_config(object, sampling_model()).config;
  EXPECT_EQ(config.top_k, 0);
  EXPECT_EQ(config.temperature, 1.0);
  EXPECT_EQ(config.top_p, 0.95);
}

TEST(Merge, GreedyOverASamplingModelKeepsTheFields) {  // C10
  GenerationConfig call;
  call.do_sample = false;
  const EffectiveConfig effective = merge_generation_config(call, sampling_model());
  EXPECT_EQ(effective.config.temperature, 0.6);
  EXPECT_TRUE(build_chain(effective.config, {.vocab_size = 8})->empty());
  // The caller chose the mode and inherited the rest: nothing to warn about.
  EXPECT_TRUE(generation_warnings(effective, 8).empty());
}

TEST(Validate, TemperatureMustBePositiveWhenSampling) {  // C1
  GenerationConfig config;
  config.do_sample = true;
  config.temperature = 0.0;
  EXPECT_EQ(message_of(validate_generation_config(config)),
            "temperature: 0 found, want > 0; for the most likely token at every step set do_sample "
            "to false");
  config.temperature = -0.5;
  EXPECT_FALSE(validate_generation_config(config).has_value());
  config.temperature = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(validate_generation_config(config).has_value());
  config.temperature = 2.0;
  EXPECT_TRUE(validate_generation_config(config).has_value());
}

TEST(Validate, GreedyNeverLooksAtTheFilters) {  // C2
  GenerationConfig call;
  call.temperature = 0.0;
  call.top_k = -1;
  call.min_p = 2;
  const EffectiveConfig effective = merge_generation_config(call, {});
  EXPECT_TRUE(validate_generation_config(effective.config).has_value());
  const auto warnings = generation_warnings(effective, 100);
  ASSERT_EQ(warnings.size(), 3U);
  EXPECT_EQ(warnings[0],
            "temperature=0 has no effect: do_sample is false, so the most likely token is always "
            "taken");
}

TEST(Validate, FiltersHaveTransformersRanges) {  // C3, C4, C5
  const auto outcome = [](auto member, auto value) {
    GenerationConfig config;
    config.do_sample = true;
    config.*member = value;
    return message_of(validate_generation_config(config));
  };
  EXPECT_EQ(outcome(&GenerationConfig::top_k, -1),
            "top_k: -1 found, want >= 0; 0 turns the filter off");
  EXPECT_EQ(outcome(&GenerationConfig::top_k, 0), "");
  EXPECT_EQ(outcome(&GenerationConfig::top_p, -0.1),
            "top_p: -0.1 found, want >= 0; 1 turns the filter off");
  EXPECT_EQ(outcome(&GenerationConfig::top_p, 0.0), "");
  EXPECT_EQ(outcome(&GenerationConfig::top_p, 1.5), "");
  EXPECT_EQ(outcome(&GenerationConfig::min_p, 2.0),
            "min_p: 2 found, want 0 to 1; 0 turns the filter off");
  EXPECT_EQ(outcome(&GenerationConfig::min_p, -0.01).find("min_p: -0.01 found"), 0U);
  EXPECT_EQ(outcome(&GenerationConfig::min_p, 1.0), "");
}

TEST(Validate, LengthsInEveryMode) {  // C7
  for (const bool do_sample : {false, true}) {
    GenerationConfig config;
    config.do_sample = do_sample;
    config.max_new_tokens = 0;
    EXPECT_EQ(message_of(validate_generation_config(config)), "max_new_tokens: 0 found, want >= 1");
    config.max_new_tokens = 1;
    config.min_new_tokens = -1;
    EXPECT_EQ(message_of(validate_generation_config(config)),
              "min_new_tokens: -1 found, want >= 0");
  }
}

TEST(Lengths, TwentyNewTokensWhenNobodySaysOtherwise) {  // G9
  const auto lengths = resolve_lengths({}, 2, std::nullopt);
  ASSERT_TRUE(lengths.has_value());
  EXPECT_EQ(lengths->max_new_tokens, 20);
  EXPECT_EQ(lengths->min_new_tokens, 0);
  EXPECT_TRUE(lengths->is_default);
  EXPECT_EQ(resolve_lengths({}, 2, 10)->max_new_tokens, 8);
  EXPECT_EQ(resolve_lengths({}, 2, 4096)->max_new_tokens, 20);
  EXPECT_FALSE(resolve_lengths({}, 10, 10).has_value());
}

TEST(Lengths, MaxNewTokensWinsAndMaxLengthCountsThePrompt) {  // G10, C7
  GenerationConfig model;
  model.max_length = 6;
  const auto from_model = resolve_lengths(merge_generation_config({}, model).config, 2, 4);
  EXPECT_EQ(from_model->max_new_tokens, 4);
  EXPECT_FALSE(from_model->is_default);

  model = {};
  model.max_new_tokens = 5;
  GenerationConfig call;
  call.max_length = 3;
  const EffectiveConfig both = merge_generation_config(call, model);
  EXPECT_EQ(resolve_lengths(both.config, 2, std::nullopt)->max_new_tokens, 5);
  ASSERT_EQ(generation_warnings(both, 10).size(), 1U);
  EXPECT_EQ(generation_warnings(both, 10)[0], "max_new_tokens=5 wins over max_length=3");

  const auto too_short = resolve_lengths(call, 3, std::nullopt);
  ASSERT_FALSE(too_short.has_value());
  EXPECT_EQ(too_short.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(too_short.error().message.find("max_length: 3 found, want more than the 3 tokens"), 0U);
  call.max_length = -5;
  EXPECT_FALSE(resolve_lengths(call, 3, std::nullopt).has_value());
}

TEST(Lengths, MaxNewTokensMayExceedThePositions) {
  GenerationConfig config;
  config.max_new_tokens = std::numeric_limits<int64_t>::max();
  config.min_new_tokens = 3;
  const auto lengths = resolve_lengths(config, 100, 10);
  ASSERT_TRUE(lengths.has_value());
  EXPECT_EQ(lengths->max_new_tokens, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(lengths->min_new_tokens, 3);
  config.max_new_tokens = 0;
  EXPECT_FALSE(resolve_lengths(config, 100, 10).has_value());
}

TEST(Warnings, ForLimitsThatCannotBeMetAndIdsThatCannotOccur) {
  GenerationConfig call;
  call.max_new_tokens = 2;
  call.min_new_tokens = 3;
  call.eos_token_id = {1, 8, -1};
  const auto warnings = generation_warnings(merge_generation_config(call, {}), 8);
  ASSERT_EQ(warnings.size(), 3U);
  EXPECT_EQ(warnings[0],
            "min_new_tokens=3 is above max_new_tokens=2: no end token can ever be chosen");
  EXPECT_EQ(warnings[1], "eos_token_id=8 is outside the vocabulary of 8 tokens and never occurs");
  EXPECT_EQ(warnings[2].find("eos_token_id=-1"), 0U);
}

}  // namespace
}  // namespace logitlab
