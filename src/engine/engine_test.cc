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

}  // namespace
}  // namespace logitlab
