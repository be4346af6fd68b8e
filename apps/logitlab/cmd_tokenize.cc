// tokenize: text to token ids and back.
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "chat_prompt.h"
#include "command.h"
#include "json_out.h"
#include "model_options.h"
#include "streamed_answer.h"
#include "text_input.h"
#include "text_layout.h"

namespace logitlab {
namespace {

struct TokenizeOptions {
  ModelOptions model;
  TextInput input;
  bool no_special = false;
  bool no_add_special = false;
  std::vector<std::string> decode;
  bool skip_special = false;
  bool ids = false;
};

std::string hex_bytes(std::string_view piece) {
  std::string out;
  for (const char c : piece) {
    out += fmt::format("{}{:02x}", out.empty() ? "" : " ", static_cast<unsigned char>(c));
  }
  return out;
}

Json tokens_json(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  Json out = Json::array();
  for (const TokenId id : ids) {
    const auto piece = tokenizer.piece(id);
    const auto token = tokenizer.token(id);
    Json item = Json::object();
    item["id"] = id;
    item["token"] = token ? Json(*token) : Json();
    item["text"] = piece ? Json(*piece) : Json();
    item["bytes"] = piece ? Json(hex_bytes(*piece)) : Json();
    item["special"] = tokenizer.is_special(id);
    out.push_back(std::move(item));
  }
  return out;
}

void print_tokens(Terminal* terminal, const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  // Many tokens are printed in portions, so that a reader that stops early stops the work.
  constexpr size_t kPortion = 1000;
  for (size_t at = 0; at < ids.size() && terminal->is_writable(); at += kPortion) {
    Table table({{"id", Align::kRight}, {"text", Align::kLeft}, {"bytes", Align::kLeft}});
    for (size_t i = at; i < std::min(ids.size(), at + kPortion); ++i) {
      const Style style = tokenizer.is_special(ids[i]) ? Style::kSpecial : Style::kAccent;
      table.add_row({fmt::format("{}", ids[i]),
                     {quoted_piece(tokenizer, ids[i]), style},
                     {hex_bytes(tokenizer.piece(ids[i]).value_or("")), Style::kDim}});
    }
    terminal->print(table.render(*terminal));
  }
}

Result<int> run_decode(const TokenizeOptions& options, const Tokenizer& tokenizer,
                       Invocation& invocation) {
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids, parse_ids(options.decode));
  for (const TokenId id : ids) {
    if (!tokenizer.token(id)) {
      return fail(ErrorCode::kInvalidArgument,
                  "--decode: id {} is not in the vocabulary; the largest is {}", id,
                  tokenizer.max_id());
    }
  }
  ASSIGN_OR_RETURN(const std::string text, tokenizer.decode(ids, options.skip_special));
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    Json document = Json::object();
    document["ids"] = ids;
    document["count"] = ids.size();
    document["text"] = text;
    document["tokens"] = tokens_json(tokenizer, ids);
    print_json(&terminal, document);
    return 0;
  }
  terminal.print_untrusted(text);
  terminal.print("\n");
  return 0;
}

Result<int> run_tokenize(const TokenizeOptions& options, Invocation& invocation) {
  const bool decodes = !options.decode.empty();
  if (decodes && options.input.is_given()) {
    return fail(ErrorCode::kUsage, "tokenize: --decode and a text were given; want one of them");
  }
  std::string text;
  if (!decodes) {
    ASSIGN_OR_RETURN(text, options.input.read("text"));
  }
  ASSIGN_OR_RETURN(const ModelSource source, options.model.resolve());
  ASSIGN_OR_RETURN(const TextModel model, load_text(source));
  if (decodes) {
    return run_decode(options, *model.tokenizer, invocation);
  }
  EncodeOptions encode;
  encode.add_special_tokens = !options.no_add_special;
  encode.parse_special = !options.no_special;
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids, model.tokenizer->encode(text, encode));
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    Json document = Json::object();
    document["text"] = text;
    document["ids"] = ids;
    document["count"] = ids.size();
    document["tokens"] = tokens_json(*model.tokenizer, ids);
    print_json(&terminal, document);
    return 0;
  }
  if (options.ids) {
    terminal.print(fmt::format("{}\n", fmt::join(ids, ",")));
    return 0;
  }
  print_tokens(&terminal, *model.tokenizer, ids);
  terminal.print(terminal.paint(Style::kDim, fmt::format("{} token{}, {} bytes", ids.size(),
                                                         ids.size() == 1 ? "" : "s", text.size())) +
                 "\n");
  return 0;
}

Action declare_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  options->input.declare(app, "TEXT", "The text.");
  app.add_option("--decode", options->decode,
                 "Token ids to turn into text, in place of a text: 1,2,3 or 1 2 3.")
      ->type_name("IDS")
      ->group("Input");
  app.add_flag("--no-special", options->no_special,
               "Special tokens that are spelled out in the text (<|im_start|>) are text like any "
               "other, not one id.")
      ->group("Tokens");
  app.add_flag("--no-add-special", options->no_add_special,
               "Leaves out what the tokenizer puts around a text (BOS, EOS).")
      ->group("Tokens");
  app.add_flag("--skip-special", options->skip_special,
               "With --decode: special tokens do not appear in the text.")
      ->group("Tokens");
  app.add_flag("--ids", options->ids, "Prints the ids alone, in one line.")->group("Result");
  options->model.declare_source(app);
  return [options](Invocation& invocation) { return run_tokenize(*options, invocation); };
}

}  // namespace

Command tokenize_command() {
  return {"tokenize",
          "text to token ids and back",
          "Shows how the model's tokenizer cuts a text: every token's id, the text it stands for "
          "and its bytes. The bytes matter where one character is spread over several tokens. The "
          "weights are not loaded.",
          {{"tokenize \"Hello, world\"", "id, text and bytes of every token"},
           {"tokenize --file book.txt --json", "the same as JSON, for a file"},
           {"tokenize --decode 504,3575,282", "ids back to text"},
           {"tokenize --no-special \"<|im_start|>\"", "the marker as plain text, several tokens"}},
          declare_tokenize};
}

}  // namespace logitlab
