// template: what the chat template makes of messages.
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "chat_prompt.h"
#include "command.h"
#include "json_out.h"
#include "model_options.h"
#include "text_input.h"

namespace logitlab {
namespace {

struct TemplateCommandOptions {
  ModelOptions model;
  TextInput input;
  TemplateOptions templates;
  std::string messages_file;
  std::string tools_file;
  std::string system;
  bool has_system = false;
  std::string template_name;
  bool no_generation_prompt = false;
  bool show_source = false;
  bool ids = false;
};

Result<Json> read_list(const std::string& path, std::string_view what) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  ASSIGN_OR_RETURN(Json list, parse_json(text, path));
  if (!list.is_array()) {
    return fail(ErrorCode::kInvalidArgument, "{}: {}, want a list of {}", path, list.type_name(),
                what);
  }
  return list;
}

Result<Json> read_messages(const TemplateCommandOptions& options) {
  Json messages = Json::array();
  if (options.has_system) {
    messages.push_back(message("system", options.system));
  }
  if (options.messages_file.empty()) {
    ASSIGN_OR_RETURN(const std::string text, options.input.read("message"));
    messages.push_back(message("user", text));
    return messages;
  }
  if (options.input.is_given()) {
    return fail(ErrorCode::kUsage, "template: --messages and a text were given; want one of them");
  }
  ASSIGN_OR_RETURN(const Json list, read_list(options.messages_file, "messages"));
  for (const Json& item : list) {
    messages.push_back(item);
  }
  return messages;
}

Result<int> show_source(const ChatTemplate& chat_template, Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    Json document = Json::object();
    document["templates"] = Json::array();
    for (const NamedTemplate& item : chat_template.templates()) {
      document["templates"].push_back({{"name", item.name}, {"source", item.source}});
    }
    print_json(&terminal, document);
    return 0;
  }
  for (const NamedTemplate& item : chat_template.templates()) {
    if (chat_template.templates().size() > 1) {
      terminal.print(terminal.paint(Style::kHeading, item.name) + "\n");
    }
    terminal.print_untrusted(item.source);
    terminal.print("\n");
  }
  return 0;
}

Result<int> run_template(const TemplateCommandOptions& options, Invocation& invocation) {
  Json messages;
  if (!options.show_source) {
    ASSIGN_OR_RETURN(messages, read_messages(options));
  }
  Json tools;
  if (!options.tools_file.empty()) {
    ASSIGN_OR_RETURN(tools, read_list(options.tools_file, "tools"));
  }
  ASSIGN_OR_RETURN(const Json variables, options.templates.values());
  ASSIGN_OR_RETURN(const ModelSource source, options.model.resolve());
  ASSIGN_OR_RETURN(const TextModel model, load_text(source));
  if (model.chat_template == nullptr) {
    return fail(ErrorCode::kNotFound, "{} has no chat template", source.path.string());
  }
  if (options.show_source) {
    return show_source(*model.chat_template, invocation);
  }
  ChatRequest request;
  request.messages = &messages;
  request.tools = options.tools_file.empty() ? nullptr : &tools;
  request.variables = &variables;
  request.add_generation_prompt = !options.no_generation_prompt;
  request.template_name = options.template_name;
  ASSIGN_OR_RETURN(const RenderedPrompt prompt,
                   render_prompt(*model.chat_template, *model.tokenizer, request));
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    Json document = Json::object();
    document["text"] = prompt.text;
    document["ids"] = prompt.ids;
    document["count"] = prompt.ids.size();
    document["messages"] = messages;
    print_json(&terminal, document);
    return 0;
  }
  if (options.ids) {
    terminal.print(token_list(terminal, *model.tokenizer, prompt.ids));
    return 0;
  }
  // Into a file or pipe the text goes as it is, without an added line break.
  if (!terminal.out_is_terminal()) {
    terminal.print(prompt.text);
    return 0;
  }
  terminal.print(painted_text(terminal, *model.tokenizer, prompt.ids));
  terminal.print(prompt.text.empty() || prompt.text.back() != '\n' ? "\n" : "");
  terminal.note(terminal.paint_note(Style::kDim, fmt::format("{} tokens", prompt.ids.size())) +
                "\n");
  return 0;
}

Action declare_template(CLI::App& app) {
  auto options = std::make_shared<TemplateCommandOptions>();
  options->input.declare(app, "TEXT", "One user message.");
  app.add_option(
         "--messages", options->messages_file,
         "A conversation in place of a text: a JSON list of {\"role\", \"content\"}; `-` reads "
         "standard input.")
      ->type_name("FILE")
      ->group("Input");
  app.add_option_function<std::string>(
         "--system",
         [target = options.get()](const std::string& text) {
           target->system = text;
           target->has_system = true;
         },
         "A system message in front.")
      ->type_name("TEXT")
      ->group("Input");
  app.add_option("--tools", options->tools_file,
                 "Tools that the template may offer the model: a JSON list of objects.")
      ->type_name("FILE")
      ->group("Input");
  options->templates.declare(app);
  app.add_option("--template-name", options->template_name,
                 "Which one, where the model has several (default, tool_use, rag).")
      ->type_name("NAME")
      ->group("Chat template");
  app.add_flag("--no-generation-prompt", options->no_generation_prompt,
               "Leaves out the start of the model's answer that stands at the end.")
      ->group("Chat template");
  app.add_flag("--show-source", options->show_source, "The template itself, not what it renders.")
      ->group("Result");
  app.add_flag("--ids", options->ids, "The tokens of the rendered text: id and piece.")
      ->group("Result");
  options->model.declare_source(app);
  return [options](Invocation& invocation) { return run_template(*options, invocation); };
}

}  // namespace

Command template_command() {
  return {"template",
          "what the chat template makes of messages",
          "Renders the model's chat template as transformers' apply_chat_template does and prints "
          "the prompt that the model would see; on a terminal special tokens are coloured. The "
          "weights are not loaded.",
          {{"template \"Hello\"", "one user message, rendered"},
           {"template --messages talk.json --tools tools.json", "a conversation with tools"},
           {"template \"Hello\" --think off", "with enable_thinking = false"},
           {"template \"Hello\" --ids", "its tokens"},
           {"template --show-source", "the Jinja source"}},
          declare_template};
}

}  // namespace logitlab
