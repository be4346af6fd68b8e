// generate: continues a prompt, with every setting of generation.
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "chat_prompt.h"
#include "command.h"
#include "interrupt.h"
#include "json_out.h"
#include "model_options.h"
#include "settings_options.h"
#include "streamed_answer.h"
#include "text_input.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr int kInterrupted = 130;

struct GenerateCommandOptions {
  ModelOptions model;
  TextInput input;
  TemplateOptions templates;
  SettingsOptions settings;
  bool raw = false;
  bool chat = false;
  std::string system;
  bool has_system = false;
  int64_t top = 0;
  bool ids = false;
};

Result<RenderedPrompt> make_prompt(const GenerateCommandOptions& options, const Engine& engine,
                                   const std::string& text) {
  const bool is_chat = options.chat || (!options.raw && engine.chat_template() != nullptr);
  if (!is_chat) {
    if (options.has_system) {
      return fail(ErrorCode::kInvalidArgument,
                  "--system needs a chat template, and {} has none; put the instructions into the "
                  "prompt",
                  short_name(engine.source()));
    }
    RenderedPrompt prompt;
    prompt.text = text;
    ASSIGN_OR_RETURN(prompt.ids, engine.tokenizer().encode(text));
    return prompt;
  }
  if (engine.chat_template() == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "--chat: {} has no chat template; leave --chat out",
                short_name(engine.source()));
  }
  Json messages = Json::array();
  if (options.has_system) {
    messages.push_back(message("system", options.system));
  }
  messages.push_back(message("user", text));
  ASSIGN_OR_RETURN(const Json variables, options.templates.values());
  ChatRequest request;
  request.messages = &messages;
  request.variables = &variables;
  request.add_generation_prompt = true;
  return render_prompt(*engine.chat_template(), engine.tokenizer(), request);
}

Json steps_json(const Tokenizer& tokenizer, const std::vector<StepRecord>& steps) {
  Json out = Json::array();
  for (const StepRecord& step : steps) {
    const auto piece = tokenizer.piece(step.id);
    Json item = Json::object();
    item["id"] = step.id;
    item["text"] = piece ? Json(*piece) : Json();
    item["logit"] = step.logit;
    item["probability"] = step.probability;
    item["alternatives"] = alternatives_json(tokenizer, step.alternatives);
    out.push_back(std::move(item));
  }
  return out;
}

Json document_of(const Engine& engine, const RenderedPrompt& prompt, const Answer& answer,
                 const std::vector<std::string>& warnings) {
  Json document = Json::object();
  document["text"] = answer.text;
  document["ids"] = answer.result.first().ids;
  document["stop_reason"] = std::string(name(answer.result.first().stop_reason));
  document["stop_id"] = answer.result.first().stop_id >= 0 ? Json(answer.result.first().stop_id) : Json();
  document["prompt"] = {{"text", prompt.text}, {"ids", prompt.ids}};
  document["settings"] = json_of(answer.settings);
  document["seed"] = answer.settings.config.seed.value_or(0);
  document["warnings"] = warnings;
  document["timings"] = timings_json(answer.result);
  document["model"] = json_of(engine.source());
  document["machine"] = machine_json(engine);
  if (!answer.steps.empty()) {
    document["steps"] = steps_json(engine.tokenizer(), answer.steps);
  }
  return document;
}

void print_steps(Terminal* terminal, const Tokenizer& tokenizer,
                 const std::vector<StepRecord>& steps) {
  Table table({{"step", Align::kRight},
               {"id", Align::kRight},
               {"text", Align::kLeft},
               {"p", Align::kRight},
               {"best of the raw logits", Align::kLeft}});
  int64_t number = 0;
  for (const StepRecord& step : steps) {
    std::string best;
    for (const Alternative& item : step.alternatives) {
      best += fmt::format("{}{} {:.3f}", best.empty() ? "" : "  ", quoted_piece(tokenizer, item.id),
                          item.probability);
    }
    const bool is_best = !step.alternatives.empty() && step.alternatives.front().id == step.id;
    table.add_row({fmt::format("{}", ++number),
                   fmt::format("{}", step.id),
                   {quoted_piece(tokenizer, step.id), is_best ? Style::kAccent : Style::kWarn},
                   fmt::format("{:.3f}", step.probability),
                   {best, Style::kDim}});
  }
  terminal->print(table.render(*terminal));
}

void print_result(Invocation& invocation, const GenerateCommandOptions& options,
                  const Engine& engine, const Answer& answer) {
  Terminal& terminal = invocation.terminal;
  if (options.ids) {
    terminal.print(fmt::format("{}\n", fmt::join(answer.result.first().ids, ",")));
  } else if (answer.text.empty() || answer.text.back() != '\n') {
    terminal.print("\n");
  }
  if (!answer.steps.empty()) {
    terminal.print("\n");
    print_steps(&terminal, engine.tokenizer(), answer.steps);
  }
  const GenerationConfig& config = answer.settings.config;
  if (answer.result.first().stop_reason == StopReason::kLength && !config.max_new_tokens &&
      !config.max_length) {
    terminal.note(terminal.paint_note(Style::kWarn,
                                      fmt::format("stopped after {} new tokens, the default limit; "
                                                  "--max-new-tokens N allows more",
                                                  answer.result.first().ids.size())));
    terminal.note("\n");
  }
  terminal.note(terminal.paint_note(Style::kDim, receipt_line(answer.result)) + "\n");
}

Status check_flags(const GenerateCommandOptions& options) {
  if (options.raw && options.chat) {
    return fail(ErrorCode::kUsage, "generate: --raw and --chat exclude each other");
  }
  if (options.raw && options.has_system) {
    return fail(ErrorCode::kUsage,
                "generate: --system is a message, and --raw uses no messages; leave one out");
  }
  return {};
}

Result<int> run_generate(const GenerateCommandOptions& options, Invocation& invocation) {
  RETURN_IF_ERROR(check_flags(options));
  // All that can be refused is refused before the model is loaded.
  ASSIGN_OR_RETURN(const std::string text, options.input.read("prompt"));
  ASSIGN_OR_RETURN(const GenerationConfig config, options.settings.config());
  const auto variables = options.templates.values();
  if (!variables) {
    return tl::unexpected<Error>(variables.error());
  }
  InterruptGuard interrupts;
  ASSIGN_OR_RETURN(const auto engine, options.model.load(invocation));
  ASSIGN_OR_RETURN(const RenderedPrompt prompt, make_prompt(options, *engine, text));

  const EffectiveConfig effective = merge_generation_config(config, engine->defaults());
  RETURN_IF_ERROR(validate_generation_config(effective.config));
  std::vector<std::string> warnings =
      generation_warnings(effective, engine->model().config().vocab_size);
  for (const std::string& setting : engine->ignored_defaults()) {
    warnings.push_back(not_applied(setting));
  }
  Terminal& terminal = invocation.terminal;
  for (const std::string& warning : warnings) {
    terminal.note(terminal.paint_note(Style::kWarn, "note: " + warning) + "\n");
  }

  AnswerRequest request;
  request.prompt = prompt.ids;
  request.config = config;
  request.prints_text = !invocation.json && !options.ids;
  request.shows_special = options.raw;
  request.n_alternatives = options.top;
  ASSIGN_OR_RETURN(const Answer answer, stream_answer(*engine, invocation, request));
  if (invocation.json) {
    print_json(&terminal, document_of(*engine, prompt, answer, warnings));
  } else {
    print_result(invocation, options, *engine, answer);
  }
  const bool was_stopped =
      answer.result.first().stop_reason == StopReason::kCancelled && !terminal.reader_has_gone();
  return was_stopped ? kInterrupted : 0;
}

Action declare_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateCommandOptions>();
  options->input.declare(app, "PROMPT", "The prompt.");
  app.add_flag("--chat", options->chat,
               "The prompt is a user message and goes through the model's chat template. The "
               "default when the model has a template.")
      ->group("Chat template");
  app.add_flag("--raw", options->raw,
               "The prompt goes to the model as it is; special tokens are shown in the answer.")
      ->group("Chat template");
  app.add_option_function<std::string>(
         "--system",
         [target = options.get()](const std::string& text) {
           target->system = text;
           target->has_system = true;
         },
         "A system message before the prompt.")
      ->type_name("TEXT")
      ->group("Chat template");
  options->templates.declare(app);
  options->settings.declare(app);
  options->model.declare_source(app);
  options->model.declare_compute(app);
  app.add_option("--top", options->top,
                 "Lists, for every step, the N best tokens of the raw logits and their "
                 "probabilities, 0 to 100. Default 0: none.")
      ->type_name("N")
      ->check(CLI::Range(0, 100))
      ->group("Result");
  app.add_flag("--ids", options->ids, "Prints the token ids of the answer in place of its text.")
      ->group("Result");
  return [options](Invocation& invocation) { return run_generate(*options, invocation); };
}

}  // namespace

Command generate_command() {
  return {"generate",
          "continue a prompt, with every setting of generation",
          "Reads a prompt, runs the model and streams what it writes to standard output; the "
          "receipt (tokens, seconds, memory, why it stopped) goes to standard error. Settings have "
          "the names, defaults and meaning of transformers' generate. A setting that is not given "
          "comes from the model's generation_config.json, then from the table below; --json shows "
          "which. The same seed gives the same text, on any number of threads.\n\n"
          "Ctrl-C stops and keeps what is there (exit code 130); a second Ctrl-C ends at once.",
          {{"generate \"Why is the sky blue?\" --max-new-tokens 100",
            "greedy: the likeliest token at every step"},
           {"generate \"Tell me a story.\" --do-sample --temperature 0.8 --top-p 0.9 --seed 7",
            "drawn at random, and the same story again with the same seed"},
           {"generate --raw \"The capital of France is\" --max-new-tokens 5 --top 3",
            "no template, and the three best tokens of every step"},
           {"generate --file question.txt --system \"Answer in one word.\" --json",
            "prompt from a file, everything that is known about the run as JSON"}},
          declare_generate};
}

}  // namespace logitlab
