// whatif: what other settings would have chosen in a stored run.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.h"
#include "explain_view.h"
#include "json_out.h"
#include "lab/whatif.h"
#include "sampling/generation_fields.h"
#include "settings_options.h"
#include "text_layout.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

// A flip less likely than this is left out of the table, which --all shows whole.
constexpr double kShownFlip = 0.01;

struct WhatIfOptions {
  std::string path;
  SettingsOptions settings;
  ExplainFlag explain;
  bool all = false;
};

std::string percent(double share) {
  const double value = 100 * share;
  if (value > 0 && value < 0.1) {
    return "<0.1%";
  }
  return value > 99.9 && value < 100 ? ">99.9%" : fmt::format("{:.3g}%", value);
}

std::string range_text(const Interval& interval) {
  if (interval.high - interval.low < 5e-4) {
    return percent((interval.low + interval.high) / 2);
  }
  return fmt::format("{} to {}", percent(interval.low), percent(interval.high));
}

std::string given_text(const GenerationConfig& given) {
  std::string out;
  for (const GenerationField& field : generation_fields()) {
    const FieldValue value = get_field(given, field);
    if (!std::holds_alternative<std::monostate>(value)) {
      out += fmt::format("{}{}={}", out.empty() ? "" : ", ", field.name, value_text(value));
    }
  }
  return out;
}

std::string step_label(const TraceMemory& trace, const WhatIfStep& step) {
  return trace.run().sequence_prompts.size() > 1 ? fmt::format("{}:{}", step.sequence, step.step)
                                                 : fmt::format("{}", step.step);
}

std::string new_text(const WhatIfStep& step, const PieceTexts& pieces) {
  return step.new_id ? pieces.quoted(*step.new_id) : "?";
}

void print_wrapped(Terminal* terminal, std::string_view text, Style style,
                   std::string_view first = "", std::string_view rest = "") {
  const auto columns = static_cast<size_t>(terminal->columns());
  for (const std::string& line : wrap(text, columns - std::min(columns - 2, rest.size()))) {
    terminal->print(std::string(first) + terminal->paint(style, line) + "\n");
    first = rest;
  }
}

void print_first_changes(Terminal* terminal, const TraceMemory& trace, const WhatIf& answer,
                         const PieceTexts& pieces) {
  if (answer.first_changes.empty()) {
    print_wrapped(terminal, "No step would have chosen otherwise: the same text.", Style::kGood);
    return;
  }
  constexpr size_t kShown = 8;
  for (size_t i = 0; i < std::min(kShown, answer.first_changes.size()); ++i) {
    const WhatIfStep& step = answer.steps[answer.first_changes[i]];
    if (step.new_id) {
      print_wrapped(terminal,
                    fmt::format("Step {} is the first to change: {} in place of {}; {}.",
                                step_label(trace, step), pieces.quoted(*step.new_id),
                                pieces.quoted(step.old_id), step.why),
                    Style::kWarn);
    } else {
      print_wrapped(terminal,
                    fmt::format("Step {} may be the first to change, and the trace cannot tell: "
                                "{}. All before it stay.",
                                step_label(trace, step), step.why),
                    Style::kWarn);
    }
  }
  if (answer.first_changes.size() > kShown) {
    print_wrapped(terminal,
                  fmt::format("{} more sequences change.", answer.first_changes.size() - kShown),
                  Style::kDim);
  }
}

void print_table(Terminal* terminal, const TraceMemory& trace, const WhatIf& answer,
                 const PieceTexts& pieces, bool all) {
  Table table({{"step", Align::kRight},
               {"was", Align::kLeft},
               {"would be", Align::kLeft},
               {"flips", Align::kRight},
               {"apart", Align::kRight},
               {"why", Align::kLeft}});
  int64_t n_left_out = 0;
  bool has_hypothetical = false;
  for (const WhatIfStep& step : answer.steps) {
    if (!all && step.verdict == Verdict::kSame && step.flip.high < kShownFlip) {
      ++n_left_out;
      continue;
    }
    const Style style = step.verdict == Verdict::kSame      ? Style::kDim
                        : step.verdict == Verdict::kDiffers ? Style::kWarn
                                                            : Style::kBad;
    has_hypothetical = has_hypothetical || step.is_hypothetical;
    table.add_row(
        {step_label(trace, step) + (step.is_hypothetical ? "*" : ""), pieces.quoted(step.old_id),
         Cell(step.verdict == Verdict::kSame ? "the same" : new_text(step, pieces), style),
         range_text(step.flip), range_text(step.independent_flip), Cell(step.why, Style::kDim)});
  }
  if (!table.empty()) {
    terminal->print("\n" + table.render(*terminal));
    print_wrapped(terminal,
                  "flips: probability of another token with the same draw; apart: with a draw of "
                  "its own",
                  Style::kDim);
  }
  if (has_hypothetical) {
    print_wrapped(terminal, "*: had the text before it been the same", Style::kDim);
  }
  if (n_left_out > 0) {
    print_wrapped(terminal,
                  fmt::format("{} step{} with a probability below 1% left out; --all shows them",
                              n_left_out, n_left_out == 1 ? "" : "s"),
                  Style::kDim);
  }
}

void print_answer(Terminal* terminal, const TraceMemory& trace, const GenerationConfig& given,
                  const WhatIf& answer, bool all) {
  const PieceTexts pieces(trace.ended());
  print_wrapped(terminal, "What if " + given_text(given), Style::kHeading);
  print_wrapped(terminal,
                fmt::format("{}, seed {}, {} step{}", trace.run().model, trace.run().seed,
                            answer.steps.size(), answer.steps.size() == 1 ? "" : "s"),
                Style::kDim);
  terminal->print("\n");
  print_first_changes(terminal, trace, answer, pieces);
  print_table(terminal, trace, answer, pieces, all);
  for (const std::string& note : answer.notes) {
    print_wrapped(terminal, note, Style::kPlain, "- ", "  ");
  }
  if (!answer.remedy.empty()) {
    print_wrapped(terminal, "What is open here would be settled by " + answer.remedy, Style::kPlain,
                  "- ", "  ");
  }
}

Json interval_json(const Interval& interval) {
  return {{"low", interval.low}, {"high", interval.high}};
}

Json document_of(const TraceMemory& trace, const GenerationConfig& given, const WhatIf& answer) {
  const PieceTexts pieces(trace.ended());
  Json document = Json::object();
  document["given"] = to_json(given);
  document["settings"] = json_of(answer.settings);
  for (auto& item : document["settings"].items()) {
    // What is not asked for comes from the run, which stands where a model's settings do.
    if (item.value()["origin"] == "model") {
      item.value()["origin"] = "run";
    }
  }
  document["steps"] = Json::array();
  for (const WhatIfStep& step : answer.steps) {
    Json item = Json::object();
    item["sequence"] = step.sequence;
    item["step"] = step.step;
    item["verdict"] = std::string(name(step.verdict));
    item["hypothetical"] = step.is_hypothetical;
    item["old_id"] = step.old_id;
    item["old_text"] = pieces.json(step.old_id);
    item["new_id"] = step.new_id ? Json(*step.new_id) : Json();
    item["new_text"] = step.new_id ? pieces.json(*step.new_id) : Json();
    item["flip"] = interval_json(step.flip);
    item["independent_flip"] = interval_json(step.independent_flip);
    item["why"] = step.why;
    document["steps"].push_back(std::move(item));
  }
  document["first_changes"] = answer.first_changes;
  document["notes"] = answer.notes;
  document["remedy"] = answer.remedy.empty() ? Json() : Json(answer.remedy);
  return document;
}

Result<int> run_explain(const WhatIfOptions& options, const TraceMemory& trace,
                        Invocation& invocation) {
  ASSIGN_OR_RETURN(const ExplainedStep wanted, options.explain.step());
  ASSIGN_OR_RETURN(const TracedStep* step, require_step(trace, wanted));
  if (invocation.json) {
    print_json(&invocation.terminal, explanation_json(trace, *step));
  } else {
    print_explanation(&invocation.terminal, trace, *step);
  }
  return 0;
}

Result<int> run_whatif(const WhatIfOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(const GenerationConfig given, options.settings.config());
  const bool has_question = given != GenerationConfig{};
  if (has_question == options.explain.is_given()) {
    return fail(ErrorCode::kUsage, "whatif: {}",
                has_question
                    ? "--explain shows the run as it was; leave the other settings out"
                    : "no setting was given; want what to change, as --top-k 1, or --explain for "
                      "the run as it was");
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const ExplainedStep wanted, options.explain.step());
  TraceMemory trace;
  RETURN_IF_ERROR(read_trace(options.path, &trace));
  if (options.explain.is_given()) {
    return run_explain(options, trace, invocation);
  }
  ASSIGN_OR_RETURN(const WhatIf answer, what_if(trace, given));
  for (const std::string& warning : generation_warnings(answer.settings, trace.run().vocab_size)) {
    invocation.terminal.note(invocation.terminal.paint_note(Style::kWarn, "note: " + warning) +
                             "\n");
  }
  if (invocation.json) {
    print_json(&invocation.terminal, document_of(trace, given, answer));
  } else {
    print_answer(&invocation.terminal, trace, given, answer, options.all);
  }
  return 0;
}

Action declare_whatif(CLI::App& app) {
  auto options = std::make_shared<WhatIfOptions>();
  app.add_option("TRACE", options->path, "A trace that `logitlab generate --trace FILE` wrote.")
      ->required()
      ->type_name("FILE");
  options->explain.declare(app, "Shows the run as it was, in place of a question");
  app.add_flag("--all", options->all, "Every step, those that hardly could change as well.")
      ->group("Result");
  options->settings.declare(app);
  return [options](Invocation& invocation) { return run_whatif(*options, invocation); };
}

}  // namespace

Command whatif_command() {
  return {
      "whatif",
      "what other settings would have chosen in a stored run, without the model",
      "Reads a trace and decides every step anew with the settings that are given here in place of "
      "those of the run; all others stay as they were. The random draws are those of the run: the "
      "seed gives them again. Shows the first step that would have chosen another token, and for "
      "every step how likely that was.\n\n"
      "A trace holds the best tokens of every step and the mass of all others. Where the answer "
      "depends on those others the step is undecided: its probability comes with bounds, and the "
      "last line says what would settle it.",
      {{"whatif run.jsonl --top-k 1", "had only the best token been allowed"},
       {"whatif run.jsonl --temperature 0.5 --json", "every step with its probabilities"},
       {"whatif run.jsonl --seed 8 --all", "another seed: every step"},
       {"whatif run.jsonl --explain=12", "step 12 of the run as it was"}},
      declare_whatif};
}

}  // namespace logitlab
