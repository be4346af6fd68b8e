// Writes a tokenizer.json. Text is appended as it comes: a vocabulary has 100,000 entries, and a
// JSON tree that keeps the order of keys would search all of them for each.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

using MergePair = std::pair<std::string_view, std::string_view>;
using TokenAndId = std::pair<std::string_view, TokenId>;

// `text` (UTF-8) as a JSON string with its quotes.
[[nodiscard]] std::string json_string(std::string_view text);

class TokenizerJson {
 public:
  // JSON of the steps; "null" where there is none.
  std::string normalizer = "null";
  std::string pre_tokenizer = "null";
  std::string decoder = "null";
  std::string model_fields;  // of the BPE model, beside vocab and merges: "unk_token":null,...

  // In order of ids.
  void add_token(TokenId id, std::string_view content, bool special);

  // Tokens around every encoded text.
  void surround(std::optional<TokenAndId> before, std::optional<TokenAndId> after);

  // tokens: by id. The whole file.
  [[nodiscard]] std::string finish(std::span<const std::string> tokens,
                                   std::span<const MergePair> merges) const;

 private:
  std::string added_tokens_;
  std::string post_processor_ = "null";
};

}  // namespace logitlab
