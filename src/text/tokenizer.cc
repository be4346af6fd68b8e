#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/utf8.h"
#include "text/rust_strings.h"

namespace logitlab {
namespace {

static_assert(sizeof(TokenId) == sizeof(uint32_t));

void replace_all(std::string* text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text->size());
  size_t at = 0;
  for (size_t found = text->find(from); found != std::string::npos; found = text->find(from, at)) {
    out.append(*text, at, found - at);
    out.append(to);
    at = found + from.size();
  }
  out.append(*text, at, std::string::npos);
  *text = std::move(out);
}

// transformers' clean_up_tokenization, in its order.
void clean_up(std::string* text) {
  constexpr std::pair<std::string_view, std::string_view> kSteps[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kSteps) {
    replace_all(text, from, to);
  }
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_json(std::string_view json,
                                                              std::string_view where) {
  return from_json(json, where, Options{});
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_json(std::string_view json,
                                                              std::string_view where,
                                                              const Options& options) {
  LogitlabTextTokenizer* handle = nullptr;
  LogitlabTextError error{};
  const int32_t status =
      logitlab_text_tokenizer_new(rust_bytes(json), json.size(), rust_bytes(options.more_tokens),
                                  options.more_tokens.size(), &handle, &error);
  if (status != kLogitlabTextOk) {
    auto failure = take_error(status, error, where);
    failure.value().message += "; want a tokenizer.json of the tokenizers library";
    return failure;
  }
  std::shared_ptr<Tokenizer> tokenizer(new Tokenizer());  // the constructor is private
  tokenizer->handle_ = handle;
  tokenizer->cleans_up_ = options.clean_up_tokenization_spaces;
  tokenizer->where_ = where;
  RETURN_IF_ERROR(tokenizer->read_description(where));
  return std::shared_ptr<const Tokenizer>(std::move(tokenizer));
}

Tokenizer::~Tokenizer() {
  logitlab_text_tokenizer_free(handle_);
}

Status Tokenizer::read_description(std::string_view where) {
  LogitlabTextString text{};
  LogitlabTextError error{};
  const int32_t status = logitlab_text_tokenizer_describe(handle_, &text, &error);
  if (status != kLogitlabTextOk) {
    return take_error(status, error, where);
  }
  ASSIGN_OR_RETURN(const Json description, parse_json(take_string(text), where));
  vocab_size_ = description["vocab_size"].get<int64_t>();
  if (!description["max_id"].is_null()) {
    const int64_t max_id = description["max_id"].get<int64_t>();
    if (max_id > INT32_MAX) {
      return fail(ErrorCode::kInvalidArgument, "{}: token id {}, want at most {}", where, max_id,
                  INT32_MAX);
    }
    max_id_ = static_cast<TokenId>(max_id);
  }
  for (const Json& entry : description["added_tokens"]) {
    AddedToken token;
    const int64_t id = entry["id"].get<int64_t>();
    if (id > INT32_MAX) {
      return fail(ErrorCode::kInvalidArgument, "{}: added token id {}, want at most {}", where, id,
                  INT32_MAX);
    }
    token.id = static_cast<TokenId>(id);
    token.content = entry["content"].get<std::string>();
    token.special = entry["special"].get<bool>();
    token.normalized = entry["normalized"].get<bool>();
    token.lstrip = entry["lstrip"].get<bool>();
    token.rstrip = entry["rstrip"].get<bool>();
    token.single_word = entry["single_word"].get<bool>();
    if (token.special) {
      special_ids_.push_back(token.id);
    }
    max_id_ = std::max(max_id_, token.id);
    added_tokens_.push_back(std::move(token));
  }
  stream_mode_ = StreamMode{description["stream_mode"].get<int>()};
  strip_left_ = description["strip_left"].get<int64_t>();
  cleans_up_ = cleans_up_ && !description["is_bpe"].get<bool>();
  return {};
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                               const EncodeOptions& options) const {
  std::string repaired;
  if (options.on_invalid_utf8 == InvalidUtf8::kReplace) {
    if (first_invalid_utf8(text) != text.size()) {
      repaired = replace_invalid_utf8(text);
      text = repaired;
    }
  } else {
    RETURN_IF_ERROR(require_utf8(text, "text to encode"));
  }
  LogitlabTextIds ids{};
  LogitlabTextError error{};
  const int32_t status = logitlab_text_tokenizer_encode(handle_, rust_bytes(text), text.size(),
                                                        options.add_special_tokens,
                                                        options.parse_special, &ids, &error);
  if (status != kLogitlabTextOk) {
    return take_error(status, error, fmt::format("{}: encoding a text", where_));
  }
  std::vector<TokenId> out(ids.size);
  std::transform(ids.data, ids.data + ids.size, out.begin(),
                 [](uint32_t id) { return static_cast<TokenId>(id); });
  logitlab_text_ids_free(ids);
  return out;
}

Result<std::string> Tokenizer::decode(std::span<const TokenId> ids,
                                      bool skip_special_tokens) const {
  const auto negative = std::find_if(ids.begin(), ids.end(), [](TokenId id) { return id < 0; });
  if (negative != ids.end()) {
    return fail(ErrorCode::kInvalidArgument, "token id {} at position {}, want 0 or more",
                *negative, negative - ids.begin());
  }
  LogitlabTextString text{};
  LogitlabTextError error{};
  const int32_t status =
      logitlab_text_tokenizer_decode(handle_, reinterpret_cast<const uint32_t*>(ids.data()),
                                     ids.size(), skip_special_tokens, &text, &error);
  if (status != kLogitlabTextOk) {
    return take_error(status, error, fmt::format("{}: decoding tokens", where_));
  }
  std::string out = take_string(text);
  if (cleans_up_) {
    clean_up(&out);
  }
  return out;
}

namespace {

// Empty on an unknown id; a message of the library cannot add to that, so it is dropped.
std::optional<StreamPiece> token_text(const LogitlabTextTokenizer* handle, TokenId id,
                                      int32_t what) {
  if (id < 0) {
    return std::nullopt;
  }
  LogitlabTextString text{};
  LogitlabTextError error{};
  int32_t found = 0;
  const int32_t status =
      logitlab_text_tokenizer_token(handle, static_cast<uint32_t>(id), what, &text, &found, &error);
  if (status != kLogitlabTextOk) {
    logitlab_text_string_free(error.message);
    return std::nullopt;
  }
  if (found == 0) {
    return std::nullopt;
  }
  return StreamPiece{take_string(text), found == 2};
}

std::optional<std::string> bytes_of(std::optional<StreamPiece> piece) {
  if (!piece) {
    return std::nullopt;
  }
  return std::move(piece->bytes);
}

}  // namespace

std::optional<std::string> Tokenizer::token(TokenId id) const {
  return bytes_of(token_text(handle_, id, kLogitlabTextTokenName));
}

std::optional<std::string> Tokenizer::piece(TokenId id) const {
  return bytes_of(token_text(handle_, id, kLogitlabTextTokenPiece));
}

std::optional<StreamPiece> Tokenizer::stream_piece(TokenId id, bool skip_special_tokens) const {
  return token_text(
      handle_, id,
      skip_special_tokens ? kLogitlabTextTokenStreamSkipSpecial : kLogitlabTextTokenStream);
}

std::optional<TokenId> Tokenizer::token_id(std::string_view token) const {
  int64_t id = -1;
  LogitlabTextError error{};
  const int32_t status =
      logitlab_text_tokenizer_token_id(handle_, rust_bytes(token), token.size(), &id, &error);
  if (status != kLogitlabTextOk) {
    logitlab_text_string_free(error.message);
    return std::nullopt;
  }
  if (id < 0) {
    return std::nullopt;
  }
  return static_cast<TokenId>(id);
}

bool Tokenizer::is_special(TokenId id) const {
  return std::binary_search(special_ids_.begin(), special_ids_.end(), id);
}

}  // namespace logitlab
