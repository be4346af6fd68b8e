#include "generate/stop_strings.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/ranges.h>

namespace logitlab {
namespace {

// Whether some beginning of `piece` is an end of `text`, or `text` stands inside of `piece`.
bool can_end(std::string_view text, std::string_view piece) {
  if (piece.find(text) != std::string_view::npos) {
    return true;
  }
  for (size_t n = 1; n <= std::min(text.size(), piece.size()); ++n) {
    if (text.substr(text.size() - n) == piece.substr(0, n)) {
      return true;
    }
  }
  return false;
}

}  // namespace

StopTexts::StopTexts(std::vector<std::string> strings, const TokenTexts* tokens)
    : strings_(std::move(strings)), tokens_(tokens) {
  for (const std::string& text : strings_) {
    longest_ = std::max(longest_, text.size());
  }
}

Result<std::shared_ptr<const StopTexts>> StopTexts::make(const std::vector<std::string>& strings,
                                                         const TokenTexts* tokens,
                                                         int64_t vocab_size) {
  if (tokens == nullptr) {
    return fail(ErrorCode::kInvalidArgument,
                "stop_strings: the model has no tokenizer, which they need; stop at ids with "
                "eos_token_id");
  }
  for (const std::string& text : strings) {
    if (text.empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "stop_strings: an empty string found, want at least one character");
    }
  }
  std::shared_ptr<const StopTexts> texts(new StopTexts(strings, tokens));
  for (TokenId id = 0; id < vocab_size; ++id) {
    const std::optional<std::string> piece = tokens->text(id);
    if (piece && std::any_of(strings.begin(), strings.end(),
                             [&](const std::string& text) { return can_end(text, *piece); })) {
      return texts;
    }
  }
  return fail(ErrorCode::kInvalidArgument,
              "stop_strings: no token of the vocabulary can end {}; want text that the model can "
              "write",
              fmt::join(strings, ", "));
}

std::optional<size_t> StopTexts::match(std::span<const TokenId> earlier, TokenId newest) const {
  const std::optional<std::string> last = tokens_->text(newest);
  if (!last || last->empty()) {
    return std::nullopt;
  }
  std::string text = *last;
  // One token a byte is the most that a string can need; an id without a text ends the search.
  size_t n_tokens = 1;
  for (size_t i = earlier.size();
       i > 0 && n_tokens < longest_ && text.size() < last->size() + longest_; --i, ++n_tokens) {
    const std::optional<std::string> piece = tokens_->text(earlier[i - 1]);
    if (!piece) {
      break;
    }
    text.insert(0, *piece);
  }
  const size_t newest_begin = text.size() - last->size();
  for (size_t i = 0; i < strings_.size(); ++i) {
    const size_t size = strings_[i].size();
    const size_t from = newest_begin + 1 > size ? newest_begin + 1 - size : 0;
    if (text.find(strings_[i], from) != std::string::npos) {
      return i;
    }
  }
  return std::nullopt;
}

}  // namespace logitlab
