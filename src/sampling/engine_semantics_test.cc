// One test for each row of the table in docs/semantics.md. Expected values are worked out by hand
// from the engines' rules.
#include "sampling/engine_semantics.h"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "sampling/effective_config.h"
#include "sampling/processor_chain.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

using Names = std::vector<std::string_view>;

constexpr auto kTransformers = Semantics::kTransformers;
constexpr auto kVllm = Semantics::kVllm;
constexpr auto kLlamaCpp = Semantics::kLlamaCpp;

// Sampling with every filter off.
GenerationConfig draw() {
  GenerationConfig call;
  call.do_sample = true;
  call.top_k = 0;
  return call;
}

Result<ProcessorChain> chain_of(GenerationConfig call, Semantics semantics, size_t vocab_size) {
  call.semantics = semantics;
  return build_chain(merge_generation_config(call, {}).config,
                     {.vocab_size = static_cast<int64_t>(vocab_size),
                      .prompt_length = 1,
                      .thinking = ThinkingIds{.open = 6, .close = 7}});
}

Row run(const GenerationConfig& call, Semantics semantics, Row row, const Ids& ids = {0},
        int64_t prompt_length = 1) {
  auto chain = chain_of(call, semantics, row.size());
  EXPECT_TRUE(chain.has_value()) << (chain ? "" : chain.error().message);
  if (chain) {
    chain->apply(row, SequenceView{.ids = ids, .prompt_length = prompt_length});
  }
  return row;
}

Ids kept(const GenerationConfig& call, Semantics semantics, const Row& row) {
  return kept_ids(run(call, semantics, row));
}

Names names(const GenerationConfig& call, Semantics semantics) {
  const auto chain = chain_of(call, semantics, 8);
  EXPECT_TRUE(chain.has_value()) << (chain ? "" : chain.error().message);
  return chain ? chain->names() : Names{};
}

std::string refusal(const GenerationConfig& call, Semantics semantics) {
  const auto chain = chain_of(call, semantics, 8);
  EXPECT_FALSE(chain.has_value());
  if (chain) {
    return "";
  }
  EXPECT_EQ(chain.error().code, ErrorCode::kInvalidArgument);
  return chain.error().message;
}

// What all three have.
GenerationConfig all_common() {
  GenerationConfig call = draw();
  call.temperature = 0.5;
  call.top_k = 3;
  call.top_p = 0.9;
  call.min_p = 0.1;
  call.repetition_penalty = 1.5;
  call.frequency_penalty = 0.5;
  call.presence_penalty = 0.25;
  call.logit_bias = {{.id = 2, .bias = 1}};
  return call;
}

TEST(Semantics, OrderOfTheChain) {
  GenerationConfig call = all_common();
  call.thinking_budget = 5;
  EXPECT_EQ(names(call, kLlamaCpp),
            (Names{"thinking_budget", "logit_bias", "repetition_penalty", "frequency_penalty",
                   "presence_penalty", "top_k", "top_p", "min_p", "temperature"}));
  call.min_new_tokens = 2;
  call.eos_token_id = {1};
  call.bad_words_ids = {{3, 4}};
  EXPECT_EQ(names(call, kVllm),
            (Names{"bad_words_ids", "min_new_tokens", "logit_bias", "repetition_penalty",
                   "frequency_penalty", "presence_penalty", "thinking_budget", "temperature",
                   "min_p", "top_k", "top_p"}));
  call = draw();
  call.temperature = 0.5;
  call.top_k = 3;
  call.top_p = 0.9;
  call.min_p = 0.1;
  call.typical_p = 0.8;
  EXPECT_EQ(names(call, kTransformers),
            (Names{"temperature", "top_k", "top_p", "min_p", "typical_p"}));
  EXPECT_EQ(names(call, kLlamaCpp), (Names{"top_k", "typical_p", "top_p", "min_p", "temperature"}));
}

TEST(Semantics, TransformersIsTheDefault) {
  GenerationConfig call = draw();
  call.top_k = 1;
  const auto chain = build_chain(merge_generation_config(call, {}).config, {.vocab_size = 3});
  Row row = {1, 1, 0};
  const Ids ids = {0};
  auto copy = chain->clone();
  copy.apply(row, SequenceView{.ids = ids, .prompt_length = 1});
  EXPECT_EQ(kept_ids(row), (Ids{0, 1}));
}

TEST(Semantics, TiesAtK) {
  GenerationConfig call = draw();
  call.top_k = 1;
  EXPECT_EQ(kept(call, kTransformers, {1, 1, 0}), (Ids{0, 1}));
  EXPECT_EQ(kept(call, kVllm, {1, 1, 0}), (Ids{0}));
  EXPECT_EQ(kept(call, kLlamaCpp, {1, 1, 0}), (Ids{0}));
  call.top_k = 2;
  EXPECT_EQ(kept(call, kTransformers, {0, 1, 1, 1, 3}), (Ids{1, 2, 3, 4}));
  EXPECT_EQ(kept(call, kVllm, {0, 1, 1, 1, 3}), (Ids{1, 4}));
  EXPECT_EQ(kept(call, kLlamaCpp, {0, 1, 1, 1, 3}), (Ids{1, 4}));
  call.top_k = 9;
  EXPECT_EQ(kept(call, kVllm, {1, 1, 0}), (Ids{0, 1, 2}));
}

TEST(Semantics, PlaceOfTheTemperature) {
  GenerationConfig call = draw();
  call.temperature = 2.0;
  call.min_p = 0.2;
  // Of the best: e^-1 = .37, e^-2 = .14, e^-3 = .05; at temperature 2 .61, .37, .22.
  EXPECT_EQ(run(call, kTransformers, row_a()), (Row{1, 0.5F, 0, -0.5F}));
  EXPECT_EQ(run(call, kVllm, row_a()), (Row{1, 0.5F, 0, -0.5F}));
  EXPECT_EQ(run(call, kLlamaCpp, row_a()), (Row{1, 0.5F, kMinusInfinity, kMinusInfinity}));
  call.min_p.reset();
  call.top_p = 0.85;
  // .644 .237 ... reach .881 with two; at temperature 2 .455 .276 .167 reach .898 with three.
  EXPECT_EQ(kept(call, kTransformers, row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(call, kVllm, row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(call, kLlamaCpp, row_a()), (Ids{0, 1}));
}

TEST(Semantics, MinPStandsBeforeTopPInVllm) {
  GenerationConfig call = draw();
  call.min_p = 0.2;
  call.top_p = 0.7;
  // min_p leaves two tokens, .731 and .269 of what is left: the first reaches .7. Of the whole row
  // it has .644 alone.
  EXPECT_EQ(kept(call, kVllm, row_a()), (Ids{0}));
  EXPECT_EQ(kept(call, kTransformers, row_a()), (Ids{0, 1}));
  EXPECT_EQ(kept(call, kLlamaCpp, row_a()), (Ids{0, 1}));
}

TEST(Semantics, TheTokenThatCrossesP) {
  GenerationConfig call = draw();
  const Row equal(10, 0.0F);  // ten times 0.1F = .100000001490
  // From the small end 9 * 0.1F = .900000013 rounds to .900000036, above 1 - .1 = .899999976: the
  // ninth stays. From the top the first reaches .1 = 0.1F at once.
  call.top_p = 0.1;
  EXPECT_EQ(kept(call, kTransformers, equal), (Ids{0, 1}));
  EXPECT_EQ(kept(call, kVllm, equal), (Ids{0}));
  EXPECT_EQ(kept(call, kLlamaCpp, equal), (Ids{0}));
  // After three the float32 sum is .300000012 = .3F. 7 * 0.1F rounds to .699999988 = 1 - .3.
  call.top_p = 0.3;
  EXPECT_EQ(kept(call, kTransformers, equal), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(call, kVllm, equal), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(call, kLlamaCpp, equal), (Ids{0, 1, 2}));
}

TEST(Semantics, TopPLooksAsFarAsItMust) {
  GenerationConfig call = draw();
  call.top_p = 0.5;
  const Row equal(4096, 1.0F);  // probabilities 2^-12: every sum is exact
  for (const Semantics semantics : {kVllm, kLlamaCpp}) {
    const Ids ids = kept(call, semantics, equal);
    ASSERT_EQ(ids.size(), 2048U);
    EXPECT_EQ(ids.back(), 2047);
  }
  call.top_p = 0.0;
  EXPECT_EQ(kept(call, kLlamaCpp, {1, 1, 0}), (Ids{0}));
  EXPECT_NE(refusal(call, kVllm).find("top_p: 0 found"), std::string::npos);
}

TEST(Semantics, TopPWithoutASoftmaxRemovesNothing) {
  GenerationConfig call = draw();
  call.top_p = 0.5;
  for (const Semantics semantics : {kVllm, kLlamaCpp}) {
    EXPECT_EQ(kept(call, semantics, {1, kPlusInfinity, 0}), (Ids{0, 1, 2}));
    EXPECT_EQ(kept(call, semantics, {1, kNan, 0}), (Ids{0, 1, 2}));
    EXPECT_EQ(kept(call, semantics, {kMinusInfinity, 1, 0}), (Ids{1}));
  }
}

TEST(Semantics, BoundaryOfMinP) {
  GenerationConfig call = draw();
  call.min_p = 0.1;
  // As a logit exactly on the boundary. As a probability exp(-2.30258512) = .0999999968 rounds to
  // .0999999940, below .1 = .100000001.
  const Row row = {0, std::log(0.1F), -3};
  EXPECT_EQ(kept(call, kLlamaCpp, row), (Ids{0, 1}));
  EXPECT_EQ(kept(call, kTransformers, row), (Ids{0}));
  EXPECT_EQ(kept(call, kVllm, row), (Ids{0}));
  EXPECT_EQ(kept(call, kLlamaCpp, {0, std::nextafter(std::log(0.1F), -9.0F), -3}), (Ids{0}));
  call.min_p = 1.0;
  for (const Semantics semantics : {kTransformers, kVllm, kLlamaCpp}) {
    EXPECT_EQ(kept(call, semantics, {2, 1, 2}), (Ids{0, 2}));
  }
}

TEST(Semantics, MinPOfZeroBuildsNothingInTheEngines) {
  GenerationConfig call = draw();
  call.min_p = 0.0;
  EXPECT_EQ(names(call, kTransformers), (Names{"min_p"}));
  EXPECT_TRUE(names(call, kVllm).empty());
  EXPECT_TRUE(names(call, kLlamaCpp).empty());
}

TEST(Semantics, TiesAndHitsOfTypicalP) {
  GenerationConfig call = draw();
  call.typical_p = 0.5;
  // Four times .25, all equally typical. transformers stops when .5 is reached and keeps all that
  // are as near; llama.cpp stops when .5 is exceeded and keeps three.
  EXPECT_EQ(kept(call, kTransformers, {0, 0, 0, 0}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept(call, kLlamaCpp, {0, 0, 0, 0}), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(call, kLlamaCpp, {0, kMinusInfinity, 0, 0, 0}), (Ids{0, 2, 3}));
}

// 70 tokens of prompt, 4 of answer: of the last 64, 60 are token 2 and 4 are token 3.
Ids long_sequence() {
  Ids ids(10, 1);
  ids.insert(ids.end(), 60, 2);
  ids.insert(ids.end(), 4, 3);
  return ids;
}

TEST(Semantics, WindowOfTheRepetitionPenalty) {
  GenerationConfig call = draw();
  call.repetition_penalty = 2.0;
  const Row row = {2, 2, 2, -2, 2};
  EXPECT_EQ(run(call, kTransformers, row, long_sequence(), 70), (Row{2, 1, 1, -4, 2}));
  EXPECT_EQ(run(call, kVllm, row, long_sequence(), 70), (Row{2, 1, 1, -4, 2}));
  EXPECT_EQ(run(call, kLlamaCpp, row, long_sequence(), 70), (Row{2, 2, 1, -4, 2}));
}

TEST(Semantics, WindowOfThePresenceAndFrequencyPenalties) {
  GenerationConfig call = draw();
  call.frequency_penalty = 0.5;
  call.presence_penalty = 0.25;
  const Row row = {2, 2, 2, 2, 2};
  // The answer holds token 3 four times: 2 - 4 * .5 - .25.
  EXPECT_EQ(run(call, kTransformers, row, long_sequence(), 70), (Row{2, 2, 2, -0.25F, 2}));
  EXPECT_EQ(run(call, kVllm, row, long_sequence(), 70), (Row{2, 2, 2, -0.25F, 2}));
  // The window holds token 2 sixty times as well: 2 - 60 * .5 - .25.
  EXPECT_EQ(run(call, kLlamaCpp, row, long_sequence(), 70), (Row{2, 2, -28.25F, -0.25F, 2}));
}

TEST(Semantics, BiasesComeBeforeThePenalties) {
  GenerationConfig call = draw();
  call.repetition_penalty = 2.0;
  call.logit_bias = {{.id = 0, .bias = 1}};
  EXPECT_EQ(run(call, kTransformers, {1, 0})[0], 1.5F);  // 1 / 2 + 1
  EXPECT_EQ(run(call, kVllm, {1, 0})[0], 1.0F);          // (1 + 1) / 2
  EXPECT_EQ(run(call, kLlamaCpp, {1, 0})[0], 1.0F);
}

TEST(Semantics, TemperatureZeroIsGreedyInTheEngines) {
  GenerationConfig call = draw();
  call.temperature = 0.0;
  EXPECT_NE(refusal(call, kTransformers).find("temperature"), std::string::npos);
  EXPECT_EQ(kept(call, kVllm, {1, 3, 3, 0}), (Ids{1}));
  EXPECT_EQ(kept(call, kLlamaCpp, {1, 3, 3, 0}), (Ids{1}));
  EXPECT_EQ(run(call, kVllm, {1, 3, 3, 0})[1], 3.0F);
  call.temperature = -0.5;
  EXPECT_NE(refusal(call, kVllm).find("temperature"), std::string::npos);
  EXPECT_NE(refusal(call, kLlamaCpp).find("temperature"), std::string::npos);
}

TEST(Semantics, TemperatureZeroSwitchesTheFiltersOffInVllmAlone) {
  GenerationConfig call = draw();
  call.temperature = 0.0;
  call.top_k = 3;
  call.top_p = 0.9;
  call.min_p = 0.1;
  EXPECT_EQ(names(call, kVllm), (Names{"temperature"}));
  EXPECT_EQ(names(call, kLlamaCpp), (Names{"top_k", "top_p", "min_p", "temperature"}));
}

TEST(Semantics, TemperatureZeroOfLlamaCppComesAfterTypicalP) {
  GenerationConfig call = draw();
  call.temperature = 0.0;
  call.typical_p = 0.5;
  // .4 and ten times .06: the entropy is 2.05, the surprises .92 and 2.81, so the ten are nearer
  // (.76 against 1.14) and nine of them exceed .5. The most likely token is gone before the choice.
  Row row(11, std::log(0.06F));
  row[0] = std::log(0.4F);
  EXPECT_EQ(kept(call, kLlamaCpp, row), (Ids{1}));
}

TEST(Semantics, LowTemperaturesAreRaisedInVllm) {
  GenerationConfig call = draw();
  call.temperature = 0.001;
  EXPECT_FLOAT_EQ(run(call, kVllm, {0.01F, 0})[0], 1.0F);
  EXPECT_FLOAT_EQ(run(call, kLlamaCpp, {0.01F, 0})[0], 10.0F);
  EXPECT_FLOAT_EQ(run(call, kTransformers, {0.01F, 0})[0], 10.0F);
  call.temperature = 0.02;
  EXPECT_FLOAT_EQ(run(call, kVllm, {0.01F, 0})[0], 0.5F);
}

TEST(Semantics, SettingsThatAnEngineLacksAreRefused) {
  GenerationConfig call = draw();
  call.typical_p = 0.9;
  const std::string message = refusal(call, kVllm);
  EXPECT_NE(message.find("typical_p"), std::string::npos) << message;
  EXPECT_NE(message.find("semantics=vllm"), std::string::npos) << message;
  EXPECT_NE(message.find("set semantics to transformers"), std::string::npos) << message;
  EXPECT_EQ(names(call, kLlamaCpp), (Names{"typical_p"}));
  call.typical_p = 1.0;
  EXPECT_TRUE(names(call, kVllm).empty());

  const auto refused_by_both = [](auto&& change) {
    GenerationConfig changed = draw();
    change(&changed);
    EXPECT_TRUE(chain_of(changed, kTransformers, 8).has_value());
    EXPECT_NE(refusal(changed, kVllm), "");
    EXPECT_NE(refusal(changed, kLlamaCpp), "");
  };
  refused_by_both([](GenerationConfig* c) { c->top_h = 0.5; });
  refused_by_both([](GenerationConfig* c) { c->epsilon_cutoff = 0.1; });
  refused_by_both([](GenerationConfig* c) { c->eta_cutoff = 0.1; });
  refused_by_both([](GenerationConfig* c) { c->no_repeat_ngram_size = 2; });
  refused_by_both([](GenerationConfig* c) { c->encoder_repetition_penalty = 1.5; });
  refused_by_both([](GenerationConfig* c) { c->suppress_tokens = {3}; });
  refused_by_both([](GenerationConfig* c) { c->sequence_bias = {{.ids = {1}, .bias = 1}}; });
  refused_by_both([](GenerationConfig* c) { c->num_beams = 2; });
  refused_by_both([](GenerationConfig* c) { c->renormalize_logits = true; });
}

TEST(Semantics, GreedyRunsHaveNoFiltersAnywhere) {
  GenerationConfig call = all_common();
  call.do_sample = false;
  for (const Semantics semantics : {kVllm, kLlamaCpp}) {
    EXPECT_EQ(names(call, semantics),
              (Names{"logit_bias", "repetition_penalty", "frequency_penalty", "presence_penalty"}));
  }
}

TEST(Semantics, FiltersSayWhereTheyCut) {
  struct Watch final : StageObserver {
    void after_stage(int64_t /*stage*/, const LogitsProcessor& processor,
                     std::span<const float> /*scores*/) override {
      kind = processor.kind();
      cut = processor.cut();
    }
    ProcessorKind kind = ProcessorKind::kTransform;
    Cut cut;
  };
  const auto last_cut = [](const GenerationConfig& call, Semantics semantics, Row row) {
    auto chain = chain_of(call, semantics, row.size());
    Watch watch;
    const Ids ids = {0};
    chain->apply(row, SequenceView{.ids = ids, .prompt_length = 1}, &watch);
    EXPECT_EQ(watch.kind, ProcessorKind::kFilter);
    return watch.cut;
  };
  GenerationConfig call = draw();
  call.top_k = 2;
  EXPECT_EQ(last_cut(call, kVllm, {0, 1, 1, 1, 3}).measure, CutMeasure::kScore);
  EXPECT_EQ(last_cut(call, kVllm, {0, 1, 1, 1, 3}).threshold, 1.0);
  call = draw();
  call.top_p = 0.5;
  EXPECT_EQ(last_cut(call, kLlamaCpp, Row(8, 0.0F)).measure, CutMeasure::kMass);
  EXPECT_EQ(last_cut(call, kLlamaCpp, Row(8, 0.0F)).threshold, 0.5);
  call = draw();
  call.min_p = 0.25;
  EXPECT_EQ(last_cut(call, kLlamaCpp, {1, 0}).measure, CutMeasure::kScore);
  EXPECT_NEAR(last_cut(call, kLlamaCpp, {1, 0}).threshold, 1 - std::log(4.0), 1e-6);
  call = draw();
  call.temperature = 0.0;
  EXPECT_EQ(last_cut(call, kVllm, {1, 3, 0}).threshold, 3.0);
}

}  // namespace
}  // namespace logitlab
