#include "text/gguf_tokenizer.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "text/load_text.h"
#include "text/test_vocab.h"

namespace logitlab {
namespace {

std::string error_of(const GgufVocab& vocab) {
  const auto json = gguf_tokenizer_json(vocab, "m.gguf");
  return json ? "no error" : json.error().message;
}

TEST(GgufTokenizer, RefusesWhatDoesNotFitTogether) {
  const struct {
    const char* kind;
    std::function<void(GgufVocab*)> break_it;
    const char* message;
  } cases[] = {
      {"gpt2", [](GgufVocab* v) { v->tokens.clear(); }, "tokens is empty"},
      {"gpt2", [](GgufVocab* v) { v->token_types.pop_back(); }, "want one for each of"},
      {"spm", [](GgufVocab* v) { v->scores.pop_back(); }, "want one for each of"},
      {"spm", [](GgufVocab* v) { v->scores.clear(); }, "scores is absent"},
      {"spm", [](GgufVocab* v) { v->scores[5] = std::nanf(""); }, "holds a NaN"},
      {"gpt2", [](GgufVocab* v) { v->bos_id = 1 << 30; }, "bos_token_id is 1073741824"},
      {"gpt2", [](GgufVocab* v) { v->eos_id = -1; }, "eos_token_id is -1"},
      {"gpt2", [](GgufVocab* v) { v->unk_id = 1400; }, "want an id below 1400"},
      {"gpt2", [](GgufVocab* v) { v->tokens[9] = v->tokens[8]; }, "tokens 8 and 9 are both"},
      {"gpt2", [](GgufVocab* v) { v->tokens[9] = "\xff"; }, "is not UTF-8"},
      {"gpt2", [](GgufVocab* v) { v->merges[3] = "ab"; }, "merge 3 is \"ab\""},
      {"gpt2", [](GgufVocab* v) { v->merges[3] = " "; }, "want two tokens"},
      {"gpt2", [](GgufVocab* v) { v->merges[3] = ""; }, "want two tokens"},
      {"gpt2", [](GgufVocab* v) { v->merges[3] = "a \t"; }, "is not among the tokens"},
      {"gpt2", [](GgufVocab* v) { v->pre = "klingon"; }, "\"klingon\""},
      {"gpt2", [](GgufVocab* v) { v->model = "bert"; }, "\"bert\""},
  };
  for (const auto& test : cases) {
    GgufVocab vocab = read_vocab_data(test.kind);
    test.break_it(&vocab);
    const std::string message = error_of(vocab);
    EXPECT_NE(message.find(test.message), std::string::npos) << message;
    EXPECT_EQ(message.rfind("m.gguf: ", 0), 0U) << message;
  }
}

TEST(GgufTokenizer, UnknownPreTokenizersListTheKnownOnes) {
  GgufVocab vocab = read_vocab_data("gpt2");
  vocab.pre = "klingon";
  const auto json = gguf_tokenizer_json(vocab, "m.gguf");
  ASSERT_FALSE(json.has_value());
  EXPECT_EQ(json.error().code, ErrorCode::kUnsupported);
  for (const char* name : {"smollm", "gpt-2", "llama-bpe", "qwen2", "tekken", "pixtral"}) {
    EXPECT_NE(json.error().message.find(name), std::string::npos) << name;
  }
}

TEST(GgufTokenizer, FlagsDecideAboutBosAndEos) {
  GgufVocab vocab = read_vocab_data("smollm");
  const auto count = [&vocab] {
    const auto tokenizer = tokenizer_of(gguf_tokenizer_json(vocab, "m"));
    return tokenizer ? tokenizer->encode("").value() : std::vector<TokenId>();
  };
  using Ids = std::vector<TokenId>;
  EXPECT_EQ(count(), Ids());
  vocab.add_bos = true;
  EXPECT_EQ(count(), Ids({*vocab.bos_id}));
  vocab.add_eos = true;
  EXPECT_EQ(count(), Ids({*vocab.bos_id, *vocab.eos_id}));
  vocab.eos_id = vocab.bos_id;
  EXPECT_EQ(count(), Ids({*vocab.bos_id, *vocab.bos_id}));
  vocab.bos_id.reset();
  vocab.add_eos = false;
  EXPECT_EQ(count(), Ids());
  vocab = read_vocab_data("llama3");
  EXPECT_EQ(count(), Ids({*vocab.bos_id}));
  vocab.add_bos = false;
  EXPECT_EQ(count(), Ids());
}

// Scores may be anything, pieces may be long: the work stays bounded.
TEST(GgufTokenizer, StrangeVocabulariesEnd) {
  GgufVocab vocab;
  vocab.model = "llama";
  for (size_t length = 1; length < 400; ++length) {
    vocab.tokens.emplace_back(length, 'a');
  }
  vocab.tokens.emplace_back(1'000'000, 'b');
  vocab.tokens.emplace_back("");
  vocab.scores.assign(vocab.tokens.size(), 0.0F);
  vocab.scores[3] = -INFINITY;
  const auto tokenizer = tokenizer_of(gguf_tokenizer_json(vocab, "m"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_TRUE(tokenizer->encode(std::string(1000, 'a')).has_value());
}

TEST(LoadText, GgufTemplatesAndTokens) {
  GgufVocab vocab = read_vocab_data("smollm");
  vocab.chat_template = "{{ bos_token }}|{{ messages[0].content }}{{ tools is none }}";
  vocab.named_chat_templates = {{"tool_use", "T{{ eos_token }}"}};
  const auto model = load_text_from_gguf(vocab, "m.gguf");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_FALSE(model->adds_bos);
  ASSERT_NE(model->chat_template, nullptr);
  const Json messages = Json::parse(R"([{"role": "user", "content": "Hi"}])");
  const Json tools = Json::parse("[{}]");
  ChatRequest request;
  request.messages = &messages;
  EXPECT_EQ(model->chat_template->render(request), "<|im_start|>|HiTrue");
  request.tools = &tools;
  EXPECT_EQ(model->chat_template->render(request), "T<|im_end|>");
  vocab.chat_template = "{% if %}";
  vocab.named_chat_templates.clear();
  const auto broken = load_text_from_gguf(vocab, "m.gguf");
  ASSERT_TRUE(broken.has_value());  // the model itself can be used
  const Status status = broken->chat_template->check();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().message.rfind("m.gguf: tokenizer.chat_template: line 1: ", 0), 0U)
      << status.error().message;
}

}  // namespace
}  // namespace logitlab
