#include "text/stream_decoder.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"

namespace logitlab {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// A window decoder that keeps ending in U+FFFD would grow without bound on text that is not UTF-8;
// no character needs as many tokens as this.
constexpr size_t kLongestWait = 64;

// Length of the unfinished but so far valid character at the end of `text`, 0 to 3 bytes.
size_t unfinished_bytes(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    const auto lead = static_cast<unsigned char>(text[text.size() - length]);
    if ((lead & 0xC0) == 0x80) {
      continue;
    }
    size_t whole = 0;
    if (lead >= 0xC2 && lead <= 0xDF) {
      whole = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      whole = 3;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      whole = 4;
    }
    if (length >= whole) {
      return 0;
    }
    if (length >= 2) {  // overlong forms, surrogates and what lies above U+10FFFF are never valid
      const auto second = static_cast<unsigned char>(text[text.size() - length + 1]);
      if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
          (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
        return 0;
      }
    }
    return length;
  }
  return 0;
}

}  // namespace

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)),
      skip_special_tokens_(skip_special_tokens),
      spaces_to_strip_(tokenizer_->strip_left()) {}

std::string StreamDecoder::settle_bytes(bool is_end) {
  const size_t kept = is_end ? 0 : unfinished_bytes(pending_);
  const size_t settled = pending_.size() - kept;
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, settled));
  pending_.erase(0, settled);
  return text;
}

std::string StreamDecoder::settle_run() {
  const std::string run = std::exchange(pending_, {});
  if (first_invalid_utf8(run) == run.size()) {
    return run;
  }
  std::string text;
  for (size_t i = 0; i < run.size(); ++i) {
    text += kReplacement;
  }
  return text;
}

std::string StreamDecoder::strip_start(std::string text) {
  size_t n_spaces = 0;
  while (spaces_to_strip_ > 0 && n_spaces < text.size()) {
    if (text[n_spaces] != ' ') {
      spaces_to_strip_ = 0;
      break;
    }
    ++n_spaces;
    --spaces_to_strip_;
  }
  return text.substr(n_spaces);
}

Result<std::string> StreamDecoder::push(TokenId id) {
  if (id < 0) {
    return fail(ErrorCode::kInvalidArgument, "token id {}, want 0 or more", id);
  }
  if (tokenizer_->cleans_up()) {
    window_.push_back(id);
    return std::string();
  }
  if (tokenizer_->stream_mode() == StreamMode::kWindow) {
    return push_window(id);
  }
  std::optional<StreamPiece> piece = tokenizer_->stream_piece(id, skip_special_tokens_);
  if (!piece) {
    return std::string();
  }
  if (tokenizer_->stream_mode() == StreamMode::kBytes) {
    pending_ += piece->bytes;
    return settle_bytes(/*is_end=*/false);
  }
  if (piece->is_run_byte) {
    pending_ += piece->bytes;
    return std::string();
  }
  return strip_start(settle_run() + piece->bytes);
}

Result<std::string> StreamDecoder::push_window(TokenId id) {
  window_.push_back(id);
  ASSIGN_OR_RETURN(const std::string text, tokenizer_->decode(window_, skip_special_tokens_));
  const bool is_whole = !text.ends_with(kReplacement) || window_.size() - n_settled_ > kLongestWait;
  if (!is_whole || text.size() <= settled_text_.size() || !text.starts_with(settled_text_)) {
    return std::string();
  }
  std::string delta = text.substr(settled_text_.size());
  // The new ids stay as the left context of the next ones: a decoder may treat a first token unlike
  // the others.
  window_.erase(window_.begin(), window_.begin() + static_cast<ptrdiff_t>(n_settled_));
  n_settled_ = window_.size();
  ASSIGN_OR_RETURN(settled_text_, tokenizer_->decode(window_, skip_special_tokens_));
  return delta;
}

Result<std::string> StreamDecoder::flush() {
  std::string text;
  if (tokenizer_->cleans_up() || tokenizer_->stream_mode() == StreamMode::kWindow) {
    ASSIGN_OR_RETURN(text, tokenizer_->decode(window_, skip_special_tokens_));
    text.erase(0, std::min(settled_text_.size(), text.size()));
  } else if (tokenizer_->stream_mode() == StreamMode::kBytes) {
    text = settle_bytes(/*is_end=*/true);
  } else {
    text = strip_start(settle_run());
  }
  pending_.clear();
  window_.clear();
  n_settled_ = 0;
  settled_text_.clear();
  spaces_to_strip_ = tokenizer_->strip_left();
  return text;
}

}  // namespace logitlab
