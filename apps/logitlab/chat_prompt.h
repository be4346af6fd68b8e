// From messages to the prompt's text and ids: what generate, chat, template and first-contact
// share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "command.h"
#include "formats/model_source.h"
#include "logitlab/types.h"
#include "text/chat_template.h"
#include "text/load_text.h"
#include "text/tokenizer.h"

namespace logitlab {

// The flags that reach the template: --think and --template-var.
struct TemplateOptions {
  std::string think = "auto";
  std::vector<std::string> variables;  // "key=json"

  void declare(CLI::App& app);
  // An object: enable_thinking unless --think auto, then the variables. kUsage: not key=json.
  [[nodiscard]] Result<Json> values() const;
};

// {"role": role, "content": content}
[[nodiscard]] Json message(std::string_view role, std::string_view content);

struct RenderedPrompt {
  std::string text;
  std::vector<TokenId> ids;  // special tokens of the text parsed, none added
};

// A list of messages through the template, with or without the start of the model's answer.
[[nodiscard]] Result<RenderedPrompt> render_prompt(const ChatTemplate& chat_template,
                                                   const Tokenizer& tokenizer,
                                                   const ChatRequest& request);

// The ids' text for people: special tokens stand out, line breaks are kept.
[[nodiscard]] std::string painted_text(const Terminal& terminal, const Tokenizer& tokenizer,
                                       const std::vector<TokenId>& ids);
// "504 'The'  3575 ' capital'" in as many lines as the terminal needs.
[[nodiscard]] std::string token_list(const Terminal& terminal, const Tokenizer& tokenizer,
                                     const std::vector<TokenId>& ids);

// Tokenizer and template of a model, without its weights.
[[nodiscard]] Result<TextModel> load_text(const ModelSource& source);

}  // namespace logitlab
