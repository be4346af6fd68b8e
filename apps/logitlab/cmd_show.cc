// show: one stored run.
#include <limits>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/file.h"
#include "base/utf8.h"
#include "command.h"
#include "explain_view.h"
#include "json_out.h"
#include "run_json.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kShownSteps = 40;

struct ShowOptions {
  StoreOptions store;
  int64_t run = 0;
  std::string trace;
  bool all = false;
};

// The label in a column of its own, unless the terminal has no room for one.
void print_line(Terminal* terminal, std::string_view label, const std::string& text) {
  constexpr size_t kLabel = 10;
  constexpr size_t kRoom = 30;
  const auto columns = static_cast<size_t>(terminal->columns());
  terminal->print(wrap_with_prefix(text, columns, fmt::format("{:<{}}", label, kLabel),
                                   columns < kRoom ? "  " : std::string(kLabel, ' ')));
}

void print_settings(Terminal* terminal, const RunRecord& run, const TraceMemory& trace) {
  std::string words;
  for (const LedgerEntry& entry : trace.run().ledger) {
    if (entry.acts && entry.name != "seed") {
      words += fmt::format("{}{}={}", words.empty() ? "" : ", ", entry.name, entry.value);
    }
  }
  if (words.empty()) {
    words = run.config_json;
  }
  print_line(terminal, "settings", words);
  if (run.execution_json.size() > 2) {
    print_line(terminal, "execution", run.execution_json);
  }
}

void print_steps(Terminal* terminal, const TraceMemory& trace, bool all) {
  const PieceTexts pieces(trace.ended());
  Table table({{"step", Align::kRight},
               {"token", Align::kLeft},
               {"p raw", Align::kRight},
               {"p final", Align::kRight},
               {"rank", Align::kRight},
               {"entropy", Align::kRight},
               {"left", Align::kRight},
               {"tied", Align::kRight}});
  const size_t n = trace.steps().size();
  for (size_t i = 0; i < (all ? n : std::min(n, kShownSteps)); ++i) {
    const TracedStep& step = trace.steps()[i];
    const int64_t left =
        step.stages.empty() ? trace.run().vocab_size : step.stages.back().survivors;
    table.add_row({std::to_string(step.step), pieces.quoted(step.id),
                   fmt::format("{:.4f}", step.raw_probability),
                   fmt::format("{:.4f}", step.probability), std::to_string(step.raw_rank),
                   fmt::format("{:.3f}", step.raw_entropy), std::to_string(left),
                   step.n_tied_at_max > 1 ? std::to_string(step.n_tied_at_max) : ""});
  }
  if (table.empty()) {
    return;
  }
  terminal->print("\n" + table.render(*terminal));
  if (!all && n > kShownSteps) {
    terminal->print(terminal->paint(
        Style::kDim, fmt::format("{} more steps; --all shows them\n", n - kShownSteps)));
  }
}

void print_run(Terminal* terminal, const RunRecord& run, const TraceMemory& trace, bool all) {
  const std::string title = fmt::format(
      "Run {}{}: {} #{}", run.id, run.study == 0 ? "" : fmt::format(" of study {}", run.study),
      printable(run.setting_name), run.run + 1);
  for (const std::string& line : wrap(title, static_cast<size_t>(terminal->columns()))) {
    terminal->print(terminal->paint(Style::kHeading, line) + "\n");
  }
  print_line(terminal, "prompt",
             fmt::format("{}, {} tokens", printable(run.prompt_name), run.prompt_ids.size()));
  print_line(terminal, "seed", fmt::format("{}", run.seed));
  print_settings(terminal, run, trace);
  print_line(terminal, "stop",
             fmt::format("{}{}, {} tokens ({} thinking, {} answer)", run.stop_reason,
                         run.stop_id < 0 ? "" : fmt::format(" ({})", run.stop_id), run.ids.size(),
                         run.thinking_tokens, run.answer_tokens));
  print_line(terminal, "logits", fmt::format("hash {:016x}", run.hash));
  terminal->print("\n");
  terminal->print_untrusted(run.text);
  terminal->print("\n");
  print_steps(terminal, trace, all);
}

Result<int> run_show(const ShowOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(const auto store, open_to_read(options.store));
  ASSIGN_OR_RETURN(const RunRecord run, store->run(options.run));
  if (!options.trace.empty() && run.trace.empty()) {
    return fail(ErrorCode::kNotFound, "run {}: it was stored without a trace", run.id);
  }
  if (options.trace == "-") {
    invocation.terminal.print(run.trace);
    return 0;
  }
  if (!options.trace.empty()) {
    RETURN_IF_ERROR(write_file_atomically(options.trace, run.trace));
  }
  TraceMemory trace;
  if (!run.trace.empty()) {
    RETURN_IF_ERROR(parse_trace(run.trace, fmt::format("run {}", run.id), &trace));
  }
  if (invocation.json) {
    print_json(&invocation.terminal, json_of(run));
  } else {
    print_run(&invocation.terminal, run, trace, options.all);
  }
  return 0;
}

Action declare_show(CLI::App& app) {
  auto options = std::make_shared<ShowOptions>();
  app.add_option("RUN", options->run, "A run of the store.")
      ->required()
      ->check(CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max()))
      ->type_name("ID");
  app.add_option("--trace", options->trace,
                 "Writes the run's trace, as generate --trace does; -: to standard output alone.")
      ->type_name("FILE");
  app.add_flag("--all", options->all, "Every step, however many there are.");
  options->store.declare(app);
  return [options](Invocation& invocation) { return run_show(*options, invocation); };
}

}  // namespace

Command show_command() {
  return {"show",
          "one stored run: settings, text, how it stopped, figures per step",
          "Shows what the store knows of a run. `left` counts the tokens that the filters let "
          "through, `tied` those that share the largest logit.",
          {{"show 12", "run 12"}, {"show 12 --trace run.jsonl", "and its trace, for whatif"}},
          declare_show};
}

}  // namespace logitlab
