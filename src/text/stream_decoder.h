// Ids in, text out, one token at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "logitlab/types.h"
#include "text/tokenizer.h"

namespace logitlab {

// Never gives out half a UTF-8 character, and all that it gave out is, after flush(), exactly what
// Tokenizer::decode makes of all the ids. To keep that promise it holds text back that later tokens
// can still change: an unfinished character; with SentencePiece vocabularies a run of byte tokens
// until it ends (decode() looks at the run as a whole); everything, where decode() edits the whole
// text (Tokenizer::cleans_up).
//
// The cost of a token does not depend on how many came before. One-thread.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens);

  // The text that `id` settles; often empty. kInvalidArgument for a negative id.
  [[nodiscard]] Result<std::string> push(TokenId id);

  // What was held back; an unfinished character becomes U+FFFD as decode() makes it. The decoder
  // then stands at the start of a new text.
  [[nodiscard]] Result<std::string> flush();

 private:
  [[nodiscard]] std::string settle_bytes(bool is_end);
  [[nodiscard]] std::string settle_run();
  [[nodiscard]] std::string strip_start(std::string text);
  [[nodiscard]] Result<std::string> push_window(TokenId id);

  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;          // kBytes: bytes after the last whole character; kPieces: the run
  int64_t spaces_to_strip_;      // kPieces: how many more at the very start
  std::vector<TokenId> window_;  // kWindow: ids being decoded together
  size_t n_settled_ = 0;         // kWindow: the first ids of window_, whose text is out
  std::string settled_text_;     // kWindow: decode(those ids)
};

}  // namespace logitlab
