// compare: two stored runs side by side.
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.h"
#include "explain_view.h"
#include "json_out.h"
#include "lab/measures/statistics.h"
#include "run_json.h"
#include "text_layout.h"

namespace logitlab {
namespace {

struct CompareOptions {
  StoreOptions store;
  int64_t first = 0;
  int64_t second = 0;
};

struct Comparison {
  std::vector<std::string> settings;  // that differ
  bool has_same_prompt = false;
  size_t common = 0;  // tokens before the first difference
  bool has_same_tokens = false;
  bool has_same_hash = false;
  double jaccard = 0;
};

Comparison compare(const RunRecord& first, const RunRecord& second) {
  Comparison out;
  out.settings = setting_differences(first, second);
  out.has_same_prompt = first.prompt_ids == second.prompt_ids;
  const size_t n = std::min(first.ids.size(), second.ids.size());
  while (out.common < n && first.ids[out.common] == second.ids[out.common]) {
    ++out.common;
  }
  out.has_same_tokens = first.ids == second.ids;
  out.has_same_hash = first.hash == second.hash;
  out.jaccard = jaccard(word_set(first.text), word_set(second.text));
  return out;
}

// The token of the run at the step as its trace spells it; none: the run had ended.
Result<std::string> token_at(const RunRecord& run, size_t step) {
  if (step >= run.ids.size()) {
    return std::string("nothing: it had ended");
  }
  TraceMemory trace;
  if (!run.trace.empty()) {
    RETURN_IF_ERROR(parse_trace(run.trace, fmt::format("run {}", run.id), &trace));
  }
  return PieceTexts(trace.ended()).quoted(run.ids[step]);
}

Result<std::string> sentence(const RunRecord& first, const RunRecord& second,
                             const Comparison& found) {
  if (found.has_same_tokens) {
    return fmt::format("Equal tokens ({}), {} logits.", first.ids.size(),
                       found.has_same_hash ? "equal" : "other");
  }
  ASSIGN_OR_RETURN(const std::string before, token_at(first, found.common));
  ASSIGN_OR_RETURN(const std::string after, token_at(second, found.common));
  return fmt::format("{} common tokens; at step {} run {} has {}, run {} has {}.", found.common,
                     found.common, first.id, before, second.id, after);
}

Json document_of(const RunRecord& first, const RunRecord& second, const Comparison& found,
                 const std::string& words) {
  Json out = Json::object();
  out["first"] = first.id;
  out["second"] = second.id;
  out["settings_that_differ"] = found.settings;
  out["same_prompt"] = found.has_same_prompt;
  out["same_tokens"] = found.has_same_tokens;
  out["same_logits_hash"] = found.has_same_hash;
  out["common_tokens"] = found.common;
  out["first_difference"] = found.has_same_tokens ? Json() : Json(found.common);
  out["jaccard_words"] = found.jaccard;
  out["sentence"] = words;
  return out;
}

void print_comparison(Terminal* terminal, const RunRecord& first, const RunRecord& second,
                      const Comparison& found, const std::string& words) {
  const auto columns = static_cast<size_t>(terminal->columns());
  for (const std::string& line : wrap(words, columns)) {
    terminal->print(terminal->paint(found.has_same_tokens ? Style::kGood : Style::kWarn, line) +
                    "\n");
  }
  terminal->print("\n");
  Table table({{"", Align::kLeft}, {"first", Align::kLeft}, {"second", Align::kLeft}});
  const auto row = [&](const std::string& name, const std::string& left, const std::string& right) {
    table.add_row({name, left, right});
  };
  row("run", std::to_string(first.id), std::to_string(second.id));
  row("setting", first.setting_name, second.setting_name);
  row("seed", std::to_string(first.seed), std::to_string(second.seed));
  row("tokens", std::to_string(first.ids.size()), std::to_string(second.ids.size()));
  row("stop", first.stop_reason, second.stop_reason);
  row("hash", fmt::format("{:016x}", first.hash), fmt::format("{:016x}", second.hash));
  row("text", first.text, second.text);
  terminal->print(table.render(*terminal));
  terminal->print(wrap_with_prefix(fmt::format("Jaccard of words: {:.3f}", found.jaccard), columns,
                                   "\n", "  "));
  if (!found.has_same_prompt) {
    terminal->print("The prompts differ.\n");
  }
  for (const std::string& setting : found.settings) {
    terminal->print(wrap_with_prefix(setting, columns, "- ", "  "));
  }
}

Result<int> run_compare(const CompareOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(const auto store, open_to_read(options.store));
  ASSIGN_OR_RETURN(const RunRecord first, store->run(options.first));
  ASSIGN_OR_RETURN(const RunRecord second, store->run(options.second));
  const Comparison found = compare(first, second);
  ASSIGN_OR_RETURN(const std::string words, sentence(first, second, found));
  if (invocation.json) {
    print_json(&invocation.terminal, document_of(first, second, found, words));
  } else {
    print_comparison(&invocation.terminal, first, second, found, words);
  }
  return 0;
}

Action declare_compare(CLI::App& app) {
  auto options = std::make_shared<CompareOptions>();
  const auto positive = CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max());
  app.add_option("A", options->first, "A run of the store.")
      ->required()
      ->check(positive)
      ->type_name("RUN");
  app.add_option("B", options->second, "Another one.")
      ->required()
      ->check(positive)
      ->type_name("RUN");
  options->store.declare(app);
  return [options](Invocation& invocation) { return run_compare(*options, invocation); };
}

}  // namespace

Command compare_command() {
  return {"compare",
          "two stored runs: settings that differ, common tokens, the first difference",
          "Compares two runs of the store by their token ids and words. `explain` says why they "
          "part.",
          {{"compare 12 13", "where the two part, and what was set otherwise"}},
          declare_compare};
}

}  // namespace logitlab
