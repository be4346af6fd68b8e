#include "sampling/generation_fields.h"

#include <limits>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "sampling/effective_config.h"

namespace logitlab {
namespace {

Result<ParsedConfig> read(std::string_view text, UnknownKeys unknown_keys = UnknownKeys::kRefuse) {
  auto json = parse_json(text, "test");
  EXPECT_TRUE(json.has_value()) << text;
  return generation_config_from_json(*json, "settings.json", unknown_keys);
}

std::string message_of(std::string_view text) {
  const auto result = read(text);
  if (result) {
    return "";
  }
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  return result.error().message;
}

// A config with every field set, each to a value that is not its default.
GenerationConfig full_config() {
  GenerationConfig config;
  config.do_sample = true;
  config.temperature = 0.7;
  config.top_h = 0.4;
  config.top_k = 20;
  config.top_p = 0.95;
  config.min_p = 0.05;
  config.typical_p = 0.9;
  config.epsilon_cutoff = 0.001;
  config.eta_cutoff = 0.002;
  config.seed = std::numeric_limits<uint64_t>::max();
  config.semantics = Semantics::kLlamaCpp;
  config.logits_dtype = LogitsDtype::kBfloat16;
  config.repetition_penalty = 1.1;
  config.encoder_repetition_penalty = 1.2;
  config.presence_penalty = 0.5;
  config.frequency_penalty = -0.5;
  config.no_repeat_ngram_size = 3;
  config.encoder_no_repeat_ngram_size = 4;
  config.bad_words_ids = std::vector<TokenIds>{{5}, {7, 8}};
  config.sequence_bias = std::vector<SequenceBias>{{{0}, 2.5}, {{7, 8}, -1}};
  config.logit_bias = std::vector<TokenBias>{{50, -100}, {11, 5}};
  config.suppress_tokens = {3};
  config.begin_suppress_tokens = {4, 5};
  config.forced_bos_token_id = 6;
  config.forced_eos_token_id = {2};
  config.exponential_decay_length_penalty = ExponentialDecay{.start = 30, .factor = 1.05};
  config.guidance_scale = 1.5;
  config.negative_prompt_ids = {1, 2};
  config.remove_invalid_values = true;
  config.renormalize_logits = true;
  config.max_new_tokens = 64;
  config.min_new_tokens = 2;
  config.max_length = 128;
  config.min_length = 9;
  config.max_time = 1.5;
  config.stop_strings = {"stop", "\n"};
  config.thinking_budget = 100;
  config.num_beams = 4;
  config.num_return_sequences = 2;
  config.early_stopping = EarlyStopping::kNever;
  config.length_penalty = -1;
  config.eos_token_id = {2, 7};
  config.pad_token_id = -1;
  config.bos_token_id = 1;
  return config;
}

TEST(FieldTable, HasEveryMemberOnceWithItsHelp) {
  std::set<std::string_view> names;
  for (const GenerationField& field : generation_fields()) {
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
    EXPECT_GT(field.help.size(), 20U) << field.name;
    EXPECT_EQ(find_generation_field(field.name), &field);
    EXPECT_FALSE(type_name(field).empty());
    // A full config has a value at every field: no two fields share a member, none is missing.
    EXPECT_FALSE(std::holds_alternative<std::monostate>(get_field(full_config(), field)))
        << field.name;
  }
  GenerationConfig copied;
  for (const GenerationField& field : generation_fields()) {
    set_field_value(&copied, field, get_field(full_config(), field));
  }
  EXPECT_EQ(copied, full_config());
  EXPECT_EQ(find_generation_field("top_kk"), nullptr);
}

TEST(FieldTable, DefaultsAndOffValuesAreOfTheFieldsTypeAndInRange) {
  for (const GenerationField& field : generation_fields()) {
    GenerationConfig config;
    config.do_sample = true;
    set_field_value(&config, field, field.fallback);
    EXPECT_TRUE(validate_generation_config(config).has_value()) << field.name;
    set_field_value(&config, field, field.off);
    EXPECT_TRUE(validate_generation_config(config).has_value()) << field.name;
  }
}

TEST(FieldTable, DefaultsAreThoseOfTransformers) {
  EXPECT_EQ(find_generation_field("do_sample")->fallback, FieldValue(false));
  EXPECT_EQ(find_generation_field("temperature")->fallback, FieldValue(1.0));
  EXPECT_EQ(find_generation_field("top_k")->fallback, FieldValue(int64_t{50}));
  EXPECT_EQ(find_generation_field("top_p")->fallback, FieldValue(1.0));
  EXPECT_EQ(find_generation_field("min_p")->fallback, FieldValue());
}

TEST(FieldTable, RangesReadAsWords) {
  EXPECT_EQ(range_text(*find_generation_field("temperature")), "> 0");
  EXPECT_EQ(range_text(*find_generation_field("top_k")), ">= 0");
  EXPECT_EQ(range_text(*find_generation_field("min_p")), "0 to 1");
  EXPECT_EQ(range_text(*find_generation_field("do_sample")), "");
}

TEST(SetField, ReadsEveryType) {
  GenerationConfig config;
  EXPECT_TRUE(set_field(&config, "do_sample", "true").has_value());
  EXPECT_TRUE(set_field(&config, "temperature", "2").has_value());  // whole numbers are fine
  EXPECT_TRUE(set_field(&config, "top_p", "1e-1").has_value());
  EXPECT_TRUE(set_field(&config, "top_k", "-1").has_value());  // the range is checked later
  EXPECT_TRUE(set_field(&config, "seed", "18446744073709551615").has_value());
  EXPECT_TRUE(set_field(&config, "eos_token_id", "2,7").has_value());
  EXPECT_TRUE(set_field(&config, "pad_token_id", "-1").has_value());
  EXPECT_EQ(config.do_sample, true);
  EXPECT_EQ(config.temperature, 2.0);
  EXPECT_EQ(config.top_p, 0.1);
  EXPECT_EQ(config.top_k, -1);
  EXPECT_EQ(config.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(config.eos_token_id, (std::vector<TokenId>{2, 7}));
  EXPECT_EQ(config.pad_token_id, -1);
}

TEST(SetField, NoneTurnsOff) {
  GenerationConfig config;
  for (const char* name : {"temperature", "top_k", "top_p", "min_p", "eos_token_id"}) {
    EXPECT_TRUE(set_field(&config, name, "none").has_value()) << name;
  }
  EXPECT_EQ(config.temperature, 1.0);
  EXPECT_EQ(config.top_k, 0);
  EXPECT_EQ(config.top_p, 1.0);
  EXPECT_EQ(config.min_p, 0.0);
  EXPECT_EQ(config.eos_token_id, std::vector<TokenId>{});
  EXPECT_FALSE(set_field(&config, "max_length", "none").has_value());
}

TEST(SetField, RefusesOtherTypes) {
  GenerationConfig config;
  for (const auto& [name, text] :
       std::vector<std::pair<const char*, const char*>>{{"do_sample", "yes"},
                                                        {"do_sample", ""},
                                                        {"temperature", "hot"},
                                                        {"temperature", "nan"},
                                                        {"temperature", "inf"},
                                                        {"temperature", "1e999"},
                                                        {"temperature", "0.7x"},
                                                        {"temperature", ""},
                                                        {"top_k", "2.0"},
                                                        {"top_k", "99999999999999999999"},
                                                        {"seed", "-1"},
                                                        {"eos_token_id", "2,"},
                                                        {"eos_token_id", "2 7"},
                                                        {"eos_token_id", "3000000000"},
                                                        {"pad_token_id", "x"}}) {
    const Status status = set_field(&config, name, text);
    ASSERT_FALSE(status.has_value()) << name << "=" << text;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(status.error().message.find(name), 0U) << status.error().message;
  }
  EXPECT_EQ(config, GenerationConfig{});
  EXPECT_EQ(set_field(&config, "top_k", "2.0").error().message,
            "top_k: \"2.0\" found, want a whole number");
}

TEST(SetField, NamesTheNearestSetting) {
  GenerationConfig config;
  EXPECT_EQ(set_field(&config, "temprature", "1").error().message,
            "temprature: no setting has this name; did you mean temperature?");
  EXPECT_NE(set_field(&config, "foo", "1").error().message.find("min_new_tokens"),
            std::string::npos);
}

TEST(ConfigJson, RoundTrip) {
  const Json json = to_json(full_config());
  EXPECT_EQ(json.size(), generation_fields().size());
  const auto read_back = generation_config_from_json(json, "x", UnknownKeys::kRefuse);
  ASSERT_TRUE(read_back.has_value()) << read_back.error().message;
  EXPECT_EQ(read_back->config, full_config());
  // Table order, unset fields left out.
  GenerationConfig config;
  config.eos_token_id = {2, 7};
  config.top_p = 0.95;
  config.do_sample = true;
  EXPECT_EQ(dump_json(to_json(config)), R"({"do_sample":true,"top_p":0.95,"eos_token_id":[2,7]})");
  EXPECT_EQ(dump_json(to_json({})), "{}");
}

TEST(FieldTable, EveryValueHasATextThatReadsBack) {
  GenerationConfig copied;
  for (const GenerationField& field : generation_fields()) {
    const FieldValue value = get_field(full_config(), field);
    const std::string text = value_text(value);
    const Status status = set_field(&copied, field.name, text);
    ASSERT_TRUE(status.has_value()) << text << ": " << status.error().message;
  }
  EXPECT_EQ(copied, full_config());
}

TEST(ConfigJson, NullLeavesUnsetAndOneIdIsAList) {
  const auto parsed = read(R"({"top_k": null, "eos_token_id": 5, "temperature": 1})");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_FALSE(parsed->config.top_k.has_value());
  EXPECT_EQ(parsed->config.eos_token_id, std::vector<TokenId>{5});
  EXPECT_EQ(parsed->config.temperature, 1.0);
}

TEST(ConfigJson, RefusesOtherTypes) {
  for (const char* text :
       {R"({"do_sample": 1})", R"({"do_sample": "true"})", R"({"temperature": "0.7"})",
        R"({"temperature": true})", R"({"temperature": [1]})", R"({"top_k": 2.0})",
        R"({"top_k": true})", R"({"top_k": 9223372036854775808})", R"({"seed": -1})",
        R"({"seed": 1.5})", R"({"eos_token_id": [1, "2"]})", R"({"eos_token_id": [[1]]})",
        R"({"eos_token_id": 2147483648})", R"({"pad_token_id": {}})"}) {
    EXPECT_EQ(message_of(text).find("settings.json: "), 0U) << text;
  }
  EXPECT_EQ(message_of(R"({"temperature": "0.7"})"),
            "settings.json: temperature: \"0.7\" found, want a finite number");
  EXPECT_EQ(message_of("[]"), "settings.json: array found, want an object of settings");
}

TEST(ConfigJson, RefusesNumbersThatAreNotFinite) {
  Json json = Json::object();
  json["top_p"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(generation_config_from_json(json, "x", UnknownKeys::kRefuse).has_value());
  json["top_p"] = std::numeric_limits<double>::infinity();
  EXPECT_FALSE(generation_config_from_json(json, "x", UnknownKeys::kRefuse).has_value());
}

TEST(ConfigJson, UnknownKeysAreRefusedOrListedWhenTheyWouldAct) {  // C13
  for (const char* name : {"foo", "num_beam_groups", "force_words_ids", "penalty_alpha"}) {
    EXPECT_NE(message_of("{\"" + std::string(name) + "\": 1}").find("no setting has this name"),
              std::string::npos)
        << name;
  }
  const auto parsed = read(
      R"({"_from_model_config": true, "transformers_version": "5.17.0", "top_k": 4, "foo": 1,
          "repetition_penalty": 1.05, "num_beams": 1, "typical_p": 1, "stop_strings": null,
          "watermarking_config": {"bias": 2.5}})",
      UnknownKeys::kIgnore);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->config.top_k, 4);
  EXPECT_EQ(parsed->config.repetition_penalty, 1.05);
  EXPECT_EQ(parsed->ignored, (std::vector<std::string>{R"(watermarking_config={"bias":2.5})"}));
}

}  // namespace
}  // namespace logitlab
