// generate: continues prompts, with every setting of generation.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/utf8.h"
#include "build_version.h"
#include "chat_prompt.h"
#include "command.h"
#include "engine/run_description.h"
#include "explain_view.h"
#include "interrupt.h"
#include "json_out.h"
#include "ledger_view.h"
#include "memory_view.h"
#include "model_options.h"
#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"
#include "settings_options.h"
#include "streamed_answer.h"
#include "text_input.h"
#include "text_layout.h"
#include "trace/trace_file.h"

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
  std::vector<std::string> ids_in;
  std::string prompts_file;
  int64_t top = 0;
  bool ids = false;
  ExplainFlag explain;
  bool ledger = false;
  std::string trace;
  int64_t trace_candidates = 20;
  bool has_trace_candidates = false;
  bool trace_full = false;

  [[nodiscard]] bool wants_trace() const { return !trace.empty() || explain.is_given(); }
};

// What the prompts are made of, read before the model is.
struct PromptSource {
  std::vector<std::string> texts;
  std::vector<TokenId> ids;  // in place of texts
};

// One prompt a line: a string, or {"prompt": string}.
Result<std::vector<std::string>> read_prompts(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  std::vector<std::string> prompts;
  int64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) {
      continue;
    }
    const std::string where = fmt::format("{}, line {}", path, number);
    ASSIGN_OR_RETURN(const Json json, parse_json(line, where));
    const bool is_object = json.is_object() && json.size() == 1 && json.contains("prompt");
    const Json& prompt = is_object ? json.at("prompt") : json;
    if (!prompt.is_string()) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}: {} found, want a string or {{\"prompt\": \"...\"}}", where,
                  quoted_json(json));
    }
    prompts.push_back(prompt.get<std::string>());
  }
  if (prompts.empty()) {
    return fail(ErrorCode::kInvalidArgument, "{}: no prompt, want one a line", path);
  }
  return prompts;
}

Result<PromptSource> read_source(const GenerateCommandOptions& options) {
  const int n_sources = (options.input.is_given() ? 1 : 0) + (options.ids_in.empty() ? 0 : 1) +
                        (options.prompts_file.empty() ? 0 : 1);
  if (n_sources > 1) {
    return fail(ErrorCode::kUsage,
                "generate: a prompt, --ids-in and --prompts-file exclude each other; want one");
  }
  PromptSource source;
  if (!options.ids_in.empty()) {
    ASSIGN_OR_RETURN(source.ids, parse_ids(options.ids_in));
  } else if (!options.prompts_file.empty()) {
    ASSIGN_OR_RETURN(source.texts, read_prompts(options.prompts_file));
  } else {
    ASSIGN_OR_RETURN(source.texts.emplace_back(), options.input.read("prompt"));
  }
  return source;
}

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

Result<std::vector<RenderedPrompt>> make_prompts(const GenerateCommandOptions& options,
                                                 const Engine& engine, const PromptSource& source) {
  std::vector<RenderedPrompt> prompts;
  if (!source.ids.empty()) {
    RenderedPrompt prompt;
    prompt.ids = source.ids;
    for (const TokenId id : prompt.ids) {
      prompt.text += engine.tokenizer().piece(id).value_or("");
    }
    prompts.push_back(std::move(prompt));
  }
  for (const std::string& text : source.texts) {
    ASSIGN_OR_RETURN(prompts.emplace_back(), make_prompt(options, engine, text));
  }
  return prompts;
}

// The run into a file, into memory, or both.
class TraceTee final : public TraceSink {
 public:
  TraceTee(TraceFileWriter* file, TraceMemory* memory) : file_(file), memory_(memory) {}
  void begin(const RunTrace& run) override {
    each([&](TraceSink* sink) { sink->begin(run); });
  }
  void step(const TracedStep& step) override {
    each([&](TraceSink* sink) { sink->step(step); });
  }
  void beam_step(const TracedBeamStep& step) override {
    each([&](TraceSink* sink) { sink->beam_step(step); });
  }
  void end(const RunEnd& end) override {
    each([&](TraceSink* sink) { sink->end(end); });
  }

 private:
  template <typename Call>
  void each(Call call) {
    if (file_ != nullptr) {
      call(file_);
    }
    if (memory_ != nullptr) {
      call(memory_);
    }
  }

  TraceFileWriter* file_;
  TraceMemory* memory_;
};

// Everything that one call came to.
struct Run {
  std::vector<RenderedPrompt> prompts;
  RunTrace description;
  Answer answer;
  TraceMemory memory;  // with --explain
};

Json steps_json(const Tokenizer& tokenizer, const std::vector<StepRecord>& steps) {
  Json out = Json::array();
  for (const StepRecord& step : steps) {
    const auto piece = tokenizer.piece(step.id);
    Json item = Json::object();
    item["sequence"] = step.sequence;
    item["id"] = step.id;
    item["text"] = piece ? Json(*piece) : Json();
    item["logit"] = step.logit;
    item["probability"] = step.probability;
    item["alternatives"] = alternatives_json(tokenizer, step.alternatives);
    out.push_back(std::move(item));
  }
  return out;
}

Json sequence_json(const SequenceResult& sequence, const std::string& text,
                   const AnswerParts& parts) {
  Json out = Json::object();
  out["prompt"] = sequence.prompt;
  out["text"] = text;
  out["ids"] = sequence.ids;
  out["stop_reason"] = std::string(name(sequence.stop_reason));
  out["stop_id"] = sequence.stop_id >= 0 ? Json(sequence.stop_id) : Json();
  out["stop_string"] = sequence.stop_string.empty() ? Json() : Json(sequence.stop_string);
  add_thinking_json(sequence, parts, &out);
  if (!std::isnan(sequence.beam_score)) {
    out["beam_score"] = sequence.beam_score;
    out["beam_indices"] = sequence.beam_indices;
  }
  return out;
}

Json stop_ids_json(const Engine& engine, const std::vector<TracedStopId>& stop_ids) {
  Json out = Json::array();
  for (const TracedStopId& stop : stop_ids) {
    const auto piece = engine.tokenizer().piece(stop.id);
    out.push_back(
        {{"id", stop.id}, {"text", piece ? Json(*piece) : Json()}, {"origin", stop.origin}});
  }
  return out;
}

Json prompt_json(const RenderedPrompt& prompt) {
  return {{"text", prompt.text}, {"ids", prompt.ids}};
}

Json document_of(const GenerateCommandOptions& options, const Engine& engine, const Run& run) {
  const GenerationResult& result = run.answer.result;
  const SequenceResult& first = result.first();
  Json document = Json::object();
  document["text"] = run.answer.text();
  document["ids"] = first.ids;
  document["stop_reason"] = std::string(name(first.stop_reason));
  document["stop_id"] = first.stop_id >= 0 ? Json(first.stop_id) : Json();
  document["sequences"] = Json::array();
  for (size_t i = 0; i < result.sequences.size(); ++i) {
    document["sequences"].push_back(
        sequence_json(result.sequences[i], run.answer.texts[i], run.answer.parts[i]));
  }
  document["beam_stop"] = result.beam_stop.empty() ? Json() : Json(result.beam_stop);
  document["prompt"] = prompt_json(run.prompts.front());
  if (run.prompts.size() > 1) {
    document["prompts"] = Json::array();
    for (const RenderedPrompt& prompt : run.prompts) {
      document["prompts"].push_back(prompt_json(prompt));
    }
  }
  document["settings"] = ledger_json(run.answer.settings, run.description.ledger);
  document["stop_ids"] = stop_ids_json(engine, run.description.stop_ids);
  document["seed"] = run.answer.settings.config.seed.value_or(0);
  document["warnings"] = run.description.warnings;
  document["timings"] = timings_json(result);
  document["memory"] = memory_json(measure_memory(engine, result));
  document["model"] = json_of(engine.source());
  document["machine"] = machine_json(engine);
  if (!run.answer.steps.empty()) {
    document["steps"] = steps_json(engine.tokenizer(), run.answer.steps);
  }
  document["trace"] = options.trace.empty() ? Json() : Json(options.trace);
  return document;
}

void print_steps(Terminal* terminal, const Tokenizer& tokenizer,
                 const std::vector<StepRecord>& steps) {
  Table table({{"step", Align::kRight},
               {"id", Align::kRight},
               {"text", Align::kLeft},
               {"p", Align::kRight},
               {"best of the raw logits", Align::kLeft}});
  std::map<int64_t, int64_t> numbers;
  const bool is_lone = steps.empty() || steps.back().sequence == 0;
  for (const StepRecord& step : steps) {
    std::string best;
    for (const Alternative& item : step.alternatives) {
      best += fmt::format("{}{} {:.3f}", best.empty() ? "" : "  ", quoted_piece(tokenizer, item.id),
                          item.probability);
    }
    const bool is_best = !step.alternatives.empty() && step.alternatives.front().id == step.id;
    const int64_t number = ++numbers[step.sequence];
    table.add_row(
        {is_lone ? fmt::format("{}", number) : fmt::format("{}:{}", step.sequence + 1, number),
         fmt::format("{}", step.id),
         {quoted_piece(tokenizer, step.id), is_best ? Style::kAccent : Style::kWarn},
         fmt::format("{:.3f}", step.probability),
         {best, Style::kDim}});
  }
  terminal->print(table.render(*terminal));
}

std::string sequence_heading(const Run& run, const SequenceResult& sequence, size_t index) {
  std::string heading = fmt::format("[{}]", index + 1);
  if (run.prompts.size() > 1) {
    heading += fmt::format(" prompt {}", sequence.prompt + 1);
  }
  if (!std::isnan(sequence.beam_score)) {
    heading += fmt::format(" score {:.4f}", sequence.beam_score);
  }
  return heading + fmt::format(" stop={}", name(sequence.stop_reason));
}

// What was not streamed: numbered when there are several.
void print_answers(Terminal* terminal, const GenerateCommandOptions& options, const Run& run) {
  const std::vector<SequenceResult>& sequences = run.answer.result.sequences;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const std::string& text = run.answer.texts[i];
    if (sequences.size() > 1 && !options.ids) {
      terminal->print(terminal->paint(Style::kHeading, sequence_heading(run, sequences[i], i)) +
                      "\n");
    }
    if (options.ids) {
      terminal->print(fmt::format("{}\n", fmt::join(sequences[i].ids, ",")));
      continue;
    }
    if (!run.answer.was_streamed) {
      terminal->print_untrusted(text);
    }
    terminal->print(text.empty() || text.back() != '\n' ? "\n" : "");
  }
}

void warn(Terminal* terminal, const std::string& text) {
  for (const std::string& line : wrap(text, static_cast<size_t>(terminal->columns()))) {
    terminal->note(terminal->paint_note(Style::kWarn, line) + "\n");
  }
}

// What a person should know of how it ended.
void print_remarks(Terminal* terminal, const Run& run) {
  const GenerationResult& result = run.answer.result;
  const GenerationConfig& config = run.answer.settings.config;
  for (size_t i = 0; i < result.sequences.size(); ++i) {
    const SequenceResult& sequence = result.sequences[i];
    const std::string who =
        result.sequences.size() > 1 ? fmt::format("[{}] ", i + 1) : std::string();
    const ThinkingOutcome outcome = run.answer.parts[i].outcome;
    const std::string remark = thinking_remark(sequence, outcome);
    if (!remark.empty()) {
      warn(terminal, fmt::format("{}{}{}", who, remark,
                                 outcome == ThinkingOutcome::kCut
                                     ? "; --max-new-tokens allows more, --thinking-budget closes "
                                       "the thinking earlier"
                                     : ""));
    }
  }
  if (run.answer.has_nan) {
    warn(terminal,
         "note: the model's logits hold NaN (not a number): what it wrote from there on means "
         "nothing");
  }
  if (result.first().stop_reason == StopReason::kLength && !config.max_new_tokens &&
      !config.max_length) {
    warn(terminal, fmt::format("stopped after {} new tokens, the default limit; --max-new-tokens N "
                               "allows more",
                               result.first().ids.size()));
  }
  if (!result.beam_stop.empty()) {
    terminal->note(terminal->paint_note(Style::kDim, "beam search ended: " + result.beam_stop) +
                   "\n");
  }
}

void print_run(Invocation& invocation, const GenerateCommandOptions& options, const Engine& engine,
               const Run& run) {
  Terminal& terminal = invocation.terminal;
  print_answers(&terminal, options, run);
  if (!run.answer.steps.empty()) {
    terminal.print("\n");
    print_steps(&terminal, engine.tokenizer(), run.answer.steps);
  }
  print_remarks(&terminal, run);
  if (options.ledger) {
    terminal.note(ledger_table(terminal, run.description.ledger));
  }
  terminal.note(
      ledger_lines(terminal, run.description.ledger, run.description.stop_ids,
                   [&engine](TokenId id) { return quoted_piece(engine.tokenizer(), id); }));
  if (!options.trace.empty()) {
    terminal.note(terminal.paint_note(Style::kDim, "trace: " + printable(options.trace)) + "\n");
  }
  const std::string memory = memory_note(terminal, measure_memory(engine, run.answer.result));
  terminal.note(terminal.paint_note(Style::kDim, memory) + "\n");
  terminal.note(terminal.paint_note(Style::kDim, receipt_line(run.answer.result)) + "\n");
}

Status check_flags(const GenerateCommandOptions& options) {
  if (options.raw && options.chat) {
    return fail(ErrorCode::kUsage, "generate: --raw and --chat exclude each other");
  }
  if (options.raw && options.has_system) {
    return fail(ErrorCode::kUsage,
                "generate: --system is a message, and --raw uses no messages; leave one out");
  }
  if (!options.ids_in.empty() && (options.chat || options.has_system)) {
    return fail(ErrorCode::kUsage,
                "generate: --ids-in are the whole prompt, no template is applied; leave --chat and "
                "--system out");
  }
  if (options.trace.empty() && options.trace_full) {
    return fail(ErrorCode::kUsage,
                "generate: --trace-full says what a trace holds; want --trace FILE beside it");
  }
  if (!options.wants_trace() && options.has_trace_candidates) {
    return fail(ErrorCode::kUsage,
                "generate: --trace-candidates says what a trace holds; want --trace FILE or "
                "--explain beside it");
  }
  return {};
}

// All that can be said against the settings once the model's own are known, before its weights are
// read.
Status check_settings(const GenerateCommandOptions& options, const GenerationConfig& given,
                      const GenerationConfig& of_model, const ModelConfig& model) {
  GenerationConfig config = merge_generation_config(given, of_model).config;
  RETURN_IF_ERROR(validate_generation_config(config));
  const bool has_beams = config.num_beams.value_or(1) > 1;
  if (has_beams && options.top > 0) {
    return fail(ErrorCode::kInvalidArgument,
                "--top: {} found with num_beams={}, want 0: beam search settles its tokens at the "
                "end, all at once; --trace FILE keeps every step of it",
                options.top, *config.num_beams);
  }
  if (has_beams && options.explain.is_given()) {
    return fail(ErrorCode::kInvalidArgument,
                "--explain: num_beams={} found, want 1: beam search chooses among whole "
                "continuations; --trace FILE keeps every step of it",
                *config.num_beams);
  }
  // Guidance needs the model; all else is checked by making the processors.
  config.guidance_scale.reset();
  ChainOptions chain;
  chain.vocab_size = model.vocab_size;
  return build_chain(config, chain).map([](const ProcessorChain&) {});
}

// Enough for questions about the run's own top_k, ties at its cut included.
int64_t candidates_of(const GenerateCommandOptions& options, const GenerationConfig& config) {
  constexpr int64_t kRoomForTies = 8;
  constexpr int64_t kLargestTopK = 200;
  const int64_t top_k = config.do_sample.value_or(false) ? config.top_k.value_or(0) : 0;
  const bool follows_top_k = !options.has_trace_candidates && top_k <= kLargestTopK;
  return follows_top_k && top_k > 0 ? std::max(options.trace_candidates, top_k + kRoomForTies)
                                    : options.trace_candidates;
}

TraceOptions trace_options(const GenerateCommandOptions& options, const Engine& engine,
                           const Run& run, const EffectiveConfig& effective, TraceSink* sink) {
  TraceOptions trace;
  trace.sink = sink;
  trace.n_candidates = candidates_of(options, effective.config);
  trace.full_rows = options.trace_full;
  trace.run = run.description;
  trace.run.model = short_name(engine.source());
  trace.run.model_hash = model_fingerprint(engine.source()).value_or("");
  trace.run.build = fmt::format("{} {}", build_version(), build_commit());
  trace.piece = [&engine](TokenId id) { return engine.tokenizer().piece(id).value_or(""); };
  return trace;
}

void add_ledger(const EffectiveConfig& effective, const Engine& engine, Run* run) {
  size_t longest = 0;
  for (const RenderedPrompt& prompt : run->prompts) {
    longest = std::max(longest, prompt.ids.size());
  }
  run->description = describe_run(engine, effective, static_cast<int64_t>(run->prompts.size()),
                                  static_cast<int64_t>(longest));
}

Status generate_answer(const GenerateCommandOptions& options, const GenerationConfig& config,
                       Engine& engine, Invocation& invocation, TraceFileWriter* file, Run* run) {
  Terminal& terminal = invocation.terminal;
  const EffectiveConfig effective = merge_generation_config(config, engine.defaults());
  add_ledger(effective, engine, run);
  for (const std::string& warning : run->description.warnings) {
    warn(&terminal, "note: " + warning);
  }
  TraceTee sink(file, options.explain.is_given() ? &run->memory : nullptr);
  AnswerRequest request;
  for (const RenderedPrompt& prompt : run->prompts) {
    request.prompts.push_back({prompt.ids, nullptr});
  }
  request.config = config;
  request.prints_text = !invocation.json && !options.ids;
  request.shows_special = options.raw || !options.ids_in.empty();
  request.n_alternatives = options.top;
  if (options.wants_trace()) {
    request.trace = trace_options(options, engine, *run, effective, &sink);
  }
  ASSIGN_OR_RETURN(run->answer, stream_answer(engine, invocation, request));
  return file == nullptr ? Status() : file->close();
}

Result<int> run_generate(const GenerateCommandOptions& options, Invocation& invocation) {
  RETURN_IF_ERROR(check_flags(options));
  // All that can be refused is refused before the model is loaded.
  ASSIGN_OR_RETURN(const PromptSource source, read_source(options));
  ASSIGN_OR_RETURN(const GenerationConfig config, options.settings.config());
  ASSIGN_OR_RETURN(const ExplainedStep wanted, options.explain.step());
  ASSIGN_OR_RETURN([[maybe_unused]] const Json variables, options.templates.values());
  std::unique_ptr<TraceFileWriter> file;
  if (!options.trace.empty()) {
    ASSIGN_OR_RETURN(file, TraceFileWriter::create(options.trace));
  }
  InterruptGuard interrupts;
  const auto check = [&](const GenerationConfig& of_model, const ModelConfig& model) {
    return check_settings(options, config, of_model, model);
  };
  ASSIGN_OR_RETURN(const auto engine, options.model.load(invocation, check));
  Run run;
  ASSIGN_OR_RETURN(run.prompts, make_prompts(options, *engine, source));
  RETURN_IF_ERROR(generate_answer(options, config, *engine, invocation, file.get(), &run));

  Terminal& terminal = invocation.terminal;
  Json document;
  if (invocation.json) {
    document = document_of(options, *engine, run);
  } else {
    print_run(invocation, options, *engine, run);
  }
  if (options.explain.is_given()) {
    ASSIGN_OR_RETURN(const TracedStep* step, require_step(run.memory, wanted));
    if (invocation.json) {
      document["explained"] = explanation_json(run.memory, *step);
    } else {
      print_explanation(&terminal, run.memory, *step);
    }
  }
  if (invocation.json) {
    print_json(&terminal, document);
  }
  const bool was_stopped = run.answer.result.first().stop_reason == StopReason::kCancelled &&
                           !terminal.reader_has_gone();
  return was_stopped ? kInterrupted : 0;
}

void declare_trace(CLI::App& app, GenerateCommandOptions* options) {
  options->explain.declare(app, "Takes the run apart after it");
  app.add_option("--trace", options->trace,
                 "Writes what happened at every step to FILE, as JSON lines: `logitlab whatif` "
                 "reads it. The file gets its name when the run has ended.")
      ->type_name("FILE")
      ->group("Result");
  app.add_option_function<int64_t>(
         "--trace-candidates",
         [options](int64_t n) {
           options->trace_candidates = n;
           options->has_trace_candidates = true;
         },
         "How many of the best tokens of every step a trace holds, 0 to 1000. Default 20; when "
         "top_k draws among more, as many and a few for ties.")
      ->type_name("M")
      ->check(CLI::Range(0, 1000))
      ->group("Result");
  app.add_flag("--trace-full", options->trace_full,
               "The trace holds the whole row of logits of every step: exact for every question, "
               "and a megabyte a step for a large vocabulary.")
      ->group("Result");
  app.add_flag("--ledger", options->ledger,
               "Lists every setting: its value, where it comes from, whether it acts.")
      ->group("Result");
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
  app.add_option("--ids-in", options->ids_in,
                 "Token ids as the whole prompt: 1,2,3. They are used as they are.")
      ->type_name("IDS")
      ->allow_extra_args(false)
      ->group("Input");
  app.add_option("--prompts-file", options->prompts_file,
                 "Several prompts, one a line, each a JSON string or {\"prompt\": \"...\"}. Every "
                 "answer is what it would be alone, but for the draws: each sequence has its own.")
      ->type_name("FILE.jsonl")
      ->group("Input");
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
  declare_trace(app, options.get());
  return [options](Invocation& invocation) { return run_generate(*options, invocation); };
}

}  // namespace

Command generate_command() {
  return {"generate",
          "continue a prompt, with every setting of generation",
          "Reads a prompt, runs the model and streams what it writes to standard output; the "
          "settings that act and the receipt (tokens, seconds, memory, why it stopped) go to "
          "standard error. Settings have the names, defaults and meaning of transformers' "
          "generate. A setting that is not given comes from the model's generation_config.json, "
          "then from the table below; --ledger shows which. The same seed gives the same text, on "
          "any number of threads. Several answers (num_return_sequences, num_beams) are numbered "
          "and come when all are done.\n\n"
          "Ctrl-C stops and keeps what is there (exit code 130); a second Ctrl-C ends at once.",
          {{"generate \"Why is the sky blue?\" --max-new-tokens 100",
            "greedy: the likeliest token at every step"},
           {"generate \"Tell me a story.\" --do-sample --temperature 0.8 --top-p 0.9 --seed 7",
            "drawn at random, and the same story again with the same seed"},
           {"generate --raw \"The capital of France is\" --max-new-tokens 5 --top 3",
            "no template, and the three best tokens of every step"},
           {"generate \"The sky is\" --raw --explain",
            "the answer by doubt, and its least likely token taken apart"},
           {"generate \"The sky is\" --raw --do-sample --trace run.jsonl",
            "the run as a file, for `logitlab whatif`"},
           {"generate \"Tell me a joke.\" --num-beams 4 --num-return-sequences 2",
            "beam search, the two best answers"},
           {"generate --file question.txt --system \"Answer in one word.\" --json",
            "prompt from a file, everything that is known about the run as JSON"}},
          declare_generate};
}

}  // namespace logitlab
