#include "sampling/ledger.h"

#include <algorithm>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

LedgerEntry entry_of(const GenerationConfig& given, std::string_view name,
                     const LedgerFacts& facts = {}, const GenerationConfig& of_model = {}) {
  for (const LedgerEntry& entry :
       settings_ledger(merge_generation_config(given, of_model), facts)) {
    if (entry.name == name) {
      return entry;
    }
  }
  ADD_FAILURE() << name << " is not in the ledger";
  return {};
}

// Settings as on the command line, and whether the first of them acts.
struct Case {
  std::string name;
  bool acts;
  std::vector<std::pair<std::string, std::string>> settings;
  LedgerFacts facts = {};
  std::string why = {};  // empty: not compared
};

const std::pair<std::string, std::string> kDraw = {"do_sample", "true"};
const std::pair<std::string, std::string> kBeams = {"num_beams", "4"};
const std::pair<std::string, std::string> kEnd = {"eos_token_id", "2"};

std::vector<Case> choice_cases() {
  const std::string no_draw = "nothing is drawn: do_sample is false";
  return {
      {"do_sample", true, {}, {}, "the most likely token is taken"},
      {"do_sample", true, {kDraw}, {}, "tokens are drawn"},
      {"temperature", true, {kDraw, {"temperature", "0.7"}}},
      {"temperature", false, {kDraw, {"temperature", "1"}}},
      {"temperature", false, {{"temperature", "0.7"}}, {}, no_draw},
      {"top_h", true, {kDraw, {"top_h", "0.4"}}},
      {"top_h", false, {kDraw}},
      {"top_k", true, {kDraw}, {}, "only the k best and their ties can be drawn"},
      {"top_k", false, {}, {}, no_draw},
      {"top_k", false, {kDraw, {"top_k", "0"}}, {}, "0 is off"},
      {"top_p", true, {kDraw, {"top_p", "0.9"}}},
      {"top_p", true, {kDraw, {"top_p", "0"}}},
      {"top_p", false, {kDraw}, {}, "1 or more is off"},
      {"min_p", true, {kDraw, {"min_p", "0.1"}}},
      {"min_p", false, {kDraw, {"min_p", "0"}}, {}, "0 drops nothing"},
      {"min_p", false, {kDraw}, {}, "it is off"},
      {"typical_p", true, {kDraw, {"typical_p", "0.9"}}},
      {"typical_p", false, {kDraw}},
      {"epsilon_cutoff", true, {kDraw, {"epsilon_cutoff", "0.001"}}},
      {"epsilon_cutoff", false, {kDraw, {"epsilon_cutoff", "1"}}},
      {"eta_cutoff", true, {kDraw, {"eta_cutoff", "0.001"}}},
      {"eta_cutoff", false, {kDraw, {"eta_cutoff", "0"}}},
      {"seed", true, {kDraw, {"seed", "7"}}},
      {"seed", false, {{"seed", "7"}}, {}, no_draw},
      {"semantics", true, {{"semantics", "vllm"}}},
      {"semantics", false, {}},
      {"logits_dtype", true, {{"logits_dtype", "bfloat16"}}},
      {"logits_dtype", false, {}},
  };
}

std::vector<Case> penalty_cases() {
  return {
      {"repetition_penalty", true, {{"repetition_penalty", "1.1"}}},
      {"repetition_penalty", false, {}, {}, "1 is off"},
      {"encoder_repetition_penalty", true, {{"encoder_repetition_penalty", "0.9"}}},
      {"encoder_repetition_penalty", false, {}},
      {"presence_penalty", true, {{"presence_penalty", "-1"}}},
      {"presence_penalty", false, {}},
      {"frequency_penalty", true, {{"frequency_penalty", "1"}}},
      {"frequency_penalty", false, {}},
      {"no_repeat_ngram_size", true, {{"no_repeat_ngram_size", "3"}}},
      {"no_repeat_ngram_size", false, {{"no_repeat_ngram_size", "-1"}}},
      {"encoder_no_repeat_ngram_size", true, {{"encoder_no_repeat_ngram_size", "3"}}},
      {"encoder_no_repeat_ngram_size", false, {}},
      {"bad_words_ids", true, {{"bad_words_ids", "[[5]]"}}},
      {"bad_words_ids", false, {}},
      {"sequence_bias", true, {{"sequence_bias", "[[[5],-2.5]]"}}},
      {"sequence_bias", false, {}},
      {"logit_bias", true, {{"logit_bias", "5:-100"}}},
      {"logit_bias", false, {}},
      {"suppress_tokens", true, {{"suppress_tokens", "5"}}},
      {"suppress_tokens", false, {{"suppress_tokens", "none"}}},
      {"begin_suppress_tokens", true, {{"begin_suppress_tokens", "5"}}},
      {"begin_suppress_tokens", false, {}},
      {"forced_bos_token_id", true, {{"forced_bos_token_id", "5"}}, {.prompt_length = 1}},
      {"forced_bos_token_id", false, {{"forced_bos_token_id", "5"}}, {.prompt_length = 2}},
      {"forced_eos_token_id", true, {{"forced_eos_token_id", "2"}}},
      {"forced_eos_token_id", false, {}},
      {"exponential_decay_length_penalty",
       true,
       {{"exponential_decay_length_penalty", "3,1.05"}, kEnd}},
      {"exponential_decay_length_penalty",
       false,
       {{"exponential_decay_length_penalty", "3,1.05"}},
       {},
       "there are no end tokens"},
      {"guidance_scale", true, {{"guidance_scale", "1.5"}}},
      {"guidance_scale", false, {{"guidance_scale", "1"}}},
      {"negative_prompt_ids", true, {{"negative_prompt_ids", "5"}, {"guidance_scale", "1.5"}}},
      {"negative_prompt_ids", false, {{"negative_prompt_ids", "5"}}},
      {"remove_invalid_values", true, {{"remove_invalid_values", "true"}}},
      {"remove_invalid_values", false, {}},
      {"renormalize_logits", true, {{"renormalize_logits", "true"}, kBeams}},
      {"renormalize_logits", false, {{"renormalize_logits", "true"}}},
  };
}

std::vector<Case> length_and_search_cases() {
  return {
      {"max_new_tokens", true, {{"max_new_tokens", "5"}}},
      {"max_new_tokens", false, {}, {}, "the limit is 20, as nobody set one"},
      {"max_length", true, {{"max_length", "50"}}},
      {"max_length",
       false,
       {{"max_length", "50"}, {"max_new_tokens", "5"}},
       {},
       "max_new_tokens wins over it"},
      {"min_new_tokens", true, {{"min_new_tokens", "5"}, kEnd}},
      {"min_new_tokens", false, {{"min_new_tokens", "5"}}, {}, "there are no end tokens"},
      {"min_length", true, {{"min_length", "5"}, kEnd}, {.prompt_length = 4}},
      {"min_length", false, {{"min_length", "5"}, kEnd}, {.prompt_length = 5}},
      {"min_length", false, {{"min_length", "5"}, {"min_new_tokens", "1"}, kEnd}},
      {"max_time", true, {{"max_time", "1"}}},
      {"max_time", false, {}},
      {"stop_strings", true, {{"stop_strings", "end"}}},
      {"stop_strings", false, {}},
      {"thinking_budget", true, {{"thinking_budget", "5"}}, {.model_thinks = true}},
      {"thinking_budget",
       false,
       {{"thinking_budget", "5"}},
       {},
       "the model has no thinking tokens"},
      {"num_beams", true, {kBeams}},
      {"num_beams", false, {}},
      {"num_return_sequences", true, {{"num_return_sequences", "2"}, kDraw}},
      {"num_return_sequences", false, {}},
      {"early_stopping", true, {{"early_stopping", "true"}, kBeams}},
      {"early_stopping", false, {{"early_stopping", "true"}}},
      {"length_penalty", true, {{"length_penalty", "2"}, kBeams}},
      {"length_penalty", false, {{"length_penalty", "2"}}},
      {"length_penalty", false, {{"length_penalty", "0"}, kBeams}},
      {"eos_token_id", true, {kEnd}, {.stop_ids = {{2, "given"}}}, "2 from given"},
      {"eos_token_id", false, {{"eos_token_id", "none"}}},
      {"pad_token_id", false, {{"pad_token_id", "0"}}, {}, "a single sequence is not padded"},
      {"bos_token_id", false, {{"bos_token_id", "0"}}},
  };
}

TEST(Ledger, EverySettingActsWhereItShouldAndRestsWhereItShould) {
  std::set<std::string> acting;
  std::set<std::string> resting;
  for (const auto& cases : {choice_cases(), penalty_cases(), length_and_search_cases()}) {
    for (const Case& one : cases) {
      GenerationConfig config;
      std::string said = one.name + ":";
      for (const auto& [name, value] : one.settings) {
        said += " " + name + "=" + value;
        const auto set = set_field(&config, name, value);
        ASSERT_TRUE(set) << said << ": " << set.error().message;
      }
      const LedgerEntry entry = entry_of(config, one.name, one.facts);
      EXPECT_EQ(entry.acts, one.acts) << said << ": " << entry.why;
      EXPECT_TRUE(entry.acts || !entry.why.empty()) << said;
      if (!one.why.empty()) {
        EXPECT_EQ(entry.why, one.why) << said;
      }
      (one.acts ? acting : resting).insert(one.name);
    }
  }
  // Prompts are neither padded nor begun here; a token is always chosen in one way or the other.
  const std::set<std::string> never_act = {"pad_token_id", "bos_token_id"};
  const std::set<std::string> never_rest = {"do_sample"};
  for (const GenerationField& field : generation_fields()) {
    const std::string name(field.name);
    EXPECT_NE(acting.count(name), never_act.count(name)) << name << ": want a case where it acts";
    EXPECT_NE(resting.count(name), never_rest.count(name)) << name << ": want one where it rests";
  }
}

TEST(Ledger, IsTheTableInItsOrder) {
  const auto ledger = settings_ledger(merge_generation_config({}, {}), {});
  ASSERT_EQ(ledger.size(), generation_fields().size());
  for (size_t i = 0; i < ledger.size(); ++i) {
    EXPECT_EQ(ledger[i].name, generation_fields()[i].name);
  }
}

TEST(Ledger, SaysWhereValuesComeFrom) {
  GenerationConfig given;
  given.temperature = 0.5;
  GenerationConfig of_model;
  of_model.temperature = 0.6;
  of_model.top_p = 0.9;
  EXPECT_EQ(entry_of(given, "temperature", {}, of_model).origin, "given");
  EXPECT_EQ(entry_of(given, "temperature", {}, of_model).value, "0.5");
  EXPECT_EQ(entry_of(given, "top_p", {}, of_model).origin, "model");
  EXPECT_EQ(entry_of(given, "top_k", {}, of_model).origin, "default");
  EXPECT_EQ(entry_of(given, "top_k", {}, of_model).value, "50");
  EXPECT_EQ(entry_of(given, "min_p", {}, of_model).origin, "unset");
  EXPECT_EQ(entry_of(given, "min_p", {}, of_model).value, "none");
  EXPECT_EQ(entry_of(given, "temperature", {.from_template = {"temperature"}}).origin, "template");
}

}  // namespace
}  // namespace logitlab
