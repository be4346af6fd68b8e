// chat: a conversation in the terminal, or a script of one on standard input.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/env.h"
#include "base/file.h"
#include "base/utf8.h"
#include "command.h"
#include "conversation.h"
#include "engine/run_description.h"
#include "interrupt.h"
#include "json_out.h"
#include "line_reader.h"
#include "memory_view.h"
#include "model_options.h"
#include "sampling/generation_fields.h"
#include "settings_options.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr int64_t kDefaultAnswerTokens = 512;

struct ChatCommandOptions {
  ModelOptions model;
  TemplateOptions templates;
  SettingsOptions settings;
  std::string system;
};

constexpr std::pair<std::string_view, std::string_view> kChatCommands[] = {
    {"/help", "this list"},
    {"/reset", "forget the conversation, keep the system message"},
    {"/system TEXT", "set the system message (no text: none) and start anew"},
    {"/set NAME VALUE", "change a setting: /set temperature 0.7"},
    {"/set", "the settings in force and where each comes from"},
    {"/save FILE", "write the conversation as JSON"},
    {"/quit", "leave (so does the end of input, Ctrl-D)"},
    {"//text", "a message that starts with a slash"},
};

// The loop of a conversation. One-thread.
class Chat {
 public:
  Chat(Invocation& invocation, Engine& engine, GenerationConfig config, Json variables)
      : invocation_(invocation),
        terminal_(invocation.terminal),
        engine_(engine),
        conversation_(engine, std::move(variables)),
        config_(std::move(config)),
        is_interactive_(stdin_is_terminal()) {
    limit_answer();
  }

  void set_system(const std::string& text) { conversation_.set_system(text); }
  [[nodiscard]] Result<int> run();

 private:
  // False: leave.
  [[nodiscard]] Result<bool> handle(const std::string& line);
  [[nodiscard]] Result<bool> command(std::string_view line);
  [[nodiscard]] Status set(std::string_view words);
  [[nodiscard]] Status save(const std::string& path) const;
  [[nodiscard]] Status ask(const std::string& text);
  [[nodiscard]] Json document() const;
  void limit_answer();
  void print_banner();
  void print_help();
  void print_settings();
  void say(std::string_view text, Style style = Style::kDim) {
    terminal_.note(terminal_.paint_note(style, text) + "\n");
  }

  Invocation& invocation_;
  Terminal& terminal_;
  Engine& engine_;
  Conversation conversation_;
  GenerationConfig config_;
  bool is_interactive_;
  InterruptGuard interrupts_;
  LineReader reader_;
  Json turns_ = Json::array();  // receipts
};

// transformers' limit of 20 new tokens would cut almost every answer.
void Chat::limit_answer() {
  const EffectiveConfig effective = merge_generation_config(config_, engine_.defaults());
  if (!effective.config.max_new_tokens && !effective.config.max_length) {
    config_.max_new_tokens = kDefaultAnswerTokens;
  }
}

void Chat::print_banner() {
  const auto columns = static_cast<size_t>(terminal_.columns());
  say(wrap_with_prefix(fmt::format("{} on {}. /help lists the commands, Ctrl-C stops an answer, "
                                   "Ctrl-D leaves.",
                                   short_name(engine_.source()), machine_line(engine_)),
                       columns, "", ""));
  for (const std::string& setting : engine_.ignored_defaults()) {
    say("note: " + not_applied(setting), Style::kWarn);
  }
}

void Chat::print_help() {
  Table table({{"", Align::kLeft}, {"", Align::kLeft}});
  for (const auto& [name, meaning] : kChatCommands) {
    table.add_row({std::string(name), std::string(meaning)});
  }
  terminal_.note(table.render(terminal_, 2));
}

void Chat::print_settings() {
  const EffectiveConfig effective = merge_generation_config(config_, engine_.defaults());
  Table table({{"setting", Align::kLeft}, {"value", Align::kLeft}, {"from", Align::kLeft}});
  for (const GenerationField& field : generation_fields()) {
    const FieldValue value = get_field(effective.config, field);
    if (!std::holds_alternative<std::monostate>(value)) {
      table.add_row({std::string(field.name), value_text(value),
                     std::string(name(effective.origin(field.name)))});
    }
  }
  terminal_.note(table.render(terminal_, 2));
}

Status Chat::set(std::string_view words) {
  const size_t space = words.find(' ');
  if (space == std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "/set {}: want a name and a value", printable(words));
  }
  GenerationConfig changed = config_;
  RETURN_IF_ERROR(set_field(&changed, words.substr(0, space), words.substr(space + 1)));
  const EffectiveConfig effective = merge_generation_config(changed, engine_.defaults());
  RETURN_IF_ERROR(validate_generation_config(effective.config));
  for (const std::string& warning :
       generation_warnings(effective, engine_.model().config().vocab_size)) {
    say("note: " + warning, Style::kWarn);
  }
  config_ = changed;
  limit_answer();
  return {};
}

Json Chat::document() const {
  Json out = Json::object();
  out["messages"] = conversation_.messages();
  out["turns"] = turns_;
  out["settings"] = json_of(merge_generation_config(config_, engine_.defaults()));
  out["model"] = json_of(engine_.source());
  out["machine"] = machine_json(engine_);
  return out;
}

Status Chat::save(const std::string& path) const {
  if (path.empty()) {
    return fail(ErrorCode::kInvalidArgument, "/save: want the name of a file");
  }
  return write_file_atomically(path, dump_json(document(), 2) + "\n");
}

Status Chat::ask(const std::string& text) {
  interrupts_.rearm();
  const bool prints_text = !invocation_.json;
  ASSIGN_OR_RETURN(const Conversation::Turn turn,
                   conversation_.ask(invocation_, text, config_, prints_text));
  const GenerationResult& result = turn.answer.result;
  if (prints_text) {
    const std::string& answer = turn.answer.text();
    if (!turn.answer.was_streamed) {
      terminal_.print_untrusted(answer);
    }
    terminal_.print(answer.empty() || answer.back() != '\n' ? "\n" : "");
    terminal_.flush();
    say(memory_note(terminal_, measure_memory(engine_, result)));
    say(fmt::format("{} reused_tokens={}", receipt_line(result), result.reused_prompt_tokens));
    const ThinkingOutcome outcome = turn.answer.parts.front().outcome;
    const std::string remark = thinking_remark(result.first(), outcome);
    if (!remark.empty()) {
      const bool is_cut = outcome == ThinkingOutcome::kCut;
      say(remark + (is_cut ? "; /set max_new_tokens N allows more, /set thinking_budget N closes "
                             "the thinking earlier"
                           : ""),
          Style::kWarn);
    } else if (result.first().stop_reason == StopReason::kLength) {
      say(fmt::format("the answer was cut after {} tokens; /set max_new_tokens N allows more",
                      result.first().ids.size()),
          Style::kWarn);
    }
  }
  Json receipt = timings_json(result);
  receipt["memory"] = memory_json(measure_memory(engine_, result));
  receipt["text"] = turn.answer.text();
  receipt["ids"] = result.first().ids;
  receipt["stop_reason"] = std::string(name(result.first().stop_reason));
  add_thinking_json(result.first(), turn.answer.parts.front(), &receipt);
  turns_.push_back(std::move(receipt));
  return {};
}

Result<bool> Chat::command(std::string_view line) {
  const size_t space = line.find(' ');
  const std::string_view word = line.substr(0, space);
  std::string_view rest = space == std::string_view::npos ? "" : line.substr(space + 1);
  while (!rest.empty() && rest.front() == ' ') {
    rest.remove_prefix(1);
  }
  if (word == "/quit" || word == "/exit") {
    return false;
  }
  if (word == "/help") {
    print_help();
  } else if (word == "/reset") {
    conversation_.reset();
    say("the conversation is empty again");
  } else if (word == "/system") {
    conversation_.set_system(std::string(rest));
    say(rest.empty() ? "no system message; the conversation starts anew"
                     : "system message set; the conversation starts anew");
  } else if (word == "/set" && rest.empty()) {
    print_settings();
  } else if (word == "/set") {
    RETURN_IF_ERROR(set(rest));
  } else if (word == "/save") {
    RETURN_IF_ERROR(save(std::string(rest)));
    say(fmt::format("saved in {}", printable(rest)));
  } else {
    return fail(ErrorCode::kInvalidArgument, "there is no {}; /help lists the commands",
                printable(word));
  }
  return true;
}

Result<bool> Chat::handle(const std::string& line) {
  RETURN_IF_ERROR(require_utf8(line, "the message"));
  if (line.find_first_not_of(" \t") == std::string::npos) {
    return true;
  }
  if (line.front() == '/' && line.compare(0, 2, "//") != 0) {
    return command(line);
  }
  RETURN_IF_ERROR(ask(line.front() == '/' ? line.substr(1) : line));
  return true;
}

Result<int> Chat::run() {
  if (is_interactive_ && !invocation_.json) {
    print_banner();
  }
  bool was_asked_to_leave = false;
  for (;;) {
    if (is_interactive_) {
      terminal_.note(terminal_.paint_note(Style::kHeading, "> "));
    }
    ASSIGN_OR_RETURN(const LineReader::Read read, reader_.next());
    if (read.end == LineReader::End::kEndOfInput) {
      terminal_.note(is_interactive_ ? "\n" : "");
      break;
    }
    if (read.end == LineReader::End::kInterrupted) {
      if (!InterruptGuard::was_interrupted()) {
        continue;  // another signal: the window was resized
      }
      if (!is_interactive_ || was_asked_to_leave) {
        return 130;
      }
      // The next Ctrl-C finds the default action and ends the process.
      say("\n(Ctrl-C again, Ctrl-D or /quit leaves)");
      was_asked_to_leave = true;
      continue;
    }
    was_asked_to_leave = false;
    interrupts_.rearm();
    const Result<bool> goes_on = handle(read.line);
    if (!goes_on) {
      if (!is_interactive_) {
        return tl::unexpected<Error>(goes_on.error());
      }
      say(goes_on.error().message, Style::kWarn);
      continue;
    }
    if (!*goes_on || !terminal_.is_writable()) {
      break;
    }
    if (InterruptGuard::was_interrupted() && !is_interactive_) {
      return 130;
    }
    interrupts_.rearm();
  }
  if (invocation_.json) {
    print_json(&terminal_, document());
  }
  return 0;
}

Result<int> run_chat(const ChatCommandOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(GenerationConfig config, options.settings.config());
  ASSIGN_OR_RETURN(Json variables, options.templates.values());
  // Bad settings are refused before the weights are read.
  const auto check = [&config](const GenerationConfig& of_model, const ModelConfig&) {
    return validate_generation_config(merge_generation_config(config, of_model).config);
  };
  ASSIGN_OR_RETURN(const auto engine, options.model.load(invocation, check));
  if (engine->chat_template() == nullptr) {
    return fail(ErrorCode::kInvalidArgument,
                "{} has no chat template; `logitlab generate --raw` continues a plain text",
                short_name(engine->source()));
  }
  RETURN_IF_ERROR(engine->chat_template()->check());
  Chat chat(invocation, *engine, std::move(config), std::move(variables));
  if (!options.system.empty()) {
    chat.set_system(options.system);
  }
  return chat.run();
}

Action declare_chat(CLI::App& app) {
  auto options = std::make_shared<ChatCommandOptions>();
  app.add_option("--system", options->system, "The system message.")
      ->type_name("TEXT")
      ->group("Chat template");
  options->templates.declare(app);
  options->settings.declare(app);
  options->model.declare_source(app);
  options->model.declare_compute(app);
  return [options](Invocation& invocation) { return run_chat(*options, invocation); };
}

}  // namespace

Command chat_command() {
  return {
      "chat",
      "a conversation; the model's state is kept between turns",
      "Every line is a message; answers stream to standard output, receipts and remarks go to "
      "standard error. The whole conversation goes through the chat template at every turn, and "
      "what the model has already read of it is not computed again (reused_tokens in the "
      "receipt). An answer may have 512 tokens unless a setting says otherwise.\n\n"
      "Commands inside: /help, /reset, /system TEXT, /set NAME VALUE, /save FILE, /quit. Ctrl-C "
      "stops an answer, and what was said so far stays in the conversation. Lines from a pipe "
      "work as a script; there the first error ends it.",
      {{"chat", "talk to the default model"},
       {"chat --do-sample --temperature 0.8 --system \"You are a pirate.\"",
        "with chance and a role"},
       {"chat --json < questions.txt", "one question a line, the conversation as JSON"}},
      declare_chat};
}

}  // namespace logitlab
