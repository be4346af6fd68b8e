// first-contact: one question, one answer, and what happened inside.
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/env.h"
#include "base/utf8.h"
#include "chat_prompt.h"
#include "command.h"
#include "interrupt.h"
#include "json_out.h"
#include "memory_view.h"
#include "model_options.h"
#include "streamed_answer.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr std::string_view kQuestion = "Hello. In one sentence, who are you?";
constexpr int64_t kMaxNewTokens = 60;
constexpr int64_t kAlternatives = 5;
constexpr int kInterrupted = 130;

struct FirstContactOptions {
  ModelOptions model;
};

Result<RenderedPrompt> make_prompt(const Engine& engine) {
  if (engine.chat_template() == nullptr) {
    RenderedPrompt prompt;
    prompt.text = kQuestion;
    ASSIGN_OR_RETURN(prompt.ids, engine.tokenizer().encode(prompt.text));
    return prompt;
  }
  Json messages = Json::array();
  messages.push_back(message("user", kQuestion));
  ChatRequest request;
  request.messages = &messages;
  request.add_generation_prompt = true;
  return render_prompt(*engine.chat_template(), engine.tokenizer(), request);
}

void print_heading(Terminal* terminal, std::string_view title, std::string_view detail) {
  terminal->print("\n" + terminal->paint(Style::kHeading, title));
  // Beside the title where there is room.
  const bool fits = title.size() + 1 + detail.size() <= static_cast<size_t>(terminal->columns());
  if (!detail.empty()) {
    terminal->print(fits ? " " : "\n");
    terminal->print(terminal->paint(Style::kDim, detail));
  }
  terminal->print("\n");
}

void print_before(Terminal* terminal, const Engine& engine, const RenderedPrompt& prompt) {
  const auto columns = static_cast<size_t>(terminal->columns());
  const ModelConfig& config = engine.model().config();
  terminal->print(terminal->paint(Style::kBold, shortened(short_name(engine.source()), columns)) +
                  "\n");
  terminal->print(terminal->paint(
      Style::kDim,
      wrap_with_prefix(
          fmt::format("{}, {} parameters, {} layers; {}; loaded in {:.2f} s", config.architecture,
                      with_commas(engine.model().parameter_count()), config.num_hidden_layers,
                      machine_line(engine), engine.load_seconds()),
          columns, "", "")));
  print_heading(terminal, "What the model sees", "(special tokens stand out)");
  terminal->print(painted_text(*terminal, engine.tokenizer(), prompt.ids));
  terminal->print(prompt.text.empty() || prompt.text.back() != '\n' ? "\n" : "");
  print_heading(terminal, "As tokens", fmt::format("({})", prompt.ids.size()));
  terminal->print(token_list(*terminal, engine.tokenizer(), prompt.ids));
  print_heading(terminal, "Its answer", "");
  terminal->flush();
}

void print_after(Terminal* terminal, const Engine& engine, const Answer& answer) {
  const auto columns = static_cast<size_t>(terminal->columns());
  terminal->print(answer.text().empty() || answer.text().back() != '\n' ? "\n\n" : "\n");
  terminal->print(terminal->paint(Style::kGood, receipt_line(answer.result)) + "\n");
  const std::string memory = memory_line(measure_memory(engine, answer.result));
  terminal->print(terminal->paint(Style::kDim, wrap_with_prefix(memory, columns, "", "")));
  if (!answer.steps.empty()) {
    print_heading(terminal, "What else the first word could have been", "");
    Table table({{"id", Align::kRight}, {"probability", Align::kRight}, {"text", Align::kLeft}});
    for (const Alternative& item : answer.steps.front().alternatives) {
      table.add_row({fmt::format("{}", item.id),
                     fmt::format("{:.4f}", item.probability),
                     {quoted_piece(engine.tokenizer(), item.id), Style::kAccent}});
    }
    terminal->print(table.render(*terminal, 2));
  }
  print_heading(terminal, "Next", "");
  const std::pair<std::string_view, std::string_view> next[] = {
      {"chat", "talk to it"},
      {"generate \"Tell me a joke.\" --do-sample --seed 1", "let chance choose"},
      {"generate \"The sky is\" --raw --explain", "see what it weighed at every step"},
      {"inspect", "what this model is made of"},
      {"--help", "everything else"},
  };
  // What started this process: `./lab` in a clone says so.
  const std::string program = printable(env_var("LOGITLAB_PROGRAM").value_or("logitlab"));
  for (const auto& [arguments, meaning] : next) {
    const std::string command = fmt::format("{} {}", program, arguments);
    terminal->print(
        terminal->paint(Style::kAccent, wrap_with_prefix(command, columns, "  ", "    ")));
    terminal->print(
        terminal->paint(Style::kDim, wrap_with_prefix(meaning, columns, "    ", "    ")));
  }
}

Json document_of(const Engine& engine, const RenderedPrompt& prompt, const Answer& answer) {
  Json document = Json::object();
  document["question"] = std::string(kQuestion);
  document["prompt"] = {{"text", prompt.text}, {"ids", prompt.ids}};
  document["text"] = answer.text();
  document["ids"] = answer.result.first().ids;
  document["stop_reason"] = std::string(name(answer.result.first().stop_reason));
  document["timings"] = timings_json(answer.result);
  document["memory"] = memory_json(measure_memory(engine, answer.result));
  document["first_token_alternatives"] =
      answer.steps.empty()
          ? Json::array()
          : alternatives_json(engine.tokenizer(), answer.steps.front().alternatives);
  document["model"] = json_of(engine.source());
  document["machine"] = machine_json(engine);
  return document;
}

Result<int> run_first_contact(const FirstContactOptions& options, Invocation& invocation) {
  InterruptGuard interrupts;
  ASSIGN_OR_RETURN(const auto engine, options.model.load(invocation));
  ASSIGN_OR_RETURN(const RenderedPrompt prompt, make_prompt(*engine));
  Terminal& terminal = invocation.terminal;
  if (!invocation.json) {
    print_before(&terminal, *engine, prompt);
  }
  AnswerRequest request;
  request.prompts = {{prompt.ids, nullptr}};
  request.config.do_sample = false;
  request.config.max_new_tokens = kMaxNewTokens;
  request.prints_text = !invocation.json;
  request.n_alternatives = kAlternatives;
  ASSIGN_OR_RETURN(const Answer answer, stream_answer(*engine, invocation, request));
  if (invocation.json) {
    print_json(&terminal, document_of(*engine, prompt, answer));
  } else {
    print_after(&terminal, *engine, answer);
  }
  const bool was_stopped =
      answer.result.first().stop_reason == StopReason::kCancelled && !terminal.reader_has_gone();
  return was_stopped ? kInterrupted : 0;
}

Action declare_first_contact(CLI::App& app) {
  auto options = std::make_shared<FirstContactOptions>();
  options->model.declare_source(app);
  options->model.declare_compute(app);
  return [options](Invocation& invocation) { return run_first_contact(*options, invocation); };
}

}  // namespace

Command first_contact_command() {
  return {
      "first-contact",
      "one question, one answer, and what happened inside",
      "Loads a model, shows the prompt as the model sees it (rendered by its chat template) and "
      "its tokens, streams the answer to \"Hello. In one sentence, who are you?\" (greedy, at "
      "most 60 tokens), prints one receipt line and the five likeliest first tokens with their "
      "probabilities.\n\n"
      "The receipt: prompt_tokens and new_tokens are counts, first_token_s is the time from the "
      "question to the first token, tok_per_s the pace after it, peak_memory_mib the most "
      "memory that the process held, stop why it ended (eos_token, length, cancelled).",
      {{"first-contact", "the default model"},
       {"first-contact --model org/name", "a model of the local Hugging Face cache"},
       {"first-contact --json", "the same as one document"}},
      declare_first_contact};
}

}  // namespace logitlab
