#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/npy.h"
#include "models/model.h"
#include "models/registry.h"

namespace logitlab {
namespace {

// ---- configuration -----------------------------------------------------------------------------

Json base_config() {
  return Json::parse(R"({"model_type": "nemotron_h", "vocab_size": 64, "hidden_size": 32,
      "intermediate_size": 48, "hybrid_override_pattern": "ME*-M", "num_attention_heads": 8,
      "num_key_value_heads": 2, "head_dim": 8, "mamba_num_heads": 8, "mamba_head_dim": 4,
      "ssm_state_size": 16, "n_groups": 2, "conv_kernel": 4, "n_routed_experts": 8,
      "num_experts_per_tok": 3, "moe_intermediate_size": 20,
      "moe_shared_expert_intermediate_size": 24, "layer_norm_epsilon": 1e-5,
      "routed_scaling_factor": 2.5, "num_hidden_layers": 9})");
}

Result<ModelConfig> parse(const Json& json) {
  const auto entry = find_model_type("nemotron_h");
  EXPECT_TRUE(entry);
  return (*entry)->config_from_hf(json, "config.json");
}

void expect_refused(const Json& json, const std::string& words) {
  const auto config = parse(json);
  ASSERT_FALSE(config) << words;
  EXPECT_NE(config.error().message.find(words), std::string::npos) << config.error().message;
  EXPECT_TRUE(config.error().message.starts_with("config.json: ")) << config.error().message;
}

TEST(NemotronHConfig, TheListOfLayersDecides) {
  const auto config = parse(base_config());
  ASSERT_TRUE(config) << config.error().message;
  using enum LayerKind;
  EXPECT_EQ(config->num_hidden_layers, 5) << "num_hidden_layers is out of date there";
  EXPECT_EQ(config->layer_kinds, (std::vector<LayerKind>{kMamba, kMoe, kAttention, kMlp, kMamba}));
  ASSERT_TRUE(config->mamba && config->moe);
  EXPECT_TRUE(std::isinf(config->mamba->time_step_high));
  EXPECT_EQ(config->mamba->time_step_low, 0.0F);
  EXPECT_FLOAT_EQ(config->moe->routed_scaling_factor, 2.5F);
  EXPECT_EQ(config->mlp_hidden_act, "relu2");

  Json words = base_config();
  words.erase("hybrid_override_pattern");
  words["layers_block_type"] = {"linear_attention", "moe", "full_attention", "mlp", "mamba"};
  EXPECT_EQ(parse(words)->layer_kinds, config->layer_kinds);
  words["layer_types"] = words["layers_block_type"];
  words.erase("layers_block_type");
  EXPECT_EQ(parse(words)->layer_kinds, config->layer_kinds);
}

TEST(NemotronHConfig, OldNamesAndLimits) {
  Json json = base_config();
  for (const auto& [now, before] :
       {std::pair{"n_groups", "mamba_n_groups"}, std::pair{"conv_kernel", "mamba_d_conv"},
        std::pair{"n_routed_experts", "num_local_experts"},
        std::pair{"layer_norm_epsilon", "norm_eps"}}) {
    json[before] = json[now];
    json.erase(now);
  }
  json["time_step_limit"] = {0.001, 0.5};
  const auto config = parse(json);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->mamba->n_groups, 2);
  EXPECT_EQ(config->moe->n_routed_experts, 8);
  EXPECT_FLOAT_EQ(config->rms_norm_eps, 1e-5F);
  EXPECT_FLOAT_EQ(config->mamba->time_step_low, 0.001F);
  EXPECT_FLOAT_EQ(config->mamba->time_step_high, 0.5F);
}

TEST(NemotronHConfig, RefusesWhatItCannotRun) {
  Json json = base_config();
  json["hybrid_override_pattern"] = "MEX*";
  expect_refused(json, "layer 2 is \"X\", which is no known kind of layer; known are M (Mamba-2)");
  json = base_config();
  json.erase("hybrid_override_pattern");
  expect_refused(json, "no list of layers; want hybrid_override_pattern");
  json["layers_block_type"] = {"mamba", "conv"};
  expect_refused(json, "layers_block_type[1] is \"conv\"");
  const auto refuse = [](const char* key, const Json& value, const std::string& words) {
    Json changed = base_config();
    changed[key] = value;
    expect_refused(changed, words);
  };
  refuse("hybrid_override_pattern", "", "hybrid_override_pattern has 0 layers");
  refuse("n_groups", 3, "8 Mamba heads are not a multiple of 3 groups");
  refuse("n_groups", 0, "n_groups is 0, want 1 to");
  refuse("conv_kernel", 65, "conv_kernel is 65, want 1 to 64");
  refuse("num_key_value_heads", 3, "8 attention heads are not a multiple of 3");
  refuse("num_experts_per_tok", 9, "num_experts_per_tok is 9, want 1 to the 8 experts");
  refuse("n_group", 3, "8 experts are not a multiple of 3 groups");
  refuse("topk_group", 2, "topk_group is 2, want 1 to n_group (1)");
  refuse("mamba_hidden_act", "gelu", "mamba_hidden_act \"gelu\" is not supported, want 'silu'");
  refuse("mlp_hidden_act", "gelu",
         "mlp_hidden_act \"gelu\" is not supported, want 'relu2', 'silu'");
  refuse("time_step_limit", {0.5, 0.1}, "time_step_limit is [0.5, 0.1]");
  refuse("time_step_limit", {0.5, 0.6, 0.7}, "time_step_limit has 3 numbers, want 2");
  refuse("ssm_state_size", int64_t{1} << 40, "ssm_state_size is 1099511627776, want 1 to");
  refuse("moe_latent_size", -1, "moe_latent_size is -1, want 0 to");
}

// ---- recorded models outside the project -------------------------------------------------------

std::filesystem::path outside_folder() {
  const auto given = env_var("LOGITLAB_SHARED");
  const std::filesystem::path shared =
      given ? std::filesystem::path(*given)
            : std::filesystem::path(LOGITLAB_SOURCE_DIR).parent_path() / "shared";
  return shared / "data/nemotron_h_tiny";
}

struct Device {
  std::unique_ptr<Backend> backend;
  ThreadPool threads;
  ExecContext context;
  explicit Device(std::string_view name, int n_threads = 2)
      : backend(std::move(*make_backend(name))), threads(n_threads), context{*backend, threads} {}
};

std::shared_ptr<const Model> load(const std::filesystem::path& folder, Device& device) {
  ModelSource source;
  source.kind = ModelKind::kHuggingFace;
  source.spec = folder.string();
  source.path = folder;
  auto model = load_model(source, LoadOptions{}, device.context);
  EXPECT_TRUE(model) << model.error().message;
  return model ? *model : nullptr;
}

// All rows of `ids`, fed in pieces of at most `piece`.
std::vector<float> run(const Model& model, Device& device, std::span<const TokenId> ids,
                       size_t piece) {
  DecodeState state = model.make_state();
  std::vector<float> rows;
  for (size_t at = 0; at < ids.size(); at += piece) {
    const SequenceChunk chunk{&state, ids.subspan(at, std::min(piece, ids.size() - at)),
                              LogitRows::kAll};
    const auto logits = model.forward(device.context, {&chunk, 1});
    EXPECT_TRUE(logits) << logits.error().message;
    rows.insert(rows.end(), logits->values.begin(), logits->values.end());
  }
  return rows;
}

// The largest difference, each divided by the largest magnitude of its row of `want`.
double difference(const std::vector<float>& got, const std::vector<float>& want, size_t width) {
  EXPECT_EQ(got.size(), want.size());
  double worst = 0;
  for (size_t row = 0; row + width <= want.size(); row += width) {
    double largest = 0;
    double apart = 0;
    for (size_t i = row; i < row + width; ++i) {
      largest = std::max(largest, std::abs(double{want[i]}));
      apart = std::max(apart, std::abs(double{got[i]} - double{want[i]}));
    }
    worst = std::max(worst, apart / largest);
  }
  return worst;
}

class RecordedNemotronH : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = outside_folder() / GetParam();
    if (!std::filesystem::exists(folder_ / "expected.json")) {
      GTEST_SKIP() << "no recorded models at hand: LOGITLAB_SHARED names the folder with "
                      "data/nemotron_h_tiny";
    }
    const auto text = read_text_file(folder_ / "expected.json", size_t{1} << 20);
    ASSERT_TRUE(text) << text.error().message;
    expected_ = *parse_json(*text, "expected.json");
    prompts_ = expected_["prompts"].get<std::vector<std::vector<TokenId>>>();
    ASSERT_EQ(prompts_.size(), 3U);
  }
  std::filesystem::path folder_;
  Json expected_;
  std::vector<std::vector<TokenId>> prompts_;
};

// An exact implementation is within 2.1e-6 of these logits; 30 planted mistakes each move one of
// the two models by 4e-3 or more. 1e-5 leaves room for float32 activations.
constexpr double kBound = 1e-5;

TEST_P(RecordedNemotronH, LogitsAgreeHoweverTheyAreComputed) {
  for (const std::string_view name : {"reference", "cpu"}) {
    Device device(name);
    const auto model = load(folder_, device);
    ASSERT_NE(model, nullptr);
    const auto width = static_cast<size_t>(model->config().vocab_size);
    for (size_t p = 0; p < prompts_.size(); ++p) {
      const auto want = read_npy(folder_ / ("logits_" + std::to_string(p) + ".npy"));
      ASSERT_TRUE(want) << want.error().message;
      for (const size_t piece : {size_t{1000}, size_t{9}, size_t{2}, size_t{1}}) {
        const std::vector<float> got = run(*model, device, prompts_[p], piece);
        EXPECT_LE(difference(got, want->values, width), kBound)
            << name << ", prompt " << p << ", pieces of " << piece;
      }
    }
  }
}

TEST_P(RecordedNemotronH, GreedyTokensAgree) {
  Device device("cpu");
  const auto model = load(folder_, device);
  ASSERT_NE(model, nullptr);
  DecodeState state = model->make_state();
  std::vector<TokenId> next = prompts_[2];
  std::vector<TokenId> chosen;
  const auto want = expected_["greedy_after_prompt_2"].get<std::vector<TokenId>>();
  while (chosen.size() < want.size()) {
    const SequenceChunk chunk{&state, next, LogitRows::kLast};
    const auto logits = model->forward(device.context, {&chunk, 1});
    ASSERT_TRUE(logits) << logits.error().message;
    const auto row = logits->row(0);
    chosen.push_back(static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin()));
    next = {chosen.back()};
  }
  EXPECT_EQ(chosen, want);
}

TEST_P(RecordedNemotronH, ForksThreadsAndNeighboursLeaveTheBits) {
  Device device("cpu", 1);
  const auto model = load(folder_, device);
  ASSERT_NE(model, nullptr);
  const std::vector<TokenId>& ids = prompts_[2];
  const std::vector<float> alone = run(*model, device, ids, ids.size());
  for (const int threads : {2, 3}) {
    Device other("cpu", threads);
    EXPECT_EQ(run(*model, other, ids, ids.size()), alone) << threads << " threads";
  }
  // Beside two other sequences.
  DecodeState first = model->make_state();
  DecodeState second = model->make_state();
  DecodeState third = model->make_state();
  const std::vector<SequenceChunk> batch = {{&first, prompts_[0], LogitRows::kAll},
                                            {&second, ids, LogitRows::kAll},
                                            {&third, prompts_[1], LogitRows::kAll}};
  const auto together = model->forward(device.context, batch);
  ASSERT_TRUE(together) << together.error().message;
  const auto width = static_cast<size_t>(model->config().vocab_size);
  const size_t from = prompts_[0].size() * width;
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(),
                         together->values.begin() + static_cast<int64_t>(from)));
  // A snapshot goes on as if nothing had happened after it.
  EXPECT_FALSE(second.can_truncate());
  const DecodeState snapshot = second.fork();
  const auto step = [&](DecodeState* state, TokenId id) {
    const SequenceChunk chunk{state, {&id, 1}, LogitRows::kLast};
    return model->forward(device.context, {&chunk, 1})->values;
  };
  const std::vector<float> before = step(&second, 7);
  (void)step(&second, 9);
  second.restore(snapshot);
  EXPECT_EQ(second.length(), static_cast<int64_t>(ids.size()));
  EXPECT_EQ(step(&second, 7), before);
  DecodeState again = snapshot.fork();
  EXPECT_EQ(step(&again, 7), before);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, RecordedNemotronH, testing::Values(".", "latent"),
                         [](const auto& param) {
                           return std::string(param.param) == "." ? std::string("main")
                                                                  : std::string(param.param);
                         });

}  // namespace
}  // namespace logitlab
