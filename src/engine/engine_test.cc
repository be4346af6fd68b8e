#include "engine/engine.h"

#include <filesystem>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/file.h"

namespace logitlab {
namespace {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "logitlab-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, std::string_view text) const {
    ASSERT_TRUE(write_file_atomically(path_ / name, text));
  }

 private:
  std::filesystem::path path_;
};

TEST(ModelDefaults, GenerationConfigWinsOverConfig) {
  const TempFolder folder;
  folder.write("config.json", R"({"eos_token_id": 2, "temperature": 0.5})");
  auto defaults = read_defaults_from_folder(folder.path());
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_EQ(defaults->config.eos_token_id, (std::vector<TokenId>{2}));
  EXPECT_EQ(defaults->stop_ids.front().origin, "config.json");
  folder.write("generation_config.json",
               R"({"eos_token_id": [2, 11], "do_sample": true, "watermarking_config": {"bias": 2.5},
                   "transformers_version": "5.17.0"})");
  defaults = read_defaults_from_folder(folder.path());
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_EQ(defaults->config.eos_token_id, (std::vector<TokenId>{2, 11}));
  EXPECT_EQ(defaults->config.do_sample, true);
  EXPECT_FALSE(defaults->config.temperature.has_value()) << "config.json is not asked any more";
  EXPECT_EQ(defaults->stop_ids.size(), 2U);
  EXPECT_EQ(defaults->ignored.size(), 1U);
  folder.write("generation_config.json", R"({"eos_token_id": "two"})");
  EXPECT_FALSE(read_defaults_from_folder(folder.path()));
}

TEST(ModelDefaults, EveryEndTokenOfAGgufStops) {
  GgufVocab vocab;
  vocab.eos_id = 2;
  vocab.eot_id = 7;
  vocab.eom_id = 2;
  const ModelDefaults defaults = defaults_from_gguf(vocab);
  EXPECT_EQ(defaults.config.eos_token_id, (std::vector<TokenId>{2, 7}));
  EXPECT_EQ(defaults.stop_ids[1].origin, "tokenizer.ggml.eot_token_id");
  EXPECT_FALSE(defaults_from_gguf({}).config.eos_token_id.has_value());
}

TEST(Engine, SaysWhatIsWrongBeforeItReadsWeights) {
  const TempFolder folder;
  EngineOptions options;
  options.model = folder.path().string();
  EXPECT_FALSE(Engine::load(options));
  options.threads = -1;
  const auto threads = Engine::load(options);
  ASSERT_FALSE(threads);
  EXPECT_NE(threads.error().message.find("threads: -1"), std::string::npos);
}

std::string tiny_model() {
  return std::string(LOGITLAB_SOURCE_DIR) + "/tests/data/models/qwen3";
}

TEST(Engine, AsksAboutTheSettingsBeforeItReadsWeights) {
  const TempFolder folder;
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(std::filesystem::path(tiny_model()) / name, folder.path() / name);
  }
  // A file of weights that nobody could read.
  folder.write("model.safetensors", "no weights");
  EngineOptions options;
  options.model = folder.path().string();
  int64_t vocab_size = 0;
  options.check_settings = [&](const GenerationConfig& /*defaults*/,
                               const ModelConfig& model) -> Status {
    vocab_size = model.vocab_size;
    return fail(ErrorCode::kInvalidArgument, "top_p: 1.5 found");
  };
  const auto engine = Engine::load(options);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().message, "top_p: 1.5 found");
  EXPECT_EQ(vocab_size, 272);
}

TEST(Engine, GeneratesForSeveralPromptsWithTheTextsOfItsTokens) {
  EngineOptions options;
  options.model = tiny_model();
  const auto engine = Engine::load(options);
  ASSERT_TRUE(engine) << engine.error().message;
  EXPECT_EQ((*engine)->thinking_ids(), std::nullopt);
  const std::vector<TokenId> one = {5, 6};
  const std::vector<TokenId> two = {7};
  const std::vector<PromptInput> prompts = {{one, nullptr}, {two, nullptr}};
  GenerationConfig config;
  config.max_new_tokens = 5;
  const auto both = (*engine)->generate(prompts, config, {});
  ASSERT_TRUE(both) << both.error().message;
  ASSERT_EQ(both->sequences.size(), 2U);
  const auto alone = (*engine)->generate(two, config, {});
  ASSERT_TRUE(alone);
  EXPECT_EQ(alone->first().ids, both->sequences[1].ids);
  // The text of a token that comes stops the run, without that the caller names the tokenizer.
  const auto piece = (*engine)->tokenizer().piece(alone->first().ids[2]);
  ASSERT_TRUE(piece && !piece->empty());
  config.stop_strings = {{*piece}};
  const auto stopped = (*engine)->generate(two, config, {});
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_EQ(stopped->first().stop_reason, StopReason::kStopString);
  EXPECT_LE(stopped->first().ids.size(), 3U);
}

}  // namespace
}  // namespace logitlab
