#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

GenerationConfig settings(std::string_view text) {
  const auto json = parse_json(text, "test");
  EXPECT_TRUE(json.has_value()) << text;
  const auto parsed = generation_config_from_json(*json, "test", UnknownKeys::kRefuse);
  EXPECT_TRUE(parsed.has_value()) << text << ": " << (parsed ? "" : parsed.error().message);
  return parsed ? parsed->config : GenerationConfig{};
}

// The refusal of the settings over a bare model; empty when they are accepted.
std::string refusal(std::string_view text) {
  const Status status =
      validate_generation_config(merge_generation_config(settings(text), {}).config);
  if (status) {
    return "";
  }
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  return status.error().message;
}

std::vector<std::string> warnings(std::string_view text) {
  return generation_warnings(merge_generation_config(settings(text), {}), 8);
}
using Texts = std::vector<std::string>;

TEST(ConfigChecks, SamplingFiltersOnlyWhenSampling) {  // C1, C3, C4, C5
  for (const char* setting :
       {R"("temperature": 0)", R"("temperature": -1)", R"("top_k": -1)", R"("top_p": -0.1)",
        R"("min_p": 2)", R"("min_p": -0.1)", R"("typical_p": 0)", R"("typical_p": -1)",
        R"("top_h": 0)", R"("top_h": 1.1)"}) {
    const std::string name = std::string(setting).substr(1, std::string(setting).find(':') - 2);
    const std::string message = refusal("{\"do_sample\": true, " + std::string(setting) + "}");
    EXPECT_EQ(message.find(name + ": "), 0U) << setting << ": " << message;
    EXPECT_NE(message.find("found, want "), std::string::npos) << message;
    EXPECT_EQ(refusal("{" + std::string(setting) + "}"), "") << setting;
  }
  for (const char* setting :
       {R"("top_p": 1.5)", R"("typical_p": 7)", R"("epsilon_cutoff": -1)", R"("epsilon_cutoff": 2)",
        R"("eta_cutoff": 1)", R"("top_k": 0)", R"("top_h": 1)", R"("temperature": 2)"}) {
    EXPECT_EQ(refusal("{\"do_sample\": true, " + std::string(setting) + "}"), "") << setting;
  }
}

TEST(ConfigChecks, PenaltiesInEveryMode) {  // C6
  EXPECT_EQ(refusal(R"({"repetition_penalty": 0})"),
            "repetition_penalty: 0 found, want > 0; 1 turns it off");
  EXPECT_NE(refusal(R"({"repetition_penalty": -1})"), "");
  EXPECT_EQ(refusal(R"({"repetition_penalty": 2})"), "");  // our kindness: a whole number
  EXPECT_NE(refusal(R"({"encoder_repetition_penalty": 0})"), "");
  EXPECT_EQ(refusal(R"({"presence_penalty": 2.5})"), "presence_penalty: 2.5 found, want -2 to 2");
  EXPECT_NE(refusal(R"({"frequency_penalty": -2.1})"), "");
  EXPECT_EQ(refusal(R"({"frequency_penalty": -2})"), "");
  // Silently off in transformers.
  EXPECT_EQ(refusal(R"({"no_repeat_ngram_size": -3, "min_length": -2})"), "");
}

TEST(ConfigChecks, Lists) {
  EXPECT_EQ(refusal(R"({"bad_words_ids": []})").find("bad_words_ids: an empty list found"), 0U);
  EXPECT_EQ(refusal(R"({"bad_words_ids": [[1], []]})"),
            "bad_words_ids: a sequence without tokens found, want at least one token id in each");
  EXPECT_EQ(refusal(R"({"bad_words_ids": [[1, -2]]})"),
            "bad_words_ids: token id -2 found, want >= 0");
  EXPECT_EQ(refusal(R"({"bad_words_ids": [[0], [1, 2]]})"), "");
  EXPECT_EQ(refusal(R"({"sequence_bias": []})").find("sequence_bias: nothing in it"), 0U);
  EXPECT_EQ(refusal(R"({"sequence_bias": {}})").find("sequence_bias: nothing in it"), 0U);
  EXPECT_NE(refusal(R"({"sequence_bias": [[[], 1.0]]})"), "");
  EXPECT_NE(refusal(R"({"sequence_bias": {"-1": 1.0}})"), "");
  EXPECT_EQ(refusal(R"({"sequence_bias": {"0": 1.0}})"), "");
  EXPECT_EQ(refusal(R"({"stop_strings": []})").find("stop_strings: an empty list found"), 0U);
  EXPECT_EQ(refusal(R"({"stop_strings": ["a", ""]})").find("stop_strings: an empty text"), 0U);
  EXPECT_EQ(refusal(R"({"stop_strings": "stop"})"), "");
}

TEST(ConfigChecks, LogitBias) {
  EXPECT_EQ(refusal(R"({"logit_bias": {"1": 100.5}})"),
            "logit_bias: 100.5 for token 1 found, want -100 to 100; -100 bans a token");
  EXPECT_NE(refusal(R"({"logit_bias": {"1": -101}})"), "");
  EXPECT_EQ(refusal(R"({"logit_bias": {"-1": 1}})"), "logit_bias: token id -1 found, want >= 0");
  EXPECT_EQ(refusal(R"({"logit_bias": {"1": -100, "2": 100}})"), "");
  GenerationConfig twice;
  twice.logit_bias = std::vector<TokenBias>{{1, 1}, {1, 2}};
  EXPECT_EQ(validate_generation_config(twice).error().message,
            "logit_bias: token 1 found twice, want one bias for each token");
}

TEST(ConfigChecks, ForcedAndSuppressed) {
  EXPECT_EQ(refusal(R"({"forced_eos_token_id": [1, 2], "suppress_tokens": [2, 1, 5]})"),
            "forced_eos_token_id: 1,2 found, want a token that suppress_tokens does not hold: "
            "forced and suppressed at once, no token could be chosen");
  EXPECT_NE(refusal(R"({"forced_bos_token_id": 1, "suppress_tokens": [1]})"), "");
  EXPECT_EQ(refusal(R"({"forced_eos_token_id": [1, 2], "suppress_tokens": [1]})"), "");
  EXPECT_EQ(refusal(R"({"forced_eos_token_id": -1})"), "forced_eos_token_id: -1 found, want >= 0");
  EXPECT_NE(refusal(R"({"forced_bos_token_id": -1})"), "");
  EXPECT_EQ(refusal(R"({"forced_eos_token_id": [], "suppress_tokens": [1]})"), "");
}

TEST(ConfigChecks, DecayNeedsEndTokens) {
  EXPECT_EQ(refusal(R"({"exponential_decay_length_penalty": [3, 1.1]})")
                .find("exponential_decay_length_penalty: no eos_token_id found"),
            0U);
  EXPECT_NE(refusal(R"({"exponential_decay_length_penalty": [3, 1.1], "eos_token_id": -1})"), "");
  EXPECT_EQ(refusal(R"({"exponential_decay_length_penalty": [3, 1.1], "eos_token_id": 1})"), "");
}

TEST(ConfigChecks, BeamsAndAnswers) {  // C8
  EXPECT_EQ(refusal(R"({"num_return_sequences": 2})"),
            "num_return_sequences: 2 found, want 1: a greedy run has one outcome; set do_sample to "
            "true, or num_beams to 2 or more");
  EXPECT_EQ(refusal(R"({"num_return_sequences": 2, "do_sample": true})"), "");
  EXPECT_EQ(refusal(R"({"num_return_sequences": 3, "num_beams": 2})"),
            "num_return_sequences: 3 found, want 1 to 2: beam search keeps num_beams=2 answers");
  EXPECT_EQ(refusal(R"({"num_return_sequences": 2, "num_beams": 2})"), "");
  EXPECT_EQ(refusal(R"({"num_beams": 0})"), "num_beams: 0 found, want >= 1");
  EXPECT_EQ(refusal(R"({"num_return_sequences": 0})"), "num_return_sequences: 0 found, want >= 1");
  for (const char* mode :
       {R"("num_beams": 2)", R"("do_sample": true, "num_return_sequences": 2)"}) {
    const std::string rest = std::string(mode) + "}";
    EXPECT_NE(refusal(R"({"encoder_repetition_penalty": 1.5, )" + rest), "") << mode;
    EXPECT_EQ(refusal(R"({"encoder_no_repeat_ngram_size": 2, )" + rest), "") << mode;
    EXPECT_EQ(refusal("{" + rest), "") << mode;
  }
  EXPECT_EQ(refusal(R"({"encoder_repetition_penalty": 1.5})"), "");
}

TEST(ConfigChecks, LengthsAndBudgets) {  // C7
  for (const char* setting :
       {R"("max_new_tokens": 0)", R"("max_new_tokens": -1)", R"("min_new_tokens": -1)",
        R"("thinking_budget": -1)", R"("max_time": -1)"}) {
    EXPECT_NE(refusal("{" + std::string(setting) + "}"), "") << setting;
  }
  EXPECT_EQ(refusal(R"({"thinking_budget": 0})"), "");
}

TEST(ConfigChecks, OtherEnginesHaveNoBeamsAndATemperatureOfZero) {
  EXPECT_EQ(refusal(R"({"semantics": "vllm", "num_beams": 2})").find("semantics: vllm found"), 0U);
  EXPECT_EQ(refusal(R"({"semantics": "vllm", "do_sample": true, "temperature": 0})"), "");
  EXPECT_EQ(refusal(R"({"semantics": "llama.cpp", "do_sample": true, "temperature": 0})"), "");
  EXPECT_NE(refusal(R"({"semantics": "vllm", "do_sample": true, "temperature": -1})"), "");
  EXPECT_NE(refusal(R"({"semantics": "vllm", "do_sample": true, "top_p": 0})"), "");
}

TEST(ConfigWarnings, SilentForPlainSettings) {
  EXPECT_EQ(warnings("{}"), Texts{});
  EXPECT_EQ(warnings(R"({"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.9,
                         "max_new_tokens": 5, "eos_token_id": 1, "min_new_tokens": 2})"),
            Texts{});
  EXPECT_EQ(warnings(R"({"num_beams": 3, "early_stopping": "never", "length_penalty": 2})"),
            Texts{});
}

TEST(ConfigWarnings, SettingsOfAnotherMode) {
  EXPECT_EQ(warnings(R"({"typical_p": 0.5})"),
            Texts{"typical_p=0.5 has no effect: do_sample is false, so the most likely token is "
                  "always taken"});
  EXPECT_EQ(warnings(R"({"top_h": 0.5, "num_beams": 2})"),
            Texts{"top_h=0.5 has no effect: do_sample is false, so beam search draws nothing"});
  EXPECT_EQ(warnings(R"({"early_stopping": true, "length_penalty": 2})"),
            (Texts{"early_stopping=true has no effect: num_beams is 1, and it belongs to beam "
                   "search",
                   "length_penalty=2 has no effect: num_beams is 1, and it belongs to beam "
                   "search"}));
  EXPECT_EQ(warnings(R"({"negative_prompt_ids": [1]})"),
            Texts{"negative_prompt_ids has no effect: guidance_scale is 1, so there is no "
                  "guidance"});
}

TEST(ConfigWarnings, FiltersThatAreOffOrActUnasked) {
  EXPECT_EQ(warnings(R"({"do_sample": true, "top_k": 0, "top_p": 1.5})"),
            Texts{"top_p=1.5 turns the filter off: it acts below 1"});
  EXPECT_EQ(warnings(R"({"do_sample": true, "eta_cutoff": 1})"),
            Texts{"eta_cutoff=1 turns the filter off: it acts between 0 and 1"});
  const Texts unasked = {
      "top_k=50 acts as well: it is the default, as in transformers; top_k=0 turns it off"};
  EXPECT_EQ(warnings(R"({"do_sample": true, "top_p": 0.9})"), unasked);
  EXPECT_EQ(warnings(R"({"do_sample": true, "min_p": 0.1})"), unasked);
  EXPECT_EQ(warnings(R"({"do_sample": true, "top_p": 0.9, "top_k": 50})"), Texts{});
}

TEST(ConfigWarnings, LengthsThatLoseOrCannotBeMet) {
  const std::string end = R"("eos_token_id": 1})";
  EXPECT_EQ(warnings(R"({"min_new_tokens": 3, "min_length": 9, )" + end),
            Texts{"min_new_tokens=3 wins over min_length=9"});
  EXPECT_EQ(warnings(R"({"min_length": 9, "max_length": 5, )" + end),
            Texts{"min_length=9 is above max_length=5: no end token can ever be chosen"});
  EXPECT_EQ(warnings(R"({"min_new_tokens": 3})"),
            Texts{"min_new_tokens=3 has no effect: there is no end token to forbid"});
  EXPECT_EQ(warnings(R"({"no_repeat_ngram_size": -3})"),
            Texts{"no_repeat_ngram_size=-3 has no effect: it is below 0"});
}

TEST(ConfigWarnings, IdsThatCannotOccur) {
  EXPECT_EQ(warnings(R"({"suppress_tokens": [8, 1], "pad_token_id": -1})"),
            (Texts{"suppress_tokens=8 is outside the vocabulary of 8 tokens and never occurs",
                   "pad_token_id=-1 is below 0, so it cannot fill a row"}));
}

TEST(Lengths, MinLengthIsOverruledByMinNewTokens) {  // G4
  GenerationConfig config;
  config.max_new_tokens = 10;
  config.min_length = 9;
  EXPECT_EQ(resolve_lengths(config, 2, std::nullopt)->min_length, 9);
  config.min_new_tokens = 1;
  EXPECT_EQ(resolve_lengths(config, 2, std::nullopt)->min_length, 3);
  config.min_new_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(resolve_lengths(config, 2, std::nullopt)->min_length,
            std::numeric_limits<int64_t>::max());
  config.min_new_tokens.reset();
  config.min_length = -4;
  EXPECT_EQ(resolve_lengths(config, 2, std::nullopt)->min_length, 0);
}

}  // namespace
}  // namespace logitlab
