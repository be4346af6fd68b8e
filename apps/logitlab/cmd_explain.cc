// explain: why two stored runs part.
#include <array>
#include <limits>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/utf8.h"
#include "command.h"
#include "divergence_view.h"
#include "json_out.h"
#include "run_json.h"
#include "text_layout.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

struct ExplainOptions {
  StoreOptions store;
  int64_t first = 0;
  int64_t second = 0;
};

struct ExplainedRun {
  RunRecord record;
  TraceMemory trace;
};

Status read_run(Store* store, int64_t id, ExplainedRun* out) {
  ASSIGN_OR_RETURN(out->record, store->run(id));
  if (out->record.trace.empty()) {
    return fail(ErrorCode::kNotFound, "run {}: it was stored without a trace", id);
  }
  const std::string where = fmt::format("run {}", id);
  RETURN_IF_ERROR(parse_trace(out->record.trace, where, &out->trace));
  if (!out->trace.beam_steps().empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "run {}: beam search found, which chooses among whole continuations, not token by "
                "token; want a run without beams",
                id);
  }
  return {};
}

DivergenceInput input_of(const ExplainedRun& run) {
  return {&run.trace.run(), &run.trace.steps(), &run.trace.ended(), 0, run.record.execution_json};
}

std::string described(const RunRecord& run) {
  return fmt::format("run {}: {} #{}, seed {}, study {}, {} tokens", run.id,
                     printable(run.setting_name), run.run + 1, run.seed, run.study, run.ids.size());
}

Result<int> run_explain(const ExplainOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(const auto store, open_to_read(options.store));
  std::array<ExplainedRun, 2> runs;
  RETURN_IF_ERROR(read_run(store.get(), options.first, runs.data()));
  RETURN_IF_ERROR(read_run(store.get(), options.second, &runs[1]));
  ASSIGN_OR_RETURN(const Divergence found, find_divergence(input_of(runs[0]), input_of(runs[1])));
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    Json document = json_of(found);
    document["first_run"] = options.first;
    document["second_run"] = options.second;
    print_json(&terminal, document);
    return 0;
  }
  const auto columns = static_cast<size_t>(terminal.columns());
  const Style style = found.cause == DivergenceCause::kNone ? Style::kGood : Style::kWarn;
  for (const std::string& line : wrap(printable(found.verdict), columns)) {
    terminal.print(terminal.paint(style, line) + "\n");
  }
  terminal.print("\n");
  for (const ExplainedRun& run : runs) {
    terminal.print(wrap_with_prefix(described(run.record), columns, "", "  "));
  }
  terminal.print(wrap_with_prefix(
      fmt::format("cause: {}; {} tokens in common", name(found.cause), found.common_tokens),
      columns, "", "  "));
  print_divergence(&terminal, found,
                   {fmt::format("run {}", options.first), fmt::format("run {}", options.second)});
  return 0;
}

Action declare_explain(CLI::App& app) {
  auto options = std::make_shared<ExplainOptions>();
  const auto positive = CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max());
  app.add_option("RUN_A", options->first, "A run of the store.")
      ->required()
      ->check(positive)
      ->type_name("ID");
  app.add_option("RUN_B", options->second, "Another one.")
      ->required()
      ->check(positive)
      ->type_name("ID");
  options->store.declare(app);
  return [options](Invocation& invocation) { return run_explain(*options, invocation); };
}

}  // namespace

Command explain_command() {
  return {"explain",
          "why two stored runs part: the step, both tokens, what decided",
          "Takes the first token apart that two runs of the store do not share, from their traces "
          "alone, without the model. The verdict is one of: tie, draw, filter, penalty, numerics, "
          "cache, batch, length, prompt; none when all tokens are the same.\n\n"
          "The gap is that of the logits, in units of last place of the type they were rounded "
          "to. A draw compares score - log E of all tokens, E being the random number of a token "
          "at that step; the largest is chosen. `left` counts the tokens that the filters let "
          "through.",
          {{"explain 12 13", "why run 12 and run 13 part"},
           {"explain 12 13 --json", "the same for a program"}},
          declare_explain};
}

}  // namespace logitlab
