// Text to token ids and back, as the `tokenizers` library and transformers do it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "logitlab/types.h"

struct LogitlabTextTokenizer;

namespace logitlab {

// A token that is looked for in the text before anything else.
struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;  // left out when decoding with skip_special_tokens
  bool normalized = false;
  bool lstrip = false;  // takes the white space on its left with it
  bool rstrip = false;
  bool single_word = false;
};

enum class InvalidUtf8 {
  kRefuse,   // kInvalidArgument with the offset
  kReplace,  // every maximal invalid part becomes U+FFFD, as Python's errors="replace" does
};

struct EncodeOptions {
  // What the tokenizer puts around a text (BOS, EOS). Off for text that a chat template rendered.
  bool add_special_tokens = true;
  // Special tokens spelled out in the text become their ids. Off: they are text like any other
  // (split_special_tokens=True in transformers).
  bool parse_special = true;
  InvalidUtf8 on_invalid_utf8 = InvalidUtf8::kRefuse;
};

// How decoding goes on token by token; see StreamDecoder.
enum class StreamMode { kWindow, kBytes, kPieces };

// What one token adds to a token-by-token decode.
struct StreamPiece {
  std::string bytes;
  bool is_run_byte = false;  // of a run of single bytes that is decoded as a whole
};

// Immutable and thread-safe; shared as shared_ptr<const Tokenizer>.
class Tokenizer {
 public:
  struct Options {
    // transformers' clean_up_tokenization_spaces: " ." -> "." and the like after decoding. Has no
    // effect on BPE models, as in transformers.
    bool clean_up_tokenization_spaces = false;
    // Tokens that other files of the model add, as a JSON list in the form that logitlab_text.h
    // describes; empty: none.
    std::string more_tokens;
  };

  // From the content of a tokenizer.json; `where` names it in messages. kInvalidArgument when it is
  // not JSON or not a tokenizer. Truncation and padding that the file asks for are not done.
  [[nodiscard]] static Result<std::shared_ptr<const Tokenizer>> from_json(std::string_view json,
                                                                          std::string_view where,
                                                                          const Options& options);
  [[nodiscard]] static Result<std::shared_ptr<const Tokenizer>> from_json(std::string_view json,
                                                                          std::string_view where);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // kInvalidArgument: text that is not UTF-8 (InvalidUtf8::kRefuse).
  [[nodiscard]] Result<std::vector<TokenId>> encode(std::string_view text,
                                                    const EncodeOptions& options = {}) const;

  // Always valid UTF-8. Ids outside the vocabulary add nothing, as in transformers; a negative id
  // is kInvalidArgument.
  [[nodiscard]] Result<std::string> decode(std::span<const TokenId> ids,
                                           bool skip_special_tokens = false) const;

  // As the vocabulary spells it ("<|im_end|>", "<0x0A>"; byte-level BPE writes a space as U+0120);
  // nullopt for an id outside the vocabulary.
  [[nodiscard]] std::optional<std::string> token(TokenId id) const;
  // The bytes that the token stands for (" the", "\n"); may be a part of a UTF-8 character. An
  // added token stands for its own content.
  [[nodiscard]] std::optional<std::string> piece(TokenId id) const;
  [[nodiscard]] std::optional<TokenId> token_id(std::string_view token) const;

  // Number of tokens, added ones counted. Ids may have gaps: see max_id.
  [[nodiscard]] int64_t vocab_size() const { return vocab_size_; }
  // The largest id, -1 when there are no tokens.
  [[nodiscard]] TokenId max_id() const { return max_id_; }
  // By id.
  [[nodiscard]] const std::vector<AddedToken>& added_tokens() const { return added_tokens_; }
  // Whether decoding with skip_special_tokens leaves this id out.
  [[nodiscard]] bool is_special(TokenId id) const;

  [[nodiscard]] StreamMode stream_mode() const { return stream_mode_; }
  // Spaces dropped from the very start of a decoded text (StreamMode::kPieces).
  [[nodiscard]] int64_t strip_left() const { return strip_left_; }
  // Whether decode() edits the whole text afterwards, so that no prefix is final.
  [[nodiscard]] bool cleans_up() const { return cleans_up_; }
  // nullopt: adds nothing. Meaningless in StreamMode::kWindow.
  [[nodiscard]] std::optional<StreamPiece> stream_piece(TokenId id, bool skip_special_tokens) const;

 private:
  Tokenizer() = default;
  [[nodiscard]] Status read_description(std::string_view where);

  LogitlabTextTokenizer* handle_ = nullptr;  // owned
  std::string where_;                        // the file, for messages
  std::vector<AddedToken> added_tokens_;
  std::vector<TokenId> special_ids_;  // ascending
  int64_t vocab_size_ = 0;
  TokenId max_id_ = -1;
  StreamMode stream_mode_ = StreamMode::kWindow;
  int64_t strip_left_ = 0;
  bool cleans_up_ = false;
};

}  // namespace logitlab
