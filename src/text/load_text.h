// The text side of a model: tokenizer, special tokens, chat template.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "formats/gguf_vocab.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace logitlab {

struct TextModel {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;  // null: the model has none
  SpecialTokens special_tokens;
  bool adds_bos = false;  // whether encode() puts BOS in front
};

// From a Hugging Face model folder: tokenizer.json is the tokenizer; tokenizer_config.json (or, in
// old folders, special_tokens_map.json and added_tokens.json) names special tokens and may add
// some; the template is chat_template.jinja and additional_chat_templates/*.jinja, else the one or
// the several of tokenizer_config.json. As in transformers, add_bos_token and add_eos_token do not
// change a tokenizer.json. kNotFound when there is no tokenizer.json, with what to do about it.
[[nodiscard]] Result<TextModel> load_text_from_folder(const std::filesystem::path& folder);

// From what a GGUF file carries. `where` names the file in messages. Errors as of
// gguf_tokenizer_json.
[[nodiscard]] Result<TextModel> load_text_from_gguf(const GgufVocab& vocab, std::string_view where);

}  // namespace logitlab
