#include "text/tokenizer_json.h"

#include <fmt/format.h>

namespace logitlab {
namespace {

void append_json_string(std::string* out, std::string_view text) {
  out->push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < 0x20) {
      fmt::format_to(std::back_inserter(*out), "\\u{:04x}", byte);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

}  // namespace

std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(&out, text);
  return out;
}

void TokenizerJson::add_token(TokenId id, std::string_view content, bool special) {
  added_tokens_ +=
      fmt::format(R"({}{{"id":{},"content":{},"single_word":false,"lstrip":false,"rstrip":false,)"
                  R"("normalized":false,"special":{}}})",
                  added_tokens_.empty() ? "" : ",", id, json_string(content), special);
}

void TokenizerJson::surround(std::optional<TokenAndId> before, std::optional<TokenAndId> after) {
  const auto piece = [](const TokenAndId& token) {
    return fmt::format(R"({{"SpecialToken":{{"id":{},"type_id":0}}}})", json_string(token.first));
  };
  const auto entry = [](const TokenAndId& token) {
    return fmt::format(R"({0}:{{"id":{0},"ids":[{1}],"tokens":[{0}]}})", json_string(token.first),
                       token.second);
  };
  std::string single = R"({"Sequence":{"id":"A","type_id":0}})";
  std::string pair = single + R"(,{"Sequence":{"id":"B","type_id":1}})";
  std::string specials;
  if (before) {
    single = piece(*before) + "," + single;
    pair = piece(*before) + "," + pair;
    specials = entry(*before);
  }
  if (after) {
    single += "," + piece(*after);
    pair += "," + piece(*after);
    if (!before || before->first != after->first) {
      specials += (specials.empty() ? "" : ",") + entry(*after);
    }
  }
  post_processor_ = fmt::format(
      R"({{"type":"TemplateProcessing","single":[{}],"pair":[{}],"special_tokens":{{{}}}}})",
      single, pair, specials);
}

std::string TokenizerJson::finish(std::span<const std::string> tokens,
                                  std::span<const MergePair> merges) const {
  std::string out = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)";
  out += added_tokens_;
  out += fmt::format(R"(],"normalizer":{},"pre_tokenizer":{},"post_processor":{},"decoder":{},)"
                     R"("model":{{"type":"BPE","dropout":null,"continuing_subword_prefix":null,)"
                     R"("end_of_word_suffix":null,{},"vocab":{{)",
                     normalizer, pre_tokenizer, post_processor_, decoder, model_fields);
  for (size_t i = 0; i < tokens.size(); ++i) {
    out += i == 0 ? "" : ",";
    append_json_string(&out, tokens[i]);
    fmt::format_to(std::back_inserter(out), ":{}", i);
  }
  out += R"(},"merges":[)";
  for (size_t i = 0; i < merges.size(); ++i) {
    out += i == 0 ? "[" : ",[";
    append_json_string(&out, merges[i].first);
    out += ',';
    append_json_string(&out, merges[i].second);
    out += ']';
  }
  out += "]}}";
  return out;
}

}  // namespace logitlab
