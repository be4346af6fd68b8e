#include "text/load_text.h"

#include <fstream>

#include <gtest/gtest.h>

#include "text/test_vocab.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

class LoadTextTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(::testing::TempDir()) / fmt::format("load_text_{}", test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, std::string_view content) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  void write_tokenizer(const std::string& kind) const {
    write("tokenizer.json", read_data("tokenizers/" + kind + ".tokenizer.json"));
  }
  [[nodiscard]] Result<TextModel> load() const { return load_text_from_folder(folder_); }

  fs::path folder_;
};

std::string render(const TextModel& model, const Json* tools = nullptr) {
  const Json messages = Json::parse(R"([{"role": "user", "content": "Hi"}])");
  ChatRequest request;
  request.messages = &messages;
  request.tools = tools;
  return model.chat_template->render(request).value_or("error");
}

TEST_F(LoadTextTest, SaysWhatToDoWithoutTokenizerJson) {
  auto model = load();
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, ErrorCode::kNotFound);
  EXPECT_NE(model.error().message.find("no tokenizer.json"), std::string::npos);
  write("tokenizer.model", "x");
  model = load();
  ASSERT_FALSE(model.has_value());
  EXPECT_NE(model.error().message.find("only tokenizer.model"), std::string::npos);
  EXPECT_NE(model.error().message.find("save_pretrained"), std::string::npos);
}

TEST_F(LoadTextTest, BrokenFilesAreNamed) {
  write("tokenizer.json", "this is not JSON");
  auto model = load();
  ASSERT_FALSE(model.has_value());
  EXPECT_NE(model.error().message.find("tokenizer.json"), std::string::npos);
  EXPECT_EQ(exit_code(model.error().code), 3);
  write_tokenizer("smollm");
  EXPECT_TRUE(load().has_value());
  for (const char* config :
       {"[]", "{", R"({"added_tokens_decoder": 3})", R"({"added_tokens_decoder": {"x": {}}})",
        R"({"added_tokens_decoder": {"1": "x"}})", R"({"chat_template": 3})",
        R"({"chat_template": [{"name": "default"}]})"}) {
    write("tokenizer_config.json", config);
    model = load();
    ASSERT_FALSE(model.has_value()) << config;
    EXPECT_NE(model.error().message.find("tokenizer_config.json"), std::string::npos)
        << model.error().message;
  }
}

TEST_F(LoadTextTest, ReadsSpecialTokensAsStringsAndObjects) {
  write_tokenizer("smollm");
  write("tokenizer_config.json",
        R"({"bos_token": {"__type": "AddedToken", "content": "<|im_start|>"}, "pad_token": null,
            "eos_token": "<|im_end|>", "image_token": "<img>", "add_bos_token": true,
            "extra_special_tokens": ["<extra>"], "chat_template": "{{ bos_token }}{{ pad_token }}"})");
  const auto model = load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(find_special_token(model->special_tokens, "bos_token"), "<|im_start|>");
  EXPECT_EQ(find_special_token(model->special_tokens, "eos_token"), "<|im_end|>");
  EXPECT_EQ(find_special_token(model->special_tokens, "pad_token"), std::nullopt);
  EXPECT_FALSE(model->adds_bos);  // as transformers: tokenizer.json decides
  EXPECT_EQ(render(*model), "<|im_start|>");
  // Named tokens that tokenizer.json lacks come behind its own.
  const TokenId first_new = model->tokenizer->token_id("<img>").value();
  EXPECT_EQ(first_new, tokenizer_from_file("smollm")->max_id() + 1);
  EXPECT_EQ(model->tokenizer->token_id("<extra>"), first_new + 1);
  EXPECT_TRUE(model->tokenizer->is_special(first_new));
  EXPECT_EQ(model->tokenizer->encode("<img>").value(), std::vector<TokenId>({first_new}));
}

TEST_F(LoadTextTest, OldFoldersNameTokensInOtherFiles) {
  write_tokenizer("llama3");
  write("special_tokens_map.json", R"({"eos_token": {"content": "<|eot_id|>", "lstrip": false},
                                       "bos_token": "<|begin_of_text|>"})");
  write("added_tokens.json", R"({"<extra>": 1400})");
  const auto model = load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(find_special_token(model->special_tokens, "eos_token"), "<|eot_id|>");
  EXPECT_TRUE(model->adds_bos);
  EXPECT_EQ(model->tokenizer->token_id("<extra>"), 1400);
  EXPECT_EQ(model->chat_template, nullptr);
}

TEST_F(LoadTextTest, TemplateFilesWinOverTheConfig) {
  write_tokenizer("smollm");
  const Json tools = Json::parse("[{}]");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "D"},
                              {"name": "tool_use", "template": "T"}]})");
  auto model = load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(render(*model), "D");
  EXPECT_EQ(render(*model, &tools), "T");
  write("chat_template.jinja", "file\n");
  model = load();
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(render(*model), "file");
  EXPECT_EQ(render(*model, &tools), "file");
  write("additional_chat_templates/tool_use.jinja", "more");
  model = load();
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(render(*model), "file");
  EXPECT_EQ(render(*model, &tools), "more");
}

}  // namespace
}  // namespace logitlab
