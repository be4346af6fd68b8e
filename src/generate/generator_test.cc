#include "generate/generator.h"

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "models/batch.h"
#include "sampling/effective_config.h"

namespace logitlab {
namespace {

// The toy model of the transformers cases: the next logits depend on the last id alone.
class TableModel final : public Model {
 public:
  explicit TableModel(std::vector<std::vector<float>> table) : table_(std::move(table)) {
    config_.vocab_size = static_cast<int64_t>(table_.size());
    config_.num_hidden_layers = 1;
    config_.max_position_embeddings = 1000;
  }
  [[nodiscard]] const ModelConfig& config() const override { return config_; }
  [[nodiscard]] const std::vector<WeightEntry>& weights() const override { return none_; }
  [[nodiscard]] const std::vector<std::string>& warnings() const override { return warnings_; }
  [[nodiscard]] int64_t parameter_count() const override { return 0; }
  [[nodiscard]] size_t weight_bytes_per_token() const override { return 0; }
  [[nodiscard]] size_t state_bytes(int64_t /*n*/) const override { return 0; }
  [[nodiscard]] DecodeState make_state() const override {
    return DecodeState({LayerStateKind::kKv}, {.n_layers = 1, .n_kv_heads = 1, .head_dim = 2});
  }
  [[nodiscard]] Result<Logits> forward(ExecContext& /*context*/,
                                       std::span<const SequenceChunk> batch) const override {
    RETURN_IF_ERROR(check_batch(batch, config_.vocab_size));
    Logits logits;
    logits.vocab_size = config_.vocab_size;
    for (const SequenceChunk& chunk : batch) {
      RETURN_IF_ERROR(chunk.state->reserve(static_cast<int64_t>(chunk.ids.size())));
      chunk.state->advance(static_cast<int64_t>(chunk.ids.size()));
      if (chunk.logit_rows == LogitRows::kLast) {
        const auto& row = table_[static_cast<size_t>(chunk.ids.back())];
        logits.values.insert(logits.values.end(), row.begin(), row.end());
        ++logits.rows;
      }
    }
    return logits;
  }

 private:
  ModelConfig config_;
  std::vector<std::vector<float>> table_;
  std::vector<WeightEntry> none_;
  std::vector<std::string> warnings_;
};

// After 0 comes 2, after 1 comes 3, after 2 comes 3, after 3 comes 1.
TableModel model_m() {
  return TableModel({{0, 0, 5, 0}, {0, 0, 0, 9}, {0, 0, 0, 5}, {0, 5, 0, 0}});
}

struct Fixture {
  std::unique_ptr<Backend> backend = make_reference_backend();
  ThreadPool threads{1};
  ExecContext context{*backend, threads};

  Result<GenerationResult> run(const Model& model, std::vector<TokenId> prompt,
                               const GenerationConfig& config,
                               const GenerateOptions& options = {}) {
    const PromptInput input{prompt, nullptr};
    return generate(context, model, {&input, 1}, merge_generation_config(config, {}).config,
                    options);
  }
};

using Ids = std::vector<TokenId>;

TEST(Generate, StopsAtTheEndTokenAndKeepsIt) {
  Fixture f;
  const auto result = f.run(model_m(), {0}, {.max_new_tokens = 6, .eos_token_id = Ids{1}});
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->first().ids, (Ids{2, 3, 1}));
  EXPECT_EQ(result->first().stop_reason, StopReason::kEos);
  EXPECT_EQ(result->first().stop_id, 1);
}

TEST(Generate, AnyOfSeveralEndTokensStops) {
  Fixture f;
  const auto result = f.run(model_m(), {0}, {.max_new_tokens = 6, .eos_token_id = Ids{1, 3}});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().ids, (Ids{2, 3}));
  EXPECT_EQ(result->first().stop_id, 3);
}

TEST(Generate, BansEndTokensBeforeMinNewTokens) {
  Fixture f;
  const auto result =
      f.run(model_m(), {0}, {.max_new_tokens = 6, .min_new_tokens = 4, .eos_token_id = Ids{1}});
  ASSERT_TRUE(result);
  // Banning id 1 leaves a tie of zeros, which the lowest id wins.
  EXPECT_EQ(result->first().ids, (Ids{2, 3, 0, 2, 3, 1}));
}

TEST(Generate, StopsAtTheLength) {
  Fixture f;
  auto result = f.run(model_m(), {0, 2}, {.max_new_tokens = 2, .eos_token_id = Ids{1}});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().ids.size(), 2U);  // the end token comes second and wins over the length
  EXPECT_EQ(result->first().stop_reason, StopReason::kEos);
  result = f.run(model_m(), {0}, {.max_new_tokens = 2, .eos_token_id = Ids{1}});
  EXPECT_EQ(result->first().stop_reason, StopReason::kLength);
  result = f.run(model_m(), {0}, {.max_length = 3});
  EXPECT_EQ(result->first().ids.size(), 2U);
  result = f.run(model_m(), {0}, {});
  EXPECT_EQ(result->first().ids.size(), 20U) << "transformers generates 20 tokens when nobody says";
}

TEST(Generate, RefusesWhatCannotRun) {
  Fixture f;
  EXPECT_EQ(f.run(model_m(), {}, {}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(f.run(model_m(), {0, 7}, {}).error().message.find("token id 7 at position 1"),
            std::string::npos);
  EXPECT_FALSE(f.run(model_m(), {0}, {.max_new_tokens = 0}));
  EXPECT_FALSE(f.run(model_m(), {0}, {.max_length = 1}));
  EXPECT_FALSE(f.run(model_m(), {0}, {.do_sample = true, .temperature = 0.0}));
}

TEST(Generate, SamplesTheSameTokensForTheSameSeed) {
  Fixture f;
  const TableModel flat(std::vector<std::vector<float>>(16, std::vector<float>(16, 0.0F)));
  const auto once = f.run(flat, {0}, {.do_sample = true, .seed = 3, .max_new_tokens = 40});
  const auto again =
      f.run(flat, {0}, {.do_sample = true, .seed = 3, .max_new_tokens = 40}, {.prefill_chunk = 1});
  const auto other = f.run(flat, {0}, {.do_sample = true, .seed = 4, .max_new_tokens = 40});
  const auto neighbour =
      f.run(flat, {0}, {.do_sample = true, .seed = 3, .max_new_tokens = 40}, {.sequence_index = 1});
  ASSERT_TRUE(once && again && other && neighbour);
  EXPECT_EQ(once->first().ids, again->first().ids);
  EXPECT_NE(once->first().ids, other->first().ids);
  EXPECT_NE(once->first().ids, neighbour->first().ids);
}

TEST(Generate, ReportsEveryStepAndCanBeStopped) {
  Fixture f;
  std::vector<TokenId> seen;
  GenerateOptions options;
  options.on_step = [&](const StepEvent& event) {
    EXPECT_EQ(event.step, static_cast<int64_t>(seen.size()));
    EXPECT_EQ(event.logits.size(), 4U);
    EXPECT_EQ(event.scores.size(), 4U);
    seen.push_back(event.id);
    return seen.size() < 2;
  };
  const auto result = f.run(model_m(), {0}, {.max_new_tokens = 6}, options);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first().stop_reason, StopReason::kCancelled);
  EXPECT_EQ(result->first().ids, seen);
}

TEST(Generate, CancelledBeforeThePromptIsReadGivesNoTokens) {
  Fixture f;
  GenerateOptions options;
  options.is_cancelled = [] { return true; };
  const auto result = f.run(model_m(), {0}, {}, options);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->first().ids.empty());
  EXPECT_EQ(result->first().stop_reason, StopReason::kCancelled);
}

TEST(Generate, ContinuesAStateAndLeavesItBeforeTheLastToken) {
  Fixture f;
  const TableModel model = model_m();
  DecodeState state = model.make_state();
  const GenerationConfig config = merge_generation_config({.max_new_tokens = 2}, {}).config;
  const std::vector<TokenId> prompt = {0, 1, 2};
  const PromptInput input{prompt, &state};
  auto result = generate(f.context, model, {&input, 1}, config, {});
  ASSERT_TRUE(result);
  EXPECT_EQ(state.length(), 4);
  state.truncate(2);
  result = generate(f.context, model, {&input, 1}, config, {});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->reused_prompt_tokens, 2);
  EXPECT_EQ(result->first().ids, (Ids{3, 1}));
}

}  // namespace
}  // namespace logitlab
