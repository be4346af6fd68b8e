// runs: what the store holds, and its removal.
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.h"
#include "json_out.h"
#include "run_json.h"
#include "store_options.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kTextColumns = 40;

struct RunsOptions {
  StoreOptions store;
  int64_t study = 0;
  int64_t limit = 20;
  bool studies = false;
  int64_t delete_run = 0;
  int64_t delete_study = 0;
};

void print_runs(Terminal* terminal, const std::vector<RunRecord>& runs) {
  Table table({{"run", Align::kRight},
               {"study", Align::kRight},
               {"setting", Align::kLeft},
               {"#", Align::kRight},
               {"seed", Align::kRight},
               {"tokens", Align::kRight},
               {"stop", Align::kLeft},
               {"text", Align::kLeft}});
  for (const RunRecord& run : runs) {
    table.add_row({std::to_string(run.id), run.study == 0 ? "-" : std::to_string(run.study),
                   run.setting_name + (run.is_control ? " (control)" : ""), std::to_string(run.run),
                   std::to_string(run.seed), std::to_string(run.ids.size()), run.stop_reason,
                   Cell(shortened(run.text, kTextColumns), Style::kDim)});
  }
  terminal->print(table.render(*terminal));
}

void print_studies(Terminal* terminal, const std::vector<StudyRecord>& studies) {
  Table table({{"study", Align::kRight},
               {"name", Align::kLeft},
               {"created", Align::kLeft},
               {"status", Align::kLeft},
               {"runs", Align::kRight},
               {"seconds", Align::kRight},
               {"model", Align::kLeft}});
  for (const StudyRecord& study : studies) {
    const Style style = study.status == "done" ? Style::kGood : Style::kWarn;
    table.add_row({std::to_string(study.id), study.name, study.created, Cell(study.status, style),
                   with_commas(study.n_runs), fmt::format("{:.1f}", study.totals.seconds),
                   study.origin.model});
  }
  terminal->print(table.render(*terminal));
}

Result<int> remove(const RunsOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(const auto store, options.store.open());
  const bool is_run = options.delete_run > 0;
  const int64_t id = is_run ? options.delete_run : options.delete_study;
  const std::string_view what = is_run ? "run" : "study";
  RETURN_IF_ERROR(is_run ? store->remove_run(id) : store->remove_study(id));
  if (invocation.json) {
    Json document = Json::object();
    document["removed"] = {{std::string(what), id}};
    print_json(&invocation.terminal, document);
  } else {
    invocation.terminal.print(
        fmt::format("Removed {} {}{}.\n", what, id, is_run ? "" : " with its runs"));
  }
  return 0;
}

Result<int> list_studies(Store* store, Invocation& invocation) {
  ASSIGN_OR_RETURN(const auto studies, store->studies());
  if (invocation.json) {
    Json document = Json::object();
    document["studies"] = Json::array();
    for (const StudyRecord& study : studies) {
      document["studies"].push_back(json_of(study));
    }
    print_json(&invocation.terminal, document);
  } else if (studies.empty()) {
    invocation.terminal.print("No studies yet. `logitlab study NAME` runs one.\n");
  } else {
    print_studies(&invocation.terminal, studies);
  }
  return 0;
}

Result<int> list_runs(const RunsOptions& options, Store* store, Invocation& invocation) {
  RunFilter filter{.limit = options.limit};
  if (options.study > 0) {
    RETURN_IF_ERROR(store->study(options.study));
    filter.study = options.study;
  }
  ASSIGN_OR_RETURN(const auto runs, store->runs(filter));
  if (invocation.json) {
    Json document = Json::object();
    document["runs"] = Json::array();
    for (const RunRecord& run : runs) {
      document["runs"].push_back(json_of(run));
    }
    print_json(&invocation.terminal, document);
  } else if (runs.empty()) {
    invocation.terminal.print("No runs yet. `logitlab study NAME` makes some.\n");
  } else {
    print_runs(&invocation.terminal, runs);
  }
  return 0;
}

Result<int> run_runs(const RunsOptions& options, Invocation& invocation) {
  if (options.delete_run > 0 || options.delete_study > 0) {
    return remove(options, invocation);
  }
  ASSIGN_OR_RETURN(const auto store, open_to_read(options.store));
  return options.studies ? list_studies(store.get(), invocation)
                         : list_runs(options, store.get(), invocation);
}

Action declare_runs(CLI::App& app) {
  auto options = std::make_shared<RunsOptions>();
  const auto positive = CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max());
  auto* study = app.add_option("--study", options->study, "Only the runs of this study.")
                    ->check(positive)
                    ->type_name("ID");
  auto* limit = app.add_option("--limit", options->limit,
                               "The newest so many, newest first; 0: all, in order. Default: 20.")
                    ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()))
                    ->type_name("N");
  auto* studies = app.add_flag("--studies", options->studies, "Lists studies in place of runs.");
  auto* delete_run = app.add_option("--delete", options->delete_run, "Removes a run for good.")
                         ->check(positive)
                         ->type_name("RUN");
  auto* delete_study =
      app.add_option("--delete-study", options->delete_study,
                     "Removes a study for good, with its runs and, of a course, its parts.")
          ->check(positive)
          ->type_name("ID");
  for (auto* removal : {delete_run, delete_study}) {
    removal->excludes(study)->excludes(limit)->excludes(studies);
  }
  delete_run->excludes(delete_study);
  studies->excludes(study)->excludes(limit);
  options->store.declare(app);
  return [options](Invocation& invocation) { return run_runs(*options, invocation); };
}

}  // namespace

Command runs_command() {
  return {"runs",
          "the stored runs and studies",
          "Lists the newest runs of the store, those of one study, or the studies. The number in "
          "the first column is what show, compare, explain, verify and export take.",
          {{"runs", "the newest 20 runs"},
           {"runs --studies", "the studies, newest first"},
           {"runs --study 3 --limit 0", "all runs of study 3"},
           {"runs --delete-study 3", "removes it and its runs"}},
          declare_runs};
}

}  // namespace logitlab
