#include "text/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

#include "base/utf8.h"
#include "text/tokenizer_json.h"

namespace logitlab {
namespace {

enum TokenType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

// Longer pieces get no merges of their own: the work grows with the square of the length, and
// SentencePiece trains pieces of at most 16 characters unless told otherwise.
constexpr size_t kLongestMergedPiece = 256;

// How a byte-level vocabulary cuts a text before BPE: what the original tokenizer.json of the model
// family says. llama.cpp writes the same cuts in another dialect.
struct PreTokenizer {
  std::string_view name;       // tokenizer.ggml.pre
  std::string_view pattern;    // of a Split step; empty: the GPT-2 pattern inside ByteLevel
  bool splits_digits = false;  // every digit on its own, before ByteLevel
  bool nfc = false;
  bool ignores_merges = false;  // a whole word that is a token is taken without merging
  bool adds_bos = false;        // unless tokenizer.ggml.add_bos_token says otherwise
};

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+)"
    R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Sorted by name. "pixtral" files carry a tokenizer whose tokenizer.json has the Llama 3 pattern.
// "" and "default" stand in files from before the key existed: GPT-2's own cut.
constexpr std::array<PreTokenizer, 14> kPreTokenizers = {{
    {.name = "", .pattern = ""},
    {.name = "default", .pattern = ""},
    {.name = "gpt-2", .pattern = ""},
    {.name = "llama-bpe", .pattern = kLlama3Pattern, .ignores_merges = true, .adds_bos = true},
    {.name = "llama-v3", .pattern = kLlama3Pattern, .ignores_merges = true, .adds_bos = true},
    {.name = "llama3", .pattern = kLlama3Pattern, .ignores_merges = true, .adds_bos = true},
    {.name = "phi-2", .pattern = ""},
    {.name = "pixtral", .pattern = kLlama3Pattern, .ignores_merges = true, .adds_bos = true},
    {.name = "qwen2", .pattern = kQwen2Pattern, .nfc = true},
    {.name = "qwen35", .pattern = kQwen35Pattern, .nfc = true},
    {.name = "refact", .pattern = "", .splits_digits = true},
    {.name = "smollm", .pattern = "", .splits_digits = true},
    {.name = "starcoder", .pattern = "", .splits_digits = true},
    {.name = "tekken", .pattern = kTekkenPattern, .ignores_merges = true, .adds_bos = true},
}};

using TokenIndex = std::unordered_map<std::string_view, TokenId>;

Result<const PreTokenizer*> find_pre_tokenizer(std::string_view name, std::string_view where) {
  for (const PreTokenizer& entry : kPreTokenizers) {
    if (entry.name == name) {
      return &entry;
    }
  }
  return fail(ErrorCode::kUnsupported,
              "{}: tokenizer.ggml.pre is \"{}\", which this build does not know; known are {}",
              where, printable(name), fmt::join(known_gguf_pre_tokenizers(), ", "));
}

Status check_id(std::optional<TokenId> id, size_t n_tokens, std::string_view what,
                std::string_view where) {
  if (id && (*id < 0 || static_cast<size_t>(*id) >= n_tokens)) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want an id below {}", where, what, *id,
                n_tokens);
  }
  return {};
}

Status check_vocab(const GgufVocab& vocab, std::string_view where) {
  const size_t n = vocab.tokens.size();
  if (n == 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: tokenizer.ggml.tokens is empty", where);
  }
  if (!vocab.token_types.empty() && vocab.token_types.size() != n) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} token types, want one for each of {} tokens",
                where, vocab.token_types.size(), n);
  }
  if (!vocab.scores.empty() && vocab.scores.size() != n) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} token scores, want one for each of {} tokens",
                where, vocab.scores.size(), n);
  }
  RETURN_IF_ERROR(check_id(vocab.bos_id, n, "tokenizer.ggml.bos_token_id", where));
  RETURN_IF_ERROR(check_id(vocab.eos_id, n, "tokenizer.ggml.eos_token_id", where));
  RETURN_IF_ERROR(check_id(vocab.eot_id, n, "tokenizer.ggml.eot_token_id", where));
  RETURN_IF_ERROR(check_id(vocab.unk_id, n, "tokenizer.ggml.unknown_token_id", where));
  RETURN_IF_ERROR(check_id(vocab.pad_id, n, "tokenizer.ggml.padding_token_id", where));
  return {};
}

Result<TokenIndex> index_tokens(const GgufVocab& vocab, std::string_view where) {
  TokenIndex index;
  index.reserve(vocab.tokens.size());
  for (size_t i = 0; i < vocab.tokens.size(); ++i) {
    const std::string_view token = vocab.tokens[i];
    const size_t bad = first_invalid_utf8(token);
    if (bad != token.size()) {
      return fail(ErrorCode::kInvalidArgument, "{}: token {}: byte {} is not UTF-8 in \"{}\"",
                  where, i, bad, printable(token));
    }
    const auto [other, is_new] = index.emplace(token, static_cast<TokenId>(i));
    if (!is_new) {
      return fail(ErrorCode::kInvalidArgument, "{}: tokens {} and {} are both \"{}\"", where,
                  other->second, i, printable(token));
    }
  }
  return index;
}

int32_t type_of(const GgufVocab& vocab, size_t id) {
  return vocab.token_types.empty() ? kNormal : vocab.token_types[id];
}

// Whether the token is found in a text as it stands, and if so whether it is special.
std::optional<bool> added_as_special(const GgufVocab& vocab, TokenId id) {
  if (vocab.token_types.empty()) {
    const bool is_named =
        id == vocab.bos_id || id == vocab.eos_id || id == vocab.unk_id || id == vocab.pad_id;
    return is_named ? std::optional<bool>(true) : std::nullopt;
  }
  switch (type_of(vocab, static_cast<size_t>(id))) {
    case kControl:
      return true;
    case kUserDefined:
      return false;
    case kUnknown:
      return true;
    default:
      return std::nullopt;
  }
}

void write_added_tokens(const GgufVocab& vocab, TokenizerJson* json) {
  for (size_t i = 0; i < vocab.tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::optional<bool> special = added_as_special(vocab, id);
    if (special && !vocab.tokens[i].empty()) {
      json->add_token(id, vocab.tokens[i], *special);
    }
  }
}

Result<std::vector<MergePair>> read_merges(const GgufVocab& vocab, const TokenIndex& index,
                                           std::string_view where) {
  std::vector<MergePair> merges;
  merges.reserve(vocab.merges.size());
  std::string joined;
  for (size_t i = 0; i < vocab.merges.size(); ++i) {
    const std::string_view merge = vocab.merges[i];
    // The first character may itself be a space.
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 >= merge.size()) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}: merge {} is \"{}\", want two tokens and a space between them", where, i,
                  printable(merge));
    }
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = merge.substr(space + 1);
    joined.assign(left).append(right);
    for (const std::string_view part : {left, right, std::string_view(joined)}) {
      if (!index.contains(part)) {
        return fail(ErrorCode::kInvalidArgument,
                    "{}: merge {} is \"{}\", but \"{}\" is not among the tokens", where, i,
                    printable(merge), printable(part));
      }
    }
    merges.emplace_back(left, right);
  }
  return merges;
}

size_t n_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

// SentencePiece has no list of merges: the pair whose union has the best score goes first. The list
// that transformers builds from the scores when it converts such a model.
std::vector<MergePair> merges_from_scores(const GgufVocab& vocab, const TokenIndex& index) {
  struct Candidate {
    MergePair pair;
    float score;
    size_t left_length, right_length;  // in characters
  };
  const auto is_piece = [&](TokenId id) {
    const int32_t type = type_of(vocab, static_cast<size_t>(id));
    return type != kUnknown && type != kControl && type != kByte;
  };
  std::vector<Candidate> candidates;
  std::vector<std::pair<TokenId, TokenId>> splits;
  for (size_t i = 0; i < vocab.tokens.size(); ++i) {
    const std::string_view piece = vocab.tokens[i];
    if (!is_piece(static_cast<TokenId>(i)) || piece.size() > kLongestMergedPiece) {
      continue;
    }
    splits.clear();
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = index.find(piece.substr(0, cut));
      if (left == index.end() || !is_piece(left->second)) {
        continue;
      }
      const auto right = index.find(piece.substr(cut));
      if (right != index.end() && is_piece(right->second)) {
        splits.emplace_back(left->second, right->second);
      }
    }
    std::sort(splits.begin(), splits.end());
    for (const auto& [left, right] : splits) {
      const std::string_view l = vocab.tokens[static_cast<size_t>(left)];
      const std::string_view r = vocab.tokens[static_cast<size_t>(right)];
      candidates.push_back({{l, r}, vocab.scores[i], n_characters(l), n_characters(r)});
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) {
                     if (a.score != b.score) {
                       return a.score > b.score;
                     }
                     if (a.left_length != b.left_length) {
                       return a.left_length > b.left_length;
                     }
                     return a.right_length > b.right_length;
                   });
  std::vector<MergePair> merges;
  merges.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    merges.push_back(candidate.pair);
  }
  return merges;
}

void write_post_processor(const GgufVocab& vocab, bool adds_bos_by_default, TokenizerJson* json) {
  const bool bos = vocab.add_bos.value_or(adds_bos_by_default) && vocab.bos_id;
  const bool eos = vocab.add_eos.value_or(false) && vocab.eos_id;
  const auto text = [&](std::optional<TokenId> id) {
    return std::string_view(vocab.tokens[static_cast<size_t>(*id)]);
  };
  json->surround(bos ? std::optional(std::pair(text(vocab.bos_id), *vocab.bos_id)) : std::nullopt,
                 eos ? std::optional(std::pair(text(vocab.eos_id), *vocab.eos_id)) : std::nullopt);
}

Result<std::string> byte_level_json(const GgufVocab& vocab, const TokenIndex& index,
                                    std::string_view where) {
  ASSIGN_OR_RETURN(const PreTokenizer* pre, find_pre_tokenizer(vocab.pre, where));
  ASSIGN_OR_RETURN(const std::vector<MergePair> merges, read_merges(vocab, index, where));
  TokenizerJson json;
  write_added_tokens(vocab, &json);
  if (pre->nfc) {
    json.normalizer = R"({"type":"NFC"})";
  }
  const bool has_pattern = !pre->pattern.empty();
  const std::string byte_level = fmt::format(
      R"({{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":{}}})",
      !has_pattern);
  std::string first_step;
  if (has_pattern) {
    first_step = fmt::format(
        R"({{"type":"Split","pattern":{{"Regex":{}}},"behavior":"Isolated","invert":false}})",
        json_string(pre->pattern));
  } else if (pre->splits_digits) {
    first_step = R"({"type":"Digits","individual_digits":true})";
  }
  json.pre_tokenizer =
      first_step.empty()
          ? byte_level
          : fmt::format(R"({{"type":"Sequence","pretokenizers":[{},{}]}})", first_step, byte_level);
  json.decoder =
      R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})";
  json.model_fields =
      fmt::format(R"("unk_token":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":{})",
                  pre->ignores_merges);
  write_post_processor(vocab, pre->adds_bos, &json);
  return json.finish(vocab.tokens, merges);
}

Result<std::string> sentence_piece_json(const GgufVocab& vocab, const TokenIndex& index,
                                        std::string_view where) {
  if (vocab.scores.empty() && vocab.merges.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: tokenizer.ggml.scores is absent, want one score for each of {} tokens", where,
                vocab.tokens.size());
  }
  if (std::any_of(vocab.scores.begin(), vocab.scores.end(),
                  [](float score) { return score != score; })) {
    return fail(ErrorCode::kInvalidArgument, "{}: tokenizer.ggml.scores holds a NaN", where);
  }
  std::vector<MergePair> merges;
  if (vocab.merges.empty()) {
    merges = merges_from_scores(vocab, index);
  } else {
    ASSIGN_OR_RETURN(merges, read_merges(vocab, index, where));
  }
  TokenizerJson json;
  write_added_tokens(vocab, &json);
  // The space in front is put before every piece of text between special tokens, as the tokenizers
  // of this kind were trained and as llama.cpp does it.
  const bool prefix = vocab.add_space_prefix.value_or(true);
  const std::string replace =
      "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}";
  json.normalizer =
      prefix ? "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
               "\"\xE2\x96\x81\"}," +
                   replace + "]}"
             : replace;
  json.decoder =
      "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
      "\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}";
  if (prefix) {
    json.decoder += R"(,{"type":"Strip","content":" ","start":1,"stop":0})";
  }
  json.decoder += "]}";
  std::string unk = "null";
  std::optional<TokenId> unk_id = vocab.unk_id;
  for (size_t i = 0; i < vocab.tokens.size() && !unk_id; ++i) {
    if (type_of(vocab, i) == kUnknown) {
      unk_id = static_cast<TokenId>(i);
    }
  }
  if (unk_id) {
    unk = json_string(vocab.tokens[static_cast<size_t>(*unk_id)]);
  }
  json.model_fields = fmt::format(
      R"("unk_token":{},"fuse_unk":true,"byte_fallback":true,"ignore_merges":false)", unk);
  write_post_processor(vocab, /*adds_bos_by_default=*/true, &json);
  return json.finish(vocab.tokens, merges);
}

}  // namespace

std::vector<std::string> known_gguf_pre_tokenizers() {
  std::vector<std::string> names;
  for (const PreTokenizer& entry : kPreTokenizers) {
    if (!entry.name.empty()) {
      names.emplace_back(entry.name);
    }
  }
  return names;
}

Result<std::string> gguf_tokenizer_json(const GgufVocab& vocab, std::string_view where) {
  RETURN_IF_ERROR(check_vocab(vocab, where));
  ASSIGN_OR_RETURN(const TokenIndex index, index_tokens(vocab, where));
  if (vocab.model == "gpt2") {
    return byte_level_json(vocab, index, where);
  }
  if (vocab.model == "llama") {
    return sentence_piece_json(vocab, index, where);
  }
  return fail(ErrorCode::kUnsupported,
              "{}: tokenizer.ggml.model is \"{}\", which this build does not know; known are gpt2 "
              "(byte-level BPE) and llama (SentencePiece)",
              where, printable(vocab.model));
}

}  // namespace logitlab
