// The conformance cases W (filters) and P (processors): settings and outcomes that the library's
// own code produced for small rows. Chains are built from settings, as a run builds them.
#include <array>
#include <cmath>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "sampling/distribution.h"
#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"
#include "sampling/processors/repetition_penalty.h"
#include "sampling/processors/temperature.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

constexpr float kTolerance = 1e-4F;  // the cases are given with four or five digits

class FixedGuidance final : public GuidanceSource {
 public:
  explicit FixedGuidance(Row row) : row_(std::move(row)) {}
  std::span<const float> unguided_logits(const SequenceView& /*sequence*/) override { return row_; }

 private:
  Row row_;
};

struct Case {
  std::string id;
  Row logits;
  std::string settings;  // JSON; do_sample and top_k are off unless it says otherwise
  Ids ids = {0};
  int64_t prompt_length = -1;  // -1: all of ids
  int64_t min_tokens_to_keep = 1;
  std::optional<int64_t> max_length;
  Row unguided;
};

Result<ProcessorChain> chain_of(const Case& c, GuidanceSource* guidance) {
  Json json = *parse_json(c.settings, c.id);
  if (!json.contains("top_k")) {
    json["top_k"] = 0;
  }
  ASSIGN_OR_RETURN(const ParsedConfig parsed,
                   generation_config_from_json(json, c.id, UnknownKeys::kRefuse));
  ChainOptions options;
  options.vocab_size = static_cast<int64_t>(c.logits.size());
  options.min_tokens_to_keep = c.min_tokens_to_keep;
  options.prompt_length =
      c.prompt_length < 0 ? static_cast<int64_t>(c.ids.size()) : c.prompt_length;
  options.max_length = c.max_length;
  options.guidance = guidance;
  return build_chain(merge_generation_config(parsed.config, {}).config, options);
}

Row outcome(const Case& c) {
  FixedGuidance guidance(c.unguided);
  auto chain = chain_of(c, &guidance);
  EXPECT_TRUE(chain.has_value()) << c.id << ": " << (chain ? "" : chain.error().message);
  Row row = c.logits;
  if (chain) {
    chain->apply(
        row, {c.ids, c.prompt_length < 0 ? static_cast<int64_t>(c.ids.size()) : c.prompt_length});
  }
  return row;
}

Ids kept(const Case& c) {
  return kept_ids(outcome(c));
}

void expect_row(const Case& c, const Row& wanted) {
  const Row found = outcome(c);
  ASSERT_EQ(found.size(), wanted.size()) << c.id;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (std::isinf(wanted[i])) {
      EXPECT_EQ(found[i], wanted[i]) << c.id << " token " << i;
    } else {
      EXPECT_NEAR(found[i], wanted[i], kTolerance * std::max(1.0F, std::abs(wanted[i])))
          << c.id << " token " << i;
    }
  }
}

std::string draw(const std::string& settings) {
  return R"({"do_sample": true, )" + settings + "}";
}

Ids all_of(size_t n) {
  Ids ids;
  for (size_t i = 0; i < n; ++i) {
    ids.push_back(static_cast<TokenId>(i));
  }
  return ids;
}

// ---------------------------------------------------------------------------------- filters

TEST(ReferenceCases, W1toW4TopP) {
  const Row a = row_a();
  EXPECT_EQ(kept({"W1", a, draw(R"("top_p": 0.5)")}), (Ids{0}));
  EXPECT_EQ(kept({"W1", a, draw(R"("top_p": 0.64)")}), (Ids{0}));
  EXPECT_EQ(kept({"W2", a, draw(R"("top_p": 0.65)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W2", a, draw(R"("top_p": 0.7)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W3", a, draw(R"("top_p": 0.9)")}), (Ids{0, 1, 2}));
  EXPECT_EQ(kept({"W3", a, draw(R"("top_p": 0.95)")}), (Ids{0, 1, 2}));
  EXPECT_EQ(kept({"W3", a, draw(R"("top_p": 0.97)")}), all_of(4));
  EXPECT_EQ(kept({"W4", a, draw(R"("top_p": 0)")}), (Ids{0}));
}

TEST(ReferenceCases, W5W6TopPCutsATieGroup) {
  const Row flat(4, 0.0F);
  const std::vector<std::pair<std::string, size_t>> sizes = {
      {"0.25", 1}, {"0.3", 2}, {"0.5", 2}, {"0.75", 3}, {"0.9", 4}};
  for (const auto& [top_p, size] : sizes) {
    // Which of the equal tokens stay is ours to say: the lower ids.
    EXPECT_EQ(kept({"W5", flat, draw(R"("top_p": )" + top_p)}), all_of(size)) << top_p;
  }
  EXPECT_EQ(kept({"W6", {1, 1, 0}, draw(R"("top_p": 0.1)")}).size(), 1U);
  EXPECT_EQ(kept({"W6", {1, 1, 0}, draw(R"("top_k": 1)")}), (Ids{0, 1}));
}

TEST(ReferenceCases, W7toW9TopK) {
  const Row processed = outcome({"W7", {3, 3, 1}, draw(R"("top_k": 1)")});
  EXPECT_EQ(kept_ids(processed), (Ids{0, 1}));
  EXPECT_NEAR(softmax_probabilities(processed)[0], 0.5, 1e-12);
  EXPECT_EQ(kept({"W8", {3, 1, 1, 1, 0}, draw(R"("top_k": 2)")}), all_of(4));
  EXPECT_EQ(kept({"W9", row_a(), draw(R"("top_k": 99)")}), all_of(4));
}

TEST(ReferenceCases, W10W11MinP) {
  const Row a = row_a();
  EXPECT_EQ(kept({"W10", a, draw(R"("min_p": 0.05)")}), (Ids{0, 1, 2}));
  EXPECT_EQ(kept({"W10", a, draw(R"("min_p": 0.1)")}), (Ids{0, 1, 2}));
  EXPECT_EQ(kept({"W10", a, draw(R"("min_p": 0.2)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W10", a, draw(R"("min_p": 0.5)")}), (Ids{0}));
  EXPECT_EQ(kept({"W10", a, draw(R"("min_p": 1)")}), (Ids{0}));
  EXPECT_EQ(kept({"W11", {1, 1, 0}, draw(R"("min_p": 1)")}), (Ids{0, 1}));
}

TEST(ReferenceCases, W12toW14EtaAndEpsilon) {
  const Row a = row_a();
  EXPECT_EQ(kept({"W12", a, draw(R"("eta_cutoff": 0.3)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W13", a, draw(R"("eta_cutoff": 0.01)")}), all_of(4));
  EXPECT_EQ(kept({"W13", a, draw(R"("eta_cutoff": 0.1)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W13", a, draw(R"("eta_cutoff": 0.5)")}), (Ids{0}));
  EXPECT_EQ(kept({"W14", a, draw(R"("epsilon_cutoff": 0.01)")}), all_of(4));
  EXPECT_EQ(kept({"W14", a, draw(R"("epsilon_cutoff": 0.05)")}), (Ids{0, 1, 2}));
  EXPECT_EQ(kept({"W14", a, draw(R"("epsilon_cutoff": 0.1)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W14", a, draw(R"("epsilon_cutoff": 0.3)")}), (Ids{0}));
  EXPECT_EQ(kept({"W14", a, draw(R"("epsilon_cutoff": 0.9)")}), (Ids{0}));
}

TEST(ReferenceCases, W15W16TopH) {
  const Row a = row_a();
  EXPECT_EQ(kept({"W15", a, draw(R"("top_h": 0.1)")}), (Ids{0}));
  EXPECT_EQ(kept({"W15", a, draw(R"("top_h": 0.5)")}), (Ids{0}));
  EXPECT_EQ(kept({"W15", a, draw(R"("top_h": 0.7)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W15", a, draw(R"("top_h": 0.9)")}), (Ids{0, 1, 2}));
  // At 1.0 rounding may take the last one.
  EXPECT_GE(kept({"W15", a, draw(R"("top_h": 1.0)")}).size(), 3U);
  EXPECT_EQ(kept({"W16", Row(128, 0.0F), draw(R"("top_h": 1.0)")}).size(), 100U);
}

TEST(ReferenceCases, W17W18Typical) {
  const Row halves = {std::log(0.5F), std::log(0.25F), std::log(0.125F), std::log(0.125F)};
  EXPECT_EQ(kept({"W17", halves, draw(R"("typical_p": 0.2)")}), (Ids{1}));
  EXPECT_EQ(kept({"W17", halves, draw(R"("typical_p": 0.3)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W17", halves, draw(R"("typical_p": 0.7)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W17", halves, draw(R"("typical_p": 0.8)")}), all_of(4));
  EXPECT_EQ(kept({"W18", row_a(), draw(R"("typical_p": 0.1)")}), (Ids{1}));
  EXPECT_EQ(kept({"W18", row_a(), draw(R"("typical_p": 0.3)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W18", row_a(), draw(R"("typical_p": 0.9)")}), (Ids{0, 1, 2}));
}

TEST(ReferenceCases, W19toW24Combinations) {
  const Row a = row_a();
  EXPECT_EQ(kept({"W19", {1, 1, 0}, draw(R"("epsilon_cutoff": 0.9)")}), (Ids{0, 1}));
  expect_row({"W20", a, draw(R"("temperature": 2.0)")}, {1, 0.5, 0, -0.5});
  const auto cold = softmax_probabilities(outcome({"W20", a, draw(R"("temperature": 0.5)")}));
  EXPECT_NEAR(cold[0], 0.86495, 1e-5);
  EXPECT_NEAR(cold[3], 0.00214, 1e-5);
  EXPECT_EQ(kept({"W21", a, draw(R"("temperature": 2.0, "top_p": 0.6)")}), (Ids{0, 1}));
  EXPECT_EQ(kept({"W21", a, draw(R"("temperature": 1.0, "top_p": 0.6)")}), (Ids{0}));
  EXPECT_EQ(kept({"W22", a, draw(R"("top_k": 2, "top_p": 0.7)")}), (Ids{0}));
  EXPECT_EQ(kept({"W22", a, draw(R"("top_k": 2, "top_p": 0.75)")}), (Ids{0, 1}));
  expect_row({"W23", a, draw(R"("top_k": 2, "renormalize_logits": true)")},
             {-0.3133F, -1.3133F, kMinusInfinity, kMinusInfinity});
  Case beam{"W24", a, draw(R"("top_k": 1)")};
  beam.min_tokens_to_keep = 2;
  EXPECT_EQ(kept(beam), (Ids{0, 1}));
}

TEST(ReferenceCases, W25W26HolesAndDefaults) {
  const Row row = {5, kMinusInfinity, kMinusInfinity};
  EXPECT_EQ(outcome({"W25", row, draw(R"("top_k": 2, "top_p": 0.5, "min_p": 0.5, "typical_p": 0.9,
                                         "top_h": 0.5, "eta_cutoff": 0.1)")}),
            row);
  GenerationConfig call;
  call.do_sample = true;
  const auto bare = build_chain(merge_generation_config(call, {}).config, {.vocab_size = 64});
  ASSERT_TRUE(bare.has_value());
  EXPECT_EQ(bare->names(), std::vector<std::string_view>{"top_k"});
  Row row64(64);
  for (size_t i = 0; i < row64.size(); ++i) {
    row64[i] = static_cast<float>(i);
  }
  auto chain = *build_chain(merge_generation_config(call, {}).config, {.vocab_size = 64});
  const Ids ids = {0};
  chain.apply(row64, {ids, 1});
  EXPECT_EQ(kept_ids(row64).size(), 50U);
  call.top_k = 0;
  EXPECT_TRUE(build_chain(merge_generation_config(call, {}).config, {.vocab_size = 64})->empty());
}

// ------------------------------------------------------------------------------- processors

TEST(ReferenceCases, P1toP3RepetitionPenalty) {
  expect_row({"P1", {2, -1, 0.5}, R"({"repetition_penalty": 2.0})", {0, 1, 1}}, {1, -2, 0.5});
  expect_row({"P2", {2, -1}, R"({"repetition_penalty": 0.5})", {0, 1}}, {4, -0.5});
  const Row greedy = outcome({"P3", {2, 1.9F, 0, -5}, R"({"repetition_penalty": 1.1})", {0}});
  EXPECT_LT(greedy[0], greedy[1]);
}

TEST(ReferenceCases, P4toP7NoRepeatNgram) {
  const Row row(8, 0.0F);
  EXPECT_EQ(kept({"P4", row, R"({"no_repeat_ngram_size": 3})", {1, 2, 3, 1, 2}}),
            (Ids{0, 1, 2, 4, 5, 6, 7}));
  EXPECT_EQ(kept({"P5", row, R"({"no_repeat_ngram_size": 2})", {5, 6, 5}}),
            (Ids{0, 1, 2, 3, 4, 5, 7}));
  EXPECT_EQ(kept({"P6", row, R"({"no_repeat_ngram_size": 1})", {1, 3}}), (Ids{0, 2, 4, 5, 6, 7}));
  EXPECT_EQ(kept({"P7", row, R"({"no_repeat_ngram_size": 4})", {1, 3}}), all_of(8));
}

TEST(ReferenceCases, P8toP12BadWordsAndBias) {
  const Row row(5, 0.0F);
  const std::string bad = R"({"bad_words_ids": [[3], [1, 2]]})";
  EXPECT_EQ(kept({"P8", row, bad, {4, 1}}), (Ids{0, 1, 4}));
  EXPECT_EQ(kept({"P9", row, bad, {1}}), (Ids{0, 1, 2, 4}));
  EXPECT_EQ(kept({"P10", row, R"({"bad_words_ids": [[0]], "eos_token_id": [0, 4]})"}), all_of(5));
  expect_row({"P11", row, R"({"sequence_bias": {"3": 2.0, "1,2": -5.0, "4,1,2": 1.0}})", {0, 4, 1}},
             {0, 0, -4, 2, 0});
  EXPECT_FALSE(chain_of({"P12", row, R"({"sequence_bias": [[[0], 1.0]]})"}, nullptr).has_value());
  EXPECT_TRUE(chain_of({"P12", row, R"({"sequence_bias": {"0": 1.0}})"}, nullptr).has_value());
}

TEST(ReferenceCases, P13toP16LengthAndForcedTokens) {
  const std::string decay =
      R"({"exponential_decay_length_penalty": [1, 1.5], "eos_token_id": [1]})";
  for (const auto& [length, wanted] : {std::pair{3, -2.0F}, {4, -1.0F}, {5, 0.5F}}) {
    Case c{"P13", {0, -2}, decay, Ids(static_cast<size_t>(length), 0)};
    c.prompt_length = 2;
    expect_row(c, {0, wanted});
  }
  const float largest = std::numeric_limits<float>::max();
  expect_row(
      {"P14", {kNan, kPlusInfinity, kMinusInfinity, 1}, R"({"remove_invalid_values": true})"},
      {0, largest, -largest, 1});
  Case forced{"P15", {5, 1, 2}, R"({"forced_eos_token_id": [1, 2], "max_length": 3})", {0, 0}};
  forced.prompt_length = 1;
  forced.max_length = 3;
  expect_row(forced, {kMinusInfinity, 0, 0});
  expect_row({"P16", {5, 1, 2}, R"({"forced_bos_token_id": 2})"},
             {kMinusInfinity, kMinusInfinity, 0});
}

TEST(ReferenceCases, P20ProcessorsOfTheCaller) {
  const RepetitionPenalty repetition(9.0);
  const Temperature temperature(3.0);
  const std::array<const LogitsProcessor*, 2> callers = {&temperature, &repetition};
  const GenerationConfig given{
      .do_sample = true, .temperature = 0.5, .top_k = 0, .repetition_penalty = 1.5};
  ChainOptions options;
  options.vocab_size = 2;
  options.callers = callers;
  auto chain = build_chain(merge_generation_config(given, {}).config, options);
  ASSERT_TRUE(chain) << chain.error().message;
  EXPECT_EQ(chain->names(),
            (std::vector<std::string_view>{"repetition_penalty", "temperature", "temperature"}));
  Row row = {18, 3};
  const Ids ids = {0};
  chain->apply(row, {ids, 1});
  EXPECT_NEAR(row[0], 18 / 9.0 / 3 / 0.5, 1e-6);
  EXPECT_NEAR(row[1], 3 / 3.0 / 0.5, 1e-6);
  // Nothing of the settings has its name: both of the name stand where the caller's do.
  const std::array<const LogitsProcessor*, 2> two = {&repetition, &repetition};
  options.callers = two;
  chain = build_chain(
      merge_generation_config({.do_sample = true, .temperature = 0.5, .top_k = 0}, {}).config,
      options);
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->names(), (std::vector<std::string_view>{"repetition_penalty",
                                                           "repetition_penalty", "temperature"}));
  chain = build_chain(merge_generation_config({.semantics = Semantics::kVllm}, {}).config, options);
  ASSERT_FALSE(chain);
  EXPECT_NE(chain.error().message.find("repetition_penalty"), std::string::npos);
}

TEST(ReferenceCases, P17P18GuidanceAndNormalising) {
  Case guided{"P17", {2, 0}, R"({"guidance_scale": 2.0})"};
  guided.unguided = {0, 0};
  expect_row(guided, {0.43929F, -3.56071F});
  expect_row({"P18", row_a(), R"({"renormalize_logits": true})"},
             {-0.44019F, -1.44019F, -2.44019F, -3.44019F});
}

}  // namespace
}  // namespace logitlab
