// tree: every text that the settings allow, with its exact probability.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "chat_prompt.h"
#include "command.h"
#include "interrupt.h"
#include "json_out.h"
#include "lab/continuation_tree.h"
#include "model_options.h"
#include "progress_bar.h"
#include "sampling/effective_config.h"
#include "settings_options.h"
#include "text_input.h"
#include "text_layout.h"
#include "tree_view.h"

namespace logitlab {
namespace {

constexpr int kInterrupted = 130;

struct TreeCommandOptions {
  ModelOptions model;
  TextInput input;
  TemplateOptions templates;
  SettingsOptions settings;
  bool raw = false;
  bool chat = false;
  std::string system;
  bool has_system = false;
  std::vector<std::string> ids_in;
  double mass = 0.95;
  int64_t max_nodes = 2'000;
};

Status check_flags(const TreeCommandOptions& options) {
  if (options.raw && (options.chat || options.has_system)) {
    return fail(ErrorCode::kUsage,
                "tree: --raw uses no chat template; leave --chat and --system out");
  }
  if (!options.ids_in.empty() && (options.chat || options.has_system || options.input.is_given())) {
    return fail(ErrorCode::kUsage,
                "tree: --ids-in are the whole prompt; leave the text, --chat and --system out");
  }
  return {};
}

Result<std::vector<TokenId>> chat_ids(const TreeCommandOptions& options, const Engine& engine,
                                      const std::string& text) {
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
  ASSIGN_OR_RETURN(RenderedPrompt prompt,
                   render_prompt(*engine.chat_template(), engine.tokenizer(), request));
  return std::move(prompt.ids);
}

Result<std::vector<TokenId>> prompt_ids(const TreeCommandOptions& options, const Engine& engine,
                                        const std::string& text) {
  if (!options.ids_in.empty()) {
    return parse_ids(options.ids_in);
  }
  const bool has_template = engine.chat_template() != nullptr;
  if (!has_template && (options.chat || options.has_system)) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: {} has no chat template; leave it out and put all into the prompt",
                options.chat ? "--chat" : "--system", short_name(engine.source()));
  }
  if (has_template && !options.raw) {
    return chat_ids(options, engine, text);
  }
  return engine.tokenizer().encode(text);
}

Result<ContinuationTree> grow(const TreeCommandOptions& options, Engine* engine,
                              TreeRequest request, Terminal* terminal) {
  ProgressBar bar(terminal, true);
  request.mass = options.mass;
  request.max_nodes = options.max_nodes;
  request.is_cancelled = InterruptGuard::was_interrupted;
  request.on_progress = [&bar, &request](double mass, int64_t nodes) {
    bar.update("tree", static_cast<uint64_t>(nodes), static_cast<uint64_t>(request.max_nodes),
               "nodes", fmt::format("{:.1f} % of the probability found", 100 * mass));
  };
  return expand_tree(engine, request);
}

Result<int> run_tree_command(const TreeCommandOptions& options, Invocation& invocation) {
  RETURN_IF_ERROR(check_flags(options));
  std::string text;
  if (options.ids_in.empty()) {
    ASSIGN_OR_RETURN(text, options.input.read("prompt"));
  } else {
    RETURN_IF_ERROR(parse_ids(options.ids_in));
  }
  TreeRequest request;
  ASSIGN_OR_RETURN(request.config, options.settings.config());
  InterruptGuard interrupts;
  const auto check = [&](const GenerationConfig& of_model, const ModelConfig& /*model*/) {
    return validate_generation_config(merge_generation_config(request.config, of_model).config);
  };
  ASSIGN_OR_RETURN(const auto engine, options.model.load(invocation, check));
  ASSIGN_OR_RETURN(request.prompt, prompt_ids(options, *engine, text));
  Terminal& terminal = invocation.terminal;
  ASSIGN_OR_RETURN(const ContinuationTree tree, grow(options, engine.get(), request, &terminal));
  const EffectiveConfig effective = merge_generation_config(request.config, engine->defaults());
  if (invocation.json) {
    Json document = tree_json(engine->tokenizer(), tree);
    document["mass_wanted"] = options.mass;
    document["max_nodes"] = options.max_nodes;
    document["prompt_ids"] = request.prompt;
    document["settings"] = json_of(effective);
    document["model"] = json_of(engine->source());
    print_json(&terminal, document);
  } else {
    print_tree(&terminal, engine->tokenizer(), tree);
  }
  std::string remark = fmt::format("{} nodes", with_commas(tree.nodes));
  if (tree.is_cancelled) {
    remark += "; stopped: what is above is what is known";
  } else if (!tree.is_complete) {
    remark += fmt::format(
        "; {:.1f} % was wanted: --max-nodes allows more, a smaller --max-new-tokens or a narrower "
        "filter makes the tree smaller",
        100 * options.mass);
  }
  for (const std::string& line : wrap(remark, static_cast<size_t>(terminal.columns()))) {
    terminal.note(terminal.paint_note(Style::kDim, line) + "\n");
  }
  return tree.is_cancelled ? kInterrupted : 0;
}

Action declare_tree(CLI::App& app) {
  auto options = std::make_shared<TreeCommandOptions>();
  options->input.declare(app, "PROMPT", "The prompt.");
  app.add_flag("--chat", options->chat,
               "The prompt is a user message and goes through the model's chat template. The "
               "default when the model has a template.")
      ->group("Chat template");
  app.add_flag("--raw", options->raw, "The prompt goes to the model as it is.")
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
  app.add_option("--ids-in", options->ids_in, "Token ids as the whole prompt: 1,2,3.")
      ->type_name("IDS")
      ->allow_extra_args(false)
      ->group("Input");
  app.add_option("--mass", options->mass,
                 "Ends when the finished texts have this probability together, more than 0 and at "
                 "most 1. Default 0.95.")
      ->type_name("P")
      ->check(CLI::Range(1e-12, 1.0))
      ->group("Tree");
  app.add_option("--max-nodes", options->max_nodes,
                 "Ends after so many tokens have gone through the model. Default 2000.")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000'000}))
      ->group("Tree");
  options->templates.declare(app);
  options->settings.declare(app);
  options->model.declare_source(app);
  options->model.declare_compute(app);
  return [options](Invocation& invocation) { return run_tree_command(*options, invocation); };
}

}  // namespace

Command tree_command() {
  return {"tree",
          "every text that the settings allow, with its exact probability",
          "Follows all continuations of a prompt that the settings allow, the likeliest first, "
          "until their probabilities add up to --mass or --max-nodes tokens have gone through the "
          "model. No sampling: the figures are those that infinitely many runs would give. Where "
          "the tree was not followed to its end they come as ranges that hold the truth.\n\n"
          "Short answers and narrow filters (top_k, top_p, a low temperature) have small trees. "
          "Ctrl-C ends with what is known (exit code 130).",
          {{"tree \"The sky is\" --raw --do-sample --top-k 3 --max-new-tokens 6 --mass 0.95",
            "the texts of six tokens, and how often ten runs would repeat themselves"},
           {"tree \"Yes or no?\" --do-sample --temperature 0.7 --max-nodes 5000 --json",
            "all that was found, as JSON"}},
          declare_tree};
}

}  // namespace logitlab
