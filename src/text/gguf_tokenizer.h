// A GGUF file's vocabulary as a tokenizer.json.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/gguf_vocab.h"

namespace logitlab {

// The tokenizer.json of a tokenizer that gives the ids of the model's original one. kUnsupported: a
// kind (tokenizer.ggml.model) or pre-tokenizer (tokenizer.ggml.pre) that is not known; the known
// ones are listed. kInvalidArgument: arrays that do not fit together, merges of unknown tokens,
// tokens that are not UTF-8, equal tokens.
[[nodiscard]] Result<std::string> gguf_tokenizer_json(const GgufVocab& vocab,
                                                      std::string_view where);

// Values of tokenizer.ggml.pre that gguf_tokenizer_json knows for the byte-level kind, sorted.
[[nodiscard]] std::vector<std::string> known_gguf_pre_tokenizers();

}  // namespace logitlab
