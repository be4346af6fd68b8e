// Messages to prompt text, as transformers' apply_chat_template does it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"

struct LogitlabTextTemplate;

namespace logitlab {

// Names ("bos_token") and contents ("<s>") of the special tokens that are set, each name once.
using SpecialTokens = std::vector<std::pair<std::string, std::string>>;

// Content of the named token; nullopt when it is not set.
[[nodiscard]] std::optional<std::string> find_special_token(const SpecialTokens& tokens,
                                                            std::string_view name);

struct NamedTemplate {
  std::string name;  // "default", "tool_use", ...
  std::string source;
};

// What apply_chat_template takes. Null pointers are Python's None.
struct ChatRequest {
  const Json* messages = nullptr;   // a list of at least one message object
  const Json* tools = nullptr;      // a list of objects
  const Json* documents = nullptr;  // a list of objects
  const Json* variables =
      nullptr;  // an object: enable_thinking and whatever else the template knows
  bool add_generation_prompt = false;
  // Field of the last message that the model shall go on with ("content"); empty: a new message.
  std::string continue_final_message;
  // Empty: "tool_use" when there are tools and such a template, else "default".
  std::string template_name;
};

struct RenderLimits {
  // Instructions, plus one for every 64 bytes that they produce. Real templates need some thousands
  // a message; this is about a second of looping.
  uint64_t steps = 10'000'000;
  uint64_t output_bytes = 64 << 20;
  // Wall time, for single steps that never end (comparing two values that share their parts over
  // and over). The thread of such a template cannot be stopped; it goes on until the process ends.
  uint64_t seconds = 20;
};

// The templates of one model with its special tokens. Immutable and thread-safe.
class ChatTemplate {
 public:
  // `where` names the origin in messages ("chat_template.jinja"). A template that does not parse is
  // kept with its error, which check() and render() give: the model can still do without it.
  // kInvalidArgument when the list is empty or a name occurs twice.
  [[nodiscard]] static Result<std::unique_ptr<const ChatTemplate>> create(
      std::vector<NamedTemplate> templates, SpecialTokens special_tokens, std::string_view where);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // The first template's syntax error (file, name, line), if one has any.
  [[nodiscard]] Status check() const;

  // kInvalidArgument: no messages, a value of the wrong kind, both of add_generation_prompt and
  // continue_final_message, a syntax error, what the template raised, a template that runs or
  // writes beyond `limits`. Messages name the template and the line.
  [[nodiscard]] Result<std::string> render(const ChatRequest& request,
                                           const RenderLimits& limits = {}) const;

  [[nodiscard]] const std::vector<NamedTemplate>& templates() const { return templates_; }
  [[nodiscard]] const SpecialTokens& special_tokens() const { return special_tokens_; }

 private:
  struct Compiled {
    LogitlabTextTemplate* handle = nullptr;  // owned; null: see error
    Error error;
  };

  ChatTemplate() = default;
  [[nodiscard]] Result<size_t> choose(const ChatRequest& request) const;
  [[nodiscard]] std::string where(size_t index) const;
  [[nodiscard]] Result<std::string> render_variables(size_t index, const Json& variables,
                                                     const RenderLimits& limits) const;

  std::vector<NamedTemplate> templates_;
  std::vector<Compiled> compiled_;  // one a template
  SpecialTokens special_tokens_;
  std::string where_;
};

}  // namespace logitlab
