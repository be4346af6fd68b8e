#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/ranges.h>

#include "base/utf8.h"
#include "formats/gguf.h"

namespace logitlab {
namespace {

constexpr uint64_t kMaxDescribedElements = 8;
constexpr size_t kMaxDescribedBytes = 200;

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

size_t width_of(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return 0;
}

// nullopt: not an integer type, or above int64.
std::optional<int64_t> load_int(GgufType type, const std::byte* bytes) {
  switch (type) {
    case GgufType::kU8:
      return load<uint8_t>(bytes);
    case GgufType::kI8:
      return load<int8_t>(bytes);
    case GgufType::kU16:
      return load<uint16_t>(bytes);
    case GgufType::kI16:
      return load<int16_t>(bytes);
    case GgufType::kU32:
      return load<uint32_t>(bytes);
    case GgufType::kI32:
      return load<int32_t>(bytes);
    case GgufType::kI64:
      return load<int64_t>(bytes);
    case GgufType::kU64: {
      const auto value = load<uint64_t>(bytes);
      if (value <= static_cast<uint64_t>(INT64_MAX)) {
        return static_cast<int64_t>(value);
      }
      return std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> load_float(GgufType type, const std::byte* bytes) {
  if (type == GgufType::kF32) {
    return load<float>(bytes);
  }
  if (type == GgufType::kF64) {
    return load<double>(bytes);
  }
  if (const auto value = load_int(type, bytes)) {
    return static_cast<double>(*value);
  }
  return std::nullopt;
}

// Strings back to back, each after its length. The parser has checked that they lie in the file.
std::string_view next_string(std::span<const std::byte>* rest) {
  const auto length = static_cast<size_t>(load<uint64_t>(rest->data()));
  const std::string_view text(reinterpret_cast<const char*>(rest->data() + 8), length);
  *rest = rest->subspan(8 + length);
  return text;
}

std::string type_text(const GgufField& field) {
  return field.type == GgufType::kArray
             ? fmt::format("an array of {} {}", field.count, name(field.element_type))
             : std::string(name(field.type));
}

tl::unexpected<Error> wrong_kind(std::string_view where, const GgufField& field,
                                 std::string_view wanted) {
  return fail(ErrorCode::kInvalidArgument, "{}: key {} is {}, want {}", where, quote(field.key),
              type_text(field), wanted);
}

std::string element_text(GgufType type, std::span<const std::byte>* rest) {
  if (type == GgufType::kString) {
    const std::string_view text = next_string(rest);
    return printable(text.substr(0, kMaxDescribedBytes)) +
           (text.size() > kMaxDescribedBytes ? fmt::format("... ({} bytes)", text.size()) : "");
  }
  const std::byte* bytes = rest->data();
  *rest = rest->subspan(width_of(type));
  if (type == GgufType::kBool) {
    return load<uint8_t>(bytes) != 0 ? "true" : "false";
  }
  if (type == GgufType::kU64) {
    return fmt::format("{}", load<uint64_t>(bytes));
  }
  if (type == GgufType::kF32) {
    return fmt::format("{}", load<float>(bytes));
  }
  if (type == GgufType::kF64) {
    return fmt::format("{}", load<double>(bytes));
  }
  return fmt::format("{}", load_int(type, bytes).value_or(0));
}

// The elements of an array, or the scalar as the only one.
GgufType element_type_of(const GgufField& field) {
  return field.type == GgufType::kArray ? field.element_type : field.type;
}

}  // namespace

const GgufField* GgufMetadata::find(std::string_view key) const {
  const auto at = std::lower_bound(
      by_key_.begin(), by_key_.end(), key,
      [&](uint32_t index, std::string_view want) { return fields_[index].key < want; });
  return at == by_key_.end() || fields_[*at].key != key ? nullptr : &fields_[*at];
}

Result<std::optional<int64_t>> GgufMetadata::get_int(std::string_view key) const {
  const GgufField* field = find(key);
  if (field == nullptr) {
    return std::nullopt;
  }
  const auto value = load_int(field->type, field->value.data());
  if (!value) {
    return wrong_kind(where_, *field, "an integer up to 2^63 - 1");
  }
  return value;
}

Result<std::optional<double>> GgufMetadata::get_float(std::string_view key) const {
  const GgufField* field = find(key);
  if (field == nullptr) {
    return std::nullopt;
  }
  const auto value = load_float(field->type, field->value.data());
  if (!value) {
    return wrong_kind(where_, *field, "a number");
  }
  return value;
}

Result<std::optional<bool>> GgufMetadata::get_bool(std::string_view key) const {
  const GgufField* field = find(key);
  if (field == nullptr) {
    return std::nullopt;
  }
  const auto value = field->type == GgufType::kBool
                         ? std::optional<int64_t>(load<uint8_t>(field->value.data()))
                         : load_int(field->type, field->value.data());
  if (!value) {
    return wrong_kind(where_, *field, "a bool");
  }
  if (*value != 0 && *value != 1) {
    return fail(ErrorCode::kInvalidArgument, "{}: key {} is {}, want a bool (0 or 1)", where_,
                quote(key), *value);
  }
  return std::optional<bool>(*value == 1);
}

Result<std::optional<std::string_view>> GgufMetadata::get_string(std::string_view key) const {
  const GgufField* field = find(key);
  if (field == nullptr) {
    return std::nullopt;
  }
  if (field->type != GgufType::kString) {
    return wrong_kind(where_, *field, "a string");
  }
  std::span<const std::byte> rest = field->value;
  return std::optional<std::string_view>(next_string(&rest));
}

Result<std::optional<std::vector<int64_t>>> GgufMetadata::get_ints(std::string_view key) const {
  const GgufField* field = find(key);
  if (field == nullptr) {
    return std::nullopt;
  }
  const GgufType type = element_type_of(*field);
  const size_t width = width_of(type);
  std::vector<int64_t> values;
  values.reserve(width == 0 ? 0 : static_cast<size_t>(field->count));
  for (uint64_t i = 0; i < field->count; ++i) {
    const auto value = width == 0 ? std::nullopt : load_int(type, field->value.data() + i * width);
    if (!value) {
      return wrong_kind(where_, *field, "integers up to 2^63 - 1");
    }
    values.push_back(*value);
  }
  return values;
}

Result<std::optional<std::vector<float>>> GgufMetadata::get_floats(std::string_view key) const {
  const GgufField* field = find(key);
  if (field == nullptr) {
    return std::nullopt;
  }
  const GgufType type = element_type_of(*field);
  const size_t width = width_of(type);
  std::vector<float> values;
  values.reserve(width == 0 ? 0 : static_cast<size_t>(field->count));
  for (uint64_t i = 0; i < field->count; ++i) {
    const auto value =
        width == 0 ? std::nullopt : load_float(type, field->value.data() + i * width);
    if (!value) {
      return wrong_kind(where_, *field, "numbers");
    }
    values.push_back(static_cast<float>(*value));
  }
  return values;
}

Result<std::optional<std::vector<std::string_view>>> GgufMetadata::get_strings(
    std::string_view key) const {
  const GgufField* field = find(key);
  if (field == nullptr) {
    return std::nullopt;
  }
  if (element_type_of(*field) != GgufType::kString) {
    return wrong_kind(where_, *field, "strings");
  }
  std::vector<std::string_view> values;
  values.reserve(static_cast<size_t>(field->count));
  std::span<const std::byte> rest = field->value;
  for (uint64_t i = 0; i < field->count; ++i) {
    values.push_back(next_string(&rest));
  }
  return values;
}

std::string GgufMetadata::describe(const GgufField& field) const {
  std::span<const std::byte> rest = field.value;
  if (field.type != GgufType::kArray) {
    return element_text(field.type, &rest);
  }
  std::string out = fmt::format("[{}; {}]", name(field.element_type), field.count);
  if (field.element_type == GgufType::kArray) {
    return out;
  }
  const uint64_t n_shown = std::min(field.count, kMaxDescribedElements);
  for (uint64_t i = 0; i < n_shown; ++i) {
    out += (i == 0 ? " " : ", ") + element_text(field.element_type, &rest);
  }
  return out + (n_shown < field.count ? ", ..." : "");
}

Result<std::string> GgufMetadata::architecture() const {
  ASSIGN_OR_RETURN(const auto value, get_string("general.architecture"));
  if (!value || value->empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: no general.architecture, want the name of a model family", where_);
  }
  return std::string(*value);
}

namespace {

// An id that stands in the file; 2^32 - 1 and -1 say "none".
Result<std::optional<TokenId>> read_id(const GgufMetadata& metadata, std::string_view key,
                                       size_t n_tokens) {
  ASSIGN_OR_RETURN(const auto id, metadata.get_int(key));
  if (!id || *id == -1 || *id == static_cast<int64_t>(UINT32_MAX)) {
    return std::nullopt;
  }
  if (*id < 0 || static_cast<uint64_t>(*id) >= n_tokens) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want an id below the {} tokens",
                metadata.where(), key, *id, n_tokens);
  }
  return std::optional<TokenId>(static_cast<TokenId>(*id));
}

Status read_ids(const GgufMetadata& metadata, GgufVocab* vocab) {
  struct IdKey {
    std::string_view key;
    std::optional<TokenId>* id;
  };
  const IdKey ids[] = {
      {"tokenizer.ggml.bos_token_id", &vocab->bos_id},
      {"tokenizer.ggml.eos_token_id", &vocab->eos_id},
      {"tokenizer.ggml.eot_token_id", &vocab->eot_id},
      {"tokenizer.ggml.eom_token_id", &vocab->eom_id},
      {"tokenizer.ggml.unknown_token_id", &vocab->unk_id},
      {"tokenizer.ggml.padding_token_id", &vocab->pad_id},
  };
  for (const IdKey& row : ids) {
    ASSIGN_OR_RETURN(*row.id, read_id(metadata, row.key, vocab->tokens.size()));
  }
  ASSIGN_OR_RETURN(vocab->add_bos, metadata.get_bool("tokenizer.ggml.add_bos_token"));
  ASSIGN_OR_RETURN(vocab->add_eos, metadata.get_bool("tokenizer.ggml.add_eos_token"));
  ASSIGN_OR_RETURN(vocab->add_space_prefix, metadata.get_bool("tokenizer.ggml.add_space_prefix"));
  return {};
}

Status read_templates(const GgufMetadata& metadata, GgufVocab* vocab) {
  constexpr std::string_view kNamedPrefix = "tokenizer.chat_template.";
  ASSIGN_OR_RETURN(const auto chat_template, metadata.get_string("tokenizer.chat_template"));
  vocab->chat_template = std::string(chat_template.value_or(std::string_view()));
  for (const GgufField& field : metadata.fields()) {
    if (field.key.size() > kNamedPrefix.size() && field.key.starts_with(kNamedPrefix)) {
      ASSIGN_OR_RETURN(const auto text, metadata.get_string(field.key));
      vocab->named_chat_templates.emplace_back(field.key.substr(kNamedPrefix.size()), *text);
    }
  }
  return {};
}

// token_type and scores: absent, or one a token.
Status require_one_per_token(const GgufMetadata& metadata, std::string_view key, size_t found,
                             size_t n_tokens) {
  if (found != 0 && found != n_tokens) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} has {} elements, want {} (one a token)",
                metadata.where(), key, found, n_tokens);
  }
  return {};
}

}  // namespace

Result<GgufVocab> read_gguf_vocab(const GgufMetadata& metadata) {
  GgufVocab vocab;
  ASSIGN_OR_RETURN(const auto model, metadata.get_string("tokenizer.ggml.model"));
  ASSIGN_OR_RETURN(const auto tokens, metadata.get_strings("tokenizer.ggml.tokens"));
  if (!model || !tokens || tokens->empty()) {
    return fail(ErrorCode::kInvalidArgument, "{}: no {}, want a file that carries its tokenizer",
                metadata.where(),
                !model ? "tokenizer.ggml.model" : "tokens in tokenizer.ggml.tokens");
  }
  if (tokens->size() > static_cast<size_t>(INT32_MAX)) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} tokens, want at most {}", metadata.where(),
                tokens->size(), INT32_MAX);
  }
  vocab.model = std::string(*model);
  ASSIGN_OR_RETURN(const auto pre, metadata.get_string("tokenizer.ggml.pre"));
  vocab.pre = std::string(pre.value_or(std::string_view()));
  vocab.tokens.assign(tokens->begin(), tokens->end());

  constexpr std::string_view kTypesKey = "tokenizer.ggml.token_type";
  ASSIGN_OR_RETURN(const auto types, metadata.get_ints(kTypesKey));
  if (types) {
    RETURN_IF_ERROR(require_one_per_token(metadata, kTypesKey, types->size(), vocab.tokens.size()));
    vocab.token_types.reserve(types->size());
    for (const int64_t type : *types) {
      if (type < 0 || type > UINT8_MAX) {
        return fail(ErrorCode::kInvalidArgument, "{}: {} of token {} is {}, want 1 to 6",
                    metadata.where(), kTypesKey, vocab.token_types.size(), type);
      }
      vocab.token_types.push_back(static_cast<int32_t>(type));
    }
  }
  constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
  ASSIGN_OR_RETURN(auto scores, metadata.get_floats(kScoresKey));
  if (scores) {
    RETURN_IF_ERROR(
        require_one_per_token(metadata, kScoresKey, scores->size(), vocab.tokens.size()));
    vocab.scores = std::move(*scores);
  }
  ASSIGN_OR_RETURN(const auto merges, metadata.get_strings("tokenizer.ggml.merges"));
  if (merges) {
    vocab.merges.assign(merges->begin(), merges->end());
  }
  RETURN_IF_ERROR(read_ids(metadata, &vocab));
  RETURN_IF_ERROR(read_templates(metadata, &vocab));
  return vocab;
}

}  // namespace logitlab
