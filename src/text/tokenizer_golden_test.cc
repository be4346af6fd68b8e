// Ids and texts against recordings of the tokenizers library: 2,300 strings a kind, from
// tokenizer.json and from a GGUF vocabulary.
#include <cstdint>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "text/stream_decoder.h"
#include "text/test_vocab.h"

namespace logitlab {
namespace {

class Fnv1a {
 public:
  void add(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001B3ULL; }
  [[nodiscard]] std::string hex() const { return fmt::format("{:016x}", value_); }

 private:
  uint64_t value_ = 0xCBF29CE484222325ULL;
};

std::string hash_ids(const std::vector<TokenId>& ids) {
  Fnv1a hash;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash.add(static_cast<unsigned char>(static_cast<uint32_t>(id) >> shift));
    }
  }
  return hash.hex();
}

std::string hash_text(const std::string& text) {
  Fnv1a hash;
  for (const char c : text) {
    hash.add(static_cast<unsigned char>(c));
  }
  return hash.hex();
}

std::string stream(const std::shared_ptr<const Tokenizer>& tokenizer,
                   const std::vector<TokenId>& ids, bool skip) {
  StreamDecoder decoder(tokenizer, skip);
  std::string text;
  for (const TokenId id : ids) {
    const Result<std::string> delta = decoder.push(id);
    EXPECT_TRUE(delta.has_value());
    EXPECT_EQ(first_invalid_utf8(*delta), delta->size());
    text += *delta;
  }
  const Result<std::string> rest = decoder.flush();
  EXPECT_TRUE(rest.has_value());
  return text + *rest;
}

struct Kind {
  const char* name;
  bool from_gguf;
};

class TokenizerGolden : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    const std::string name = GetParam().name;
    tokenizer_ = GetParam().from_gguf ? tokenizer_from_gguf(name) : tokenizer_from_file(name);
    ASSERT_NE(tokenizer_, nullptr);
    recorded_ = read_json_data("tokenizers/" + name + ".ids.json");
    strings_ = read_json_data("tokenizers/strings.json")["strings"].get<std::vector<std::string>>();
    ASSERT_GE(strings_.size(), 2000U);
    ASSERT_EQ(recorded_["hashes"].size(), strings_.size());
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  Json recorded_;
  std::vector<std::string> strings_;
};

TEST_P(TokenizerGolden, EncodesAndDecodesAsTheReference) {
  for (size_t i = 0; i < strings_.size(); ++i) {
    const auto ids = tokenizer_->encode(strings_[i]);
    ASSERT_TRUE(ids.has_value()) << ids.error().message;
    if (i < recorded_["ids"].size()) {
      ASSERT_EQ(*ids, recorded_["ids"][i].get<std::vector<TokenId>>()) << strings_[i];
    }
    ASSERT_EQ(hash_ids(*ids), recorded_["hashes"][i].get<std::string>()) << strings_[i];
    const auto literal =
        tokenizer_->encode(strings_[i], {.add_special_tokens = false, .parse_special = false});
    ASSERT_TRUE(literal.has_value());
    if (i < recorded_["literal_ids"].size()) {
      ASSERT_EQ(*literal, recorded_["literal_ids"][i].get<std::vector<TokenId>>()) << strings_[i];
    }
    ASSERT_EQ(hash_ids(*literal), recorded_["literal_hashes"][i].get<std::string>()) << strings_[i];
    for (const bool skip : {false, true}) {
      const auto text = tokenizer_->decode(*ids, skip);
      ASSERT_TRUE(text.has_value());
      const Json& hashes = recorded_[skip ? "decoded_skip_hashes" : "decoded_hashes"];
      ASSERT_EQ(hash_text(*text), hashes[i].get<std::string>()) << strings_[i] << " -> " << *text;
      ASSERT_EQ(stream(tokenizer_, *ids, skip), *text) << strings_[i];
    }
  }
}

// Ids that no text encodes to: half characters, broken runs of bytes, ids beyond the vocabulary.
TEST_P(TokenizerGolden, DecodesAnyIds) {
  const Json& rows = recorded_["random_ids"];
  ASSERT_GE(rows.size(), 400U);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto ids = rows[i].get<std::vector<TokenId>>();
    for (const bool skip : {false, true}) {
      const auto text = tokenizer_->decode(ids, skip);
      ASSERT_TRUE(text.has_value()) << text.error().message;
      if (!skip && i < recorded_["random_texts"].size()) {
        ASSERT_EQ(*text, recorded_["random_texts"][i].get<std::string>());
      }
      const Json& hashes = recorded_[skip ? "random_skip_hashes" : "random_hashes"];
      ASSERT_EQ(hash_text(*text), hashes[i].get<std::string>()) << *text;
      ASSERT_EQ(stream(tokenizer_, ids, skip), *text);
    }
  }
}

TEST_P(TokenizerGolden, InvalidUtf8IsRefusedOrReplaced) {
  for (const Json& entry : recorded_["replaced"]) {
    const auto hex = entry["hex"].get<std::string>();
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    const auto refused = tokenizer_->encode(bytes);
    ASSERT_FALSE(refused.has_value()) << hex;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    const auto ids = tokenizer_->encode(bytes, {.on_invalid_utf8 = InvalidUtf8::kReplace});
    ASSERT_TRUE(ids.has_value());
    EXPECT_EQ(*ids, entry["ids"].get<std::vector<TokenId>>()) << hex;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, TokenizerGolden,
    ::testing::Values(Kind{"smollm", false}, Kind{"smollm", true}, Kind{"gpt2", false},
                      Kind{"gpt2", true}, Kind{"llama3", false}, Kind{"llama3", true},
                      Kind{"qwen2", false}, Kind{"qwen2", true}, Kind{"qwen35", false},
                      Kind{"qwen35", true}, Kind{"tekken", false}, Kind{"tekken", true},
                      Kind{"spm", false}, Kind{"spm", true}, Kind{"spm_no_prefix", false},
                      Kind{"spm_no_prefix", true}),
    [](const auto& param) {
      return fmt::format("{}_{}", param.param.name, param.param.from_gguf ? "gguf" : "json");
    });

}  // namespace
}  // namespace logitlab
