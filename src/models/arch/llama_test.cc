#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "models/batch.h"
#include "models/registry.h"

namespace logitlab {
namespace {

Json base_config(const std::string& model_type) {
  Json json = Json::parse(R"({"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
      "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
      "max_position_embeddings": 128})");
  json["model_type"] = model_type;
  return json;
}

Result<ModelConfig> parse(const Json& json) {
  const auto entry = find_model_type(json["model_type"].get<std::string>());
  EXPECT_TRUE(entry);
  return (*entry)->config_from_hf(json, "config.json");
}

TEST(LlamaConfig, FillsInWhatTransformersFillsIn) {
  auto config = parse(base_config("llama"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_FLOAT_EQ(config->rms_norm_eps, 1e-6F);
  EXPECT_EQ(config->rope.theta, 10000.0);
  EXPECT_EQ(config->layer_windows, (std::vector<int64_t>{0, 0, 0, 0}));
  EXPECT_FALSE(config->tie_word_embeddings);
  Json json = base_config("llama");
  json.erase("num_key_value_heads");
  EXPECT_EQ(parse(json)->num_key_value_heads, 8);
  json["model_type"] = "mistral";
  EXPECT_EQ(parse(json)->num_key_value_heads, 8);
  EXPECT_EQ(parse(base_config("qwen3"))->head_dim, 128);
}

TEST(LlamaConfig, WindowsFollowTheFamily) {
  Json json = base_config("mistral");
  EXPECT_EQ(parse(json)->layer_windows[0], 4096) << "a missing key means 4096";
  json["sliding_window"] = nullptr;
  EXPECT_EQ(parse(json)->layer_windows[0], 0);
  json = base_config("qwen2");
  json["sliding_window"] = 5;
  EXPECT_EQ(parse(json)->layer_windows[3], 0) << "off unless use_sliding_window";
  json["use_sliding_window"] = true;
  json["max_window_layers"] = 2;
  EXPECT_EQ(parse(json)->layer_windows, (std::vector<int64_t>{0, 0, 5, 5}));
  json["layer_types"] = {"sliding_attention", "full_attention", "full_attention", "full_attention"};
  EXPECT_EQ(parse(json)->layer_windows, (std::vector<int64_t>{5, 0, 0, 0}));
  json["layer_types"] = {"sliding_attention"};
  EXPECT_FALSE(parse(json));
}

TEST(LlamaConfig, RopeInBothSpellings) {
  Json json = base_config("llama");
  json["rope_theta"] = 500000.0;
  json["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  auto config = parse(json);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->rope.type, "linear");
  EXPECT_EQ(config->rope.theta, 500000.0);
  json = base_config("llama");
  json["rope_parameters"] = {{"rope_type", "llama3"},   {"rope_theta", 1000.0},
                             {"factor", 8.0},           {"low_freq_factor", 1.0},
                             {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}};
  config = parse(json);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->rope.theta, 1000.0);
  EXPECT_EQ(config->rope.original_max_position_embeddings, 64);
  json["rope_parameters"] = {
      {"rope_type", "yarn"}, {"factor", nullptr}, {"original_max_position_embeddings", 32}};
  EXPECT_EQ(parse(json)->rope.factor, 4.0) << "max_position_embeddings over the original length";
}

TEST(LlamaConfig, RefusesNumbersThatMakeNoSense) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, Json>>{{"hidden_size", -1},
                                                 {"hidden_size", 9223372036854775807LL},
                                                 {"vocab_size", 0},
                                                 {"num_key_value_heads", 3},
                                                 {"num_key_value_heads", 0},
                                                 {"num_hidden_layers", 1000000},
                                                 {"rms_norm_eps", 0},
                                                 {"rope_theta", -5},
                                                 {"hidden_act", "gelu"},
                                                 {"head_dim", 7},
                                                 {"num_attention_heads", "8"}}) {
    Json json = base_config("llama");
    json[key] = value;
    const auto config = parse(json);
    ASSERT_FALSE(config) << key;
    EXPECT_NE(config.error().message.find("config.json"), std::string::npos)
        << config.error().message;
  }
}

TEST(Registry, NamesWhatItKnows) {
  const auto unknown = find_model_type("gpt_neox\n");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(unknown.error().message,
            "model_type 'gpt_neox\\n' is not supported; known are llama, mistral, qwen2, qwen3, "
            "nemotron_h");
  EXPECT_TRUE(find_gguf_architecture("qwen3"));
}

TEST(Batch, FlattensChunksInOrder) {
  DecodeState a({LayerStateKind::kKv}, {1, 1, 2});
  DecodeState b({LayerStateKind::kKv}, {1, 1, 2});
  ASSERT_TRUE(b.reserve(3));
  b.advance(3);
  const std::vector<TokenId> ids = {4, 5, 6};
  const std::vector<SequenceChunk> batch = {{&a, std::span(ids), LogitRows::kLast},
                                            {&b, std::span(ids).subspan(1), LogitRows::kAll}};
  ASSERT_TRUE(check_batch(batch, 7));
  EXPECT_FALSE(check_batch(batch, 6));
  const BatchRows rows = flatten(batch);
  EXPECT_EQ(rows.ids, (std::vector<TokenId>{4, 5, 6, 5, 6}));
  EXPECT_EQ(rows.positions, (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(rows.logit_rows, (std::vector<int64_t>{2, 3, 4}));
}

}  // namespace
}  // namespace logitlab
