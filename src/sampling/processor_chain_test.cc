#include "sampling/processor_chain.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "base/philox.h"
#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"
#include "sampling/registry.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

using Names = std::vector<std::string_view>;

Result<ProcessorChain> chain_of(const GenerationConfig& call, int64_t min_tokens_to_keep = 1) {
  return build_chain(merge_generation_config(call, {}).config,
                     {.vocab_size = 4, .min_tokens_to_keep = min_tokens_to_keep});
}

Row run(const GenerationConfig& call, Row row) {
  auto chain = chain_of(call);
  EXPECT_TRUE(chain.has_value());
  const Ids ids = {0};
  chain->apply(row, SequenceView{.ids = ids, .prompt_length = 1});
  return row;
}

class NoGuidance final : public GuidanceSource {
 public:
  std::span<const float> unguided_logits(const SequenceView& /*sequence*/) override { return {}; }
};

TEST(ProcessorRegistry, StandsInTheOrderOfTheSlots) {
  const auto registry = processor_registry();
  for (size_t i = 1; i < registry.size(); ++i) {
    EXPECT_LE(registry[i - 1].slot, registry[i].slot) << registry[i].name;
  }
}

// Settings that ask for every processor.
GenerationConfig everything() {
  GenerationConfig all;
  all.do_sample = true;
  all.temperature = 0.5;
  all.top_h = 0.5;
  all.top_k = 3;
  all.top_p = 0.9;
  all.min_p = 0.1;
  all.typical_p = 0.9;
  all.epsilon_cutoff = 0.01;
  all.eta_cutoff = 0.01;
  all.repetition_penalty = 1.1;
  all.encoder_repetition_penalty = 1.1;
  all.presence_penalty = 0.1;
  all.frequency_penalty = 0.1;
  all.no_repeat_ngram_size = 2;
  all.encoder_no_repeat_ngram_size = 2;
  all.bad_words_ids = std::vector<TokenIds>{{2, 3}};
  all.sequence_bias = std::vector<SequenceBias>{{{2}, 1}};
  all.logit_bias = std::vector<TokenBias>{{2, 1}};
  all.suppress_tokens = {3};
  all.begin_suppress_tokens = {3};
  all.forced_bos_token_id = 0;
  all.forced_eos_token_id = {1};
  all.exponential_decay_length_penalty = ExponentialDecay{.start = 1, .factor = 1.1};
  all.guidance_scale = 2;
  all.remove_invalid_values = true;
  all.renormalize_logits = true;
  all.thinking_budget = 1;
  all.min_new_tokens = 1;
  all.eos_token_id = {1};
  return all;
}

TEST(ProcessorRegistry, NamesAreThoseOfTheProcessors) {
  GenerationConfig all = everything();
  NoGuidance guidance;
  const ChainOptions options = {.vocab_size = 4,
                                .prompt_length = 1,
                                .guidance = &guidance,
                                .thinking = ThinkingIds{.open = 2, .close = 3}};
  for (const ProcessorSpec& spec : processor_registry()) {
    ASSERT_TRUE(spec.applies(all)) << spec.name;
    const auto processor = spec.make(all, options);
    ASSERT_TRUE(processor.has_value()) << processor.error().message;
    ASSERT_NE(*processor, nullptr) << spec.name;
    EXPECT_EQ((*processor)->name(), spec.name);
    EXPECT_EQ((*processor)->clone()->name(), spec.name);
    EXPECT_EQ((*processor)->clone()->kind(), (*processor)->kind());
    // Every stage is a setting, and the draw's alone act in the draw alone.
    const GenerationField* field = find_generation_field(spec.name);
    ASSERT_NE(field, nullptr) << spec.name;
    EXPECT_EQ(spec.only_when_sampling, field->only_when_sampling) << spec.name;
  }
  const auto chain = build_chain(all, options);
  ASSERT_TRUE(chain.has_value()) << chain.error().message;
  EXPECT_EQ(chain->names(), (Names{"guidance_scale",
                                   "sequence_bias",
                                   "encoder_repetition_penalty",
                                   "repetition_penalty",
                                   "no_repeat_ngram_size",
                                   "encoder_no_repeat_ngram_size",
                                   "bad_words_ids",
                                   "min_length",
                                   "min_new_tokens",
                                   "forced_bos_token_id",
                                   "forced_eos_token_id",
                                   "remove_invalid_values",
                                   "exponential_decay_length_penalty",
                                   "suppress_tokens",
                                   "begin_suppress_tokens",
                                   "logit_bias",
                                   "frequency_penalty",
                                   "presence_penalty",
                                   "thinking_budget",
                                   "temperature",
                                   "top_h",
                                   "top_k",
                                   "top_p",
                                   "min_p",
                                   "typical_p",
                                   "epsilon_cutoff",
                                   "eta_cutoff",
                                   "renormalize_logits"}));
  // Nothing is guided without a model, and nothing thinks without marks.
  EXPECT_FALSE(build_chain(all, {.vocab_size = 4}).has_value());
  all.guidance_scale.reset();
  const auto plain = build_chain(all, {.vocab_size = 4});
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->size(), chain->size() - 2);
}

TEST(ProcessorChain, RefusesIdsOutsideTheVocabularyWhereTransformersDoes) {
  const auto refusal = [](const GenerationConfig& call) {
    const auto chain = chain_of(call);
    return chain ? "" : chain.error().message;
  };
  GenerationConfig call;
  call.sequence_bias = std::vector<SequenceBias>{{{1, 4}, 1}};
  EXPECT_EQ(refusal(call),
            "sequence_bias: token 4 found, want 0 to 3: the vocabulary has 4 tokens");
  call = {};
  call.bad_words_ids = std::vector<TokenIds>{{4}};
  EXPECT_EQ(refusal(call).find("bad_words_ids: token 4 found"), 0U);
  call.eos_token_id = {4};  // a word that is an end token is dropped before anything looks at it
  EXPECT_EQ(refusal(call), "");
  call = {};
  call.logit_bias = std::vector<TokenBias>{{4, 1}};
  EXPECT_EQ(refusal(call).find("logit_bias: token 4 found"), 0U);
  call = {};
  call.forced_bos_token_id = 4;
  EXPECT_EQ(refusal(call).find("forced_bos_token_id: token 4 found"), 0U);
  call = {};
  call.forced_eos_token_id = {1, 4};
  EXPECT_EQ(refusal(call).find("forced_eos_token_id: token 4 found"), 0U);
  call = {};
  call.exponential_decay_length_penalty = ExponentialDecay{.start = 1, .factor = 1.1};
  call.eos_token_id = {4};
  EXPECT_EQ(refusal(call).find("exponential_decay_length_penalty: eos_token_id: token 4"), 0U);
  call = {};
  call.suppress_tokens = {4, -1};
  call.begin_suppress_tokens = {4};
  call.eos_token_id = {4};
  call.min_new_tokens = 1;
  EXPECT_EQ(refusal(call), "");
}

TEST(ProcessorChain, SamplingAloneMeansTopK50) {  // W26
  GenerationConfig call;
  call.do_sample = true;
  EXPECT_EQ(chain_of(call)->names(), (Names{"top_k"}));
  call.top_k = 0;
  EXPECT_TRUE(chain_of(call)->empty());
}

TEST(ProcessorChain, GreedyHasNoFilters) {
  GenerationConfig call;
  call.temperature = 0.0;
  call.top_k = -1;
  call.top_p = 0.1;
  call.min_new_tokens = 2;
  call.eos_token_id = {1};
  const auto chain = chain_of(call);
  ASSERT_TRUE(chain.has_value());
  EXPECT_EQ(chain->names(), (Names{"min_length", "min_new_tokens"}));
}

TEST(ProcessorChain, ValuesThatDoNothingBuildNothing) {
  GenerationConfig call;
  call.do_sample = true;
  call.temperature = 1.0;
  call.top_k = 0;
  call.top_p = 1.5;  // C4: above 1 is off
  call.min_new_tokens = 3;
  call.eos_token_id = Ids{};
  EXPECT_TRUE(chain_of(call)->empty());
  call.eos_token_id.reset();
  call.min_p = 0.0;  // a no-op that transformers builds all the same
  EXPECT_EQ(chain_of(call)->names(), (Names{"min_p"}));
}

TEST(ProcessorChain, TemperatureComesBeforeTheFilters) {  // W21
  GenerationConfig call;
  call.do_sample = true;
  call.top_k = 0;
  call.top_p = 0.6;
  call.temperature = 2.0;
  EXPECT_EQ(kept_ids(run(call, row_a())), (Ids{0, 1}));
  call.temperature = 1.0;
  EXPECT_EQ(kept_ids(run(call, row_a())), (Ids{0}));
}

TEST(ProcessorChain, TopPSeesWhatTopKLeft) {  // W22
  GenerationConfig call;
  call.do_sample = true;
  call.top_k = 2;
  call.top_p = 0.7;
  EXPECT_EQ(kept_ids(run(call, row_a())), (Ids{0}));
  call.top_p = 0.75;
  EXPECT_EQ(kept_ids(run(call, row_a())), (Ids{0, 1}));
  call.top_k = 0;
  call.top_p = 0.7;
  EXPECT_EQ(kept_ids(run(call, row_a())), (Ids{0, 1}));
}

TEST(ProcessorChain, MinTokensToKeepReachesTheFilters) {  // W24
  GenerationConfig call;
  call.do_sample = true;
  call.top_k = 1;
  auto chain = chain_of(call, 2);
  ASSERT_TRUE(chain.has_value());
  Row row = row_a();
  const Ids ids = {0};
  chain->apply(row, SequenceView{.ids = ids, .prompt_length = 1});
  EXPECT_EQ(kept_ids(row), (Ids{0, 1}));
}

TEST(ProcessorChain, RefusesBadSettingsByName) {
  GenerationConfig call;
  call.do_sample = true;
  call.min_p = 2.0;
  const auto chain = chain_of(call);
  ASSERT_FALSE(chain.has_value());
  EXPECT_EQ(chain.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(chain.error().message.find("min_p: 2 found, want 0 to 1"), std::string::npos);
}

class Recorder final : public StageObserver {
 public:
  void after_stage(int64_t stage, const LogitsProcessor& processor,
                   std::span<const float> scores) override {
    EXPECT_EQ(stage, static_cast<int64_t>(stages.size()));
    stages.emplace_back(processor.name(), kept_ids(Row(scores.begin(), scores.end())));
  }
  std::vector<std::pair<std::string, Ids>> stages;
};

// Compares every stage with the row that entered it.
class FilterWatch final : public StageObserver {
 public:
  explicit FilterWatch(Row row) : before_(std::move(row)) {}
  void after_stage(int64_t /*stage*/, const LogitsProcessor& processor,
                   std::span<const float> scores) override {
    if (processor.kind() == ProcessorKind::kFilter) {
      filters.insert(std::string(processor.name()));
      for (size_t i = 0; i < scores.size(); ++i) {
        EXPECT_TRUE(scores[i] == before_[i] || scores[i] == kMinusInfinity)
            << processor.name() << " token " << i;
      }
    }
    before_.assign(scores.begin(), scores.end());
  }
  std::set<std::string> filters;

 private:
  Row before_;
};

TEST(ProcessorChain, FiltersOnlyRemove) {
  GenerationConfig call;
  call.do_sample = true;
  call.temperature = 0.8;
  call.top_h = 0.9;
  call.top_k = 60;
  call.top_p = 0.97;
  call.min_p = 0.002;
  call.typical_p = 0.98;
  call.epsilon_cutoff = 0.0001;
  call.eta_cutoff = 0.0002;
  call.no_repeat_ngram_size = 2;
  call.bad_words_ids = std::vector<TokenIds>{{3}, {1, 2}};
  call.suppress_tokens = TokenIds{9};
  call.begin_suppress_tokens = TokenIds{10};
  call.min_new_tokens = 5;
  call.eos_token_id = TokenIds{11};
  call.repetition_penalty = 1.3;
  const Ids ids = {1, 2, 1};
  for (uint32_t seed = 0; seed < 20; ++seed) {
    Row row(200);
    for (size_t i = 0; i < row.size(); ++i) {
      const auto word = philox4x32({static_cast<uint32_t>(i), seed, 0, 0}, {5, 5})[0];
      row[i] = static_cast<float>(word % 4096) / 512.0F - 4.0F;
    }
    auto chain = build_chain(merge_generation_config(call, {}).config,
                             {.vocab_size = 200, .prompt_length = 3});
    ASSERT_TRUE(chain.has_value()) << chain.error().message;
    FilterWatch watch(row);
    chain->apply(row, {ids, 3}, &watch);
    EXPECT_EQ(watch.filters,
              (std::set<std::string>{"no_repeat_ngram_size", "bad_words_ids", "min_length",
                                     "min_new_tokens", "suppress_tokens", "begin_suppress_tokens",
                                     "top_h", "top_k", "top_p", "min_p", "typical_p",
                                     "epsilon_cutoff", "eta_cutoff"}));
  }
}

TEST(ProcessorChain, TheObserverSeesEveryStage) {
  GenerationConfig call;
  call.do_sample = true;
  call.temperature = 2.0;
  call.top_k = 3;
  call.top_p = 0.6;
  auto chain = chain_of(call);
  ASSERT_TRUE(chain.has_value());
  Row row = row_a();
  const Ids ids = {0};
  Recorder recorder;
  chain->apply(row, SequenceView{.ids = ids, .prompt_length = 1}, &recorder);
  const std::vector<std::pair<std::string, Ids>> expected = {
      {"temperature", {0, 1, 2, 3}}, {"top_k", {0, 1, 2}}, {"top_p", {0, 1}}};
  EXPECT_EQ(recorder.stages, expected);
}

// Bans the token chosen last.
class BanLast final : public LogitsProcessor {
 public:
  [[nodiscard]] std::string_view name() const override { return "ban_last"; }
  void apply(std::span<float> scores, const SequenceView& /*sequence*/) override {
    if (!memory_.empty()) {
      scores[static_cast<size_t>(memory_.back())] = kMinusInfinity;
    }
  }
  void accept(TokenId id) override { memory_.push_back(id); }
  void rollback(int64_t n) override { memory_.resize(memory_.size() - static_cast<size_t>(n)); }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override {
    return std::make_unique<BanLast>(*this);
  }

 private:
  Ids memory_;
};

TEST(ProcessorChain, MemoryIsFedTakenBackAndCopied) {
  std::vector<std::unique_ptr<LogitsProcessor>> processors;
  processors.push_back(std::make_unique<BanLast>());
  ProcessorChain chain(std::move(processors));
  const auto kept = [](ProcessorChain* target) {
    Row row = row_a();
    target->apply(row, {});
    return kept_ids(row);
  };
  chain.accept(1);
  chain.accept(2);
  ProcessorChain copy = chain.clone();
  chain.rollback(1);
  EXPECT_EQ(kept(&chain), (Ids{0, 2, 3}));
  EXPECT_EQ(kept(&copy), (Ids{0, 1, 3}));
  copy.accept(3);
  EXPECT_EQ(kept(&copy), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(&chain), (Ids{0, 2, 3}));
}

}  // namespace
}  // namespace logitlab
