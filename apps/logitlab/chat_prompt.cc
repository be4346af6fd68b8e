#include "chat_prompt.h"

#include <utility>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "formats/gguf.h"
#include "streamed_answer.h"

namespace logitlab {

void TemplateOptions::declare(CLI::App& app) {
  app.add_option("--think", think,
                 "on or off sets the template's enable_thinking, auto leaves it to the template. "
                 "Acts where the template knows the word. Default: auto.")
      ->type_name("on|off|auto")
      ->check(CLI::IsMember({"on", "off", "auto"}))
      ->group("Chat template");
  app.add_option("--template-var", variables,
                 "Another variable of the template; the value is JSON. May be repeated.")
      ->type_name("KEY=JSON")
      ->allow_extra_args(false)
      ->take_all()
      ->group("Chat template");
}

Result<Json> TemplateOptions::values() const {
  Json values = Json::object();
  if (think != "auto") {
    values["enable_thinking"] = think == "on";
  }
  for (const std::string& word : variables) {
    const size_t equals = word.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return fail(ErrorCode::kUsage,
                  "--template-var {}: want KEY=JSON, as in n=3 or name='\"Ada\"'", printable(word));
    }
    const std::string key = word.substr(0, equals);
    auto value = parse_json(word.substr(equals + 1), "--template-var " + key);
    if (!value) {
      return fail(ErrorCode::kUsage, "{}; a text needs JSON's quotes: {}='\"...\"'",
                  value.error().message, key);
    }
    values[key] = std::move(*value);
  }
  return values;
}

Json message(std::string_view role, std::string_view content) {
  Json out = Json::object();
  out["role"] = std::string(role);
  out["content"] = std::string(content);
  return out;
}

Result<RenderedPrompt> render_prompt(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                     const ChatRequest& request) {
  RenderedPrompt prompt;
  ASSIGN_OR_RETURN(prompt.text, chat_template.render(request));
  EncodeOptions options;
  options.add_special_tokens = false;
  ASSIGN_OR_RETURN(prompt.ids, tokenizer.encode(prompt.text, options));
  return prompt;
}

std::string painted_text(const Terminal& terminal, const Tokenizer& tokenizer,
                         const std::vector<TokenId>& ids) {
  std::string out;
  std::string plain;  // pieces may end inside a character, so neighbours are joined first
  for (const TokenId id : ids) {
    const std::string piece = tokenizer.piece(id).value_or("");
    if (tokenizer.is_special(id)) {
      out += terminal_safe(plain);
      plain.clear();
      out += terminal.paint(Style::kSpecial, terminal_safe(piece));
    } else {
      plain += piece;
    }
  }
  return out + terminal_safe(plain);
}

std::string token_list(const Terminal& terminal, const Tokenizer& tokenizer,
                       const std::vector<TokenId>& ids) {
  constexpr size_t kIndent = 2;
  const auto columns = static_cast<size_t>(terminal.columns());
  std::string out;
  size_t used = 0;
  for (const TokenId id : ids) {
    const std::string number = fmt::format("{}", id);
    const std::string piece = quoted_piece(tokenizer, id);
    const size_t width = number.size() + 1 + display_width(piece);
    if (used == 0 || used + 2 + width > columns) {
      out += used == 0 ? "" : "\n";
      out += std::string(kIndent, ' ');
      used = kIndent;
    } else {
      out += "  ";
      used += 2;
    }
    out += terminal.paint(Style::kDim, number) + " " +
           terminal.paint(tokenizer.is_special(id) ? Style::kSpecial : Style::kAccent, piece);
    used += width;
  }
  return out.empty() ? out : out + "\n";
}

Result<TextModel> load_text(const ModelSource& source) {
  if (source.kind == ModelKind::kHuggingFace) {
    return load_text_from_folder(source.path);
  }
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(source.path));
  ASSIGN_OR_RETURN(const GgufVocab vocab, file.read_vocab());
  return load_text_from_gguf(vocab, source.path.string());
}

}  // namespace logitlab
