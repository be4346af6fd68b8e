// The recorded tokenizers (tests/data/tokenizers), for tests.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "formats/gguf_vocab.h"
#include "text/gguf_tokenizer.h"
#include "text/test_data.h"
#include "text/tokenizer.h"

namespace logitlab {

inline std::optional<TokenId> id_or_none(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) {
    return std::nullopt;
  }
  return found->get<TokenId>();
}

// KIND.vocab.json as a GGUF reader would hand it over.
inline GgufVocab read_vocab_data(const std::string& kind) {
  const Json json = read_json_data("tokenizers/" + kind + ".vocab.json");
  GgufVocab vocab;
  vocab.model = json.at("model").get<std::string>();
  vocab.pre = json.at("pre").get<std::string>();
  vocab.tokens = json.at("tokens").get<std::vector<std::string>>();
  vocab.token_types = json.at("token_types").get<std::vector<int32_t>>();
  vocab.merges = json.at("merges").get<std::vector<std::string>>();
  if (json.contains("scores")) {
    vocab.scores = json["scores"].get<std::vector<float>>();
  }
  if (json.contains("add_space_prefix")) {
    vocab.add_space_prefix = json["add_space_prefix"].get<bool>();
  }
  vocab.bos_id = id_or_none(json, "bos_id");
  vocab.eos_id = id_or_none(json, "eos_id");
  vocab.unk_id = id_or_none(json, "unk_id");
  return vocab;
}

inline std::shared_ptr<const Tokenizer> tokenizer_of(const Result<std::string>& json) {
  if (!json) {
    ADD_FAILURE() << json.error().message;
    return nullptr;
  }
  auto made = Tokenizer::from_json(*json, "test");
  if (!made) {
    ADD_FAILURE() << made.error().message;
    return nullptr;
  }
  return *made;
}

inline std::shared_ptr<const Tokenizer> tokenizer_from_file(const std::string& kind) {
  return tokenizer_of(read_data("tokenizers/" + kind + ".tokenizer.json"));
}

inline std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const std::string& kind) {
  return tokenizer_of(gguf_tokenizer_json(read_vocab_data(kind), kind));
}

}  // namespace logitlab
