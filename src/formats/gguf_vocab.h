// The tokenizer that a GGUF file carries, as plain values: what formats/ reads and text/ builds a
// tokenizer from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

// Strings are bytes as the file holds them (normally UTF-8). Vectors that are not empty have one
// entry a token, but for merges. Ids lie in [0, tokens.size()).
struct GgufVocab {
  std::string model;                 // tokenizer.ggml.model: "gpt2", "llama"
  std::string pre;                   // tokenizer.ggml.pre; empty when absent
  std::vector<std::string> tokens;   // by id
  std::vector<int32_t> token_types;  // 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  std::vector<float> scores;         // of SentencePiece kinds
  std::vector<std::string> merges;   // "left right", by rank
  std::optional<TokenId> bos_id;
  std::optional<TokenId> eos_id;
  std::optional<TokenId> eot_id;
  std::optional<TokenId> eom_id;
  std::optional<TokenId> unk_id;
  std::optional<TokenId> pad_id;
  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
  std::optional<bool> add_space_prefix;
  std::string chat_template;  // tokenizer.chat_template; empty when absent
  // tokenizer.chat_template.<name>, in the file's order.
  std::vector<std::pair<std::string, std::string>> named_chat_templates;
};

}  // namespace logitlab
