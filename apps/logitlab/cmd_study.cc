// study: runs a study into the store and says what came of it.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/env.h"
#include "base/file.h"
#include "base/utf8.h"
#include "command.h"
#include "interrupt.h"
#include "json_out.h"
#include "lab/measures/study_results.h"
#include "lab/report/report.h"
#include "lab/study/stored_study.h"
#include "lab/study/study_runner.h"
#include "model_options.h"
#include "progress_bar.h"
#include "run_origin.h"
#include "store_options.h"
#include "study_view.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr int kInterrupted = 130;

struct StudyCommandOptions {
  ModelOptions model;
  StoreOptions store;
  std::string name;
  std::vector<std::string> set;
  int64_t runs = 0;    // 0: as the file says
  int64_t resume = 0;  // 0: a new one
  bool dry_run = false;
  bool one_by_one = false;
  bool no_report = false;
  std::string out;  // folder of the report
  int64_t state_mib = 0;
};

// What one call of the command works on.
struct StudyPlan {
  Study study;               // as named
  std::vector<Study> parts;  // of a course; else the study itself
  std::vector<std::string> overrides;
};

Status add_parts(StudyPlan* plan) {
  if (!plan->study.is_course()) {
    plan->parts = {plan->study};
    return {};
  }
  for (const std::string& name : plan->study.studies) {
    ASSIGN_OR_RETURN(plan->parts.emplace_back(),
                     find_study(name, parse_overrides(plan->overrides)));
  }
  return {};
}

Result<StudyPlan> new_plan(const StudyCommandOptions& options) {
  StudyPlan plan;
  plan.overrides = options.set;
  if (options.runs > 0) {
    plan.overrides.push_back(fmt::format("{}{}", kRunsOverride, options.runs));
  }
  // Overrides are for the parts of a course, not for its list of names.
  ASSIGN_OR_RETURN(plan.study, find_study(options.name));
  if (!plan.study.is_course()) {
    ASSIGN_OR_RETURN(plan.study, find_study(options.name, parse_overrides(plan.overrides)));
  }
  RETURN_IF_ERROR(add_parts(&plan));
  return plan;
}

Result<StudyPlan> stored_plan(const StudyRecord& record) {
  StudyPlan plan;
  plan.overrides = record.overrides;
  ASSIGN_OR_RETURN(plan.study, plan_of(record));
  RETURN_IF_ERROR(add_parts(&plan));
  return plan;
}

std::string command_line(const StudyCommandOptions& options, const StudyPlan& plan) {
  std::string line =
      fmt::format("logitlab study {} --model {}", plan.study.name, options.model.model);
  for (const std::string& word : plan.overrides) {
    line += word.rfind(kRunsOverride, 0) == 0
                ? fmt::format(" --runs {}", word.substr(kRunsOverride.size()))
                : fmt::format(" --set '{}'", word);
  }
  return line;
}

class StudyCommand {
 public:
  StudyCommand(const StudyCommandOptions& options, Invocation* invocation)
      : options_(options), invocation_(*invocation), terminal_(invocation->terminal) {}

  Result<int> run();

 private:
  Status prepare();
  Result<int> say_cost();
  Status run_parts();
  Status run_part(const Study& part, std::optional<int64_t> resume);
  [[nodiscard]] std::optional<StudyRecord> earlier(const std::string& name) const;
  StudyRunOptions run_options(const Study& part, ProgressBar* bar);
  Status write_report(const std::vector<StudyResults>& results);
  Result<int> show();

  const StudyCommandOptions& options_;
  Invocation& invocation_;
  Terminal& terminal_;
  StudyPlan plan_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Engine> engine_;
  RunOrigin origin_;
  int64_t course_ = 0;                // id in the store; 0: no course
  std::vector<StudyRecord> earlier_;  // parts of a course that is resumed
  std::vector<int64_t> ids_;          // of the parts, as far as they were begun
  bool was_stopped_ = false;
  std::string report_;  // path
};

Status StudyCommand::prepare() {
  ASSIGN_OR_RETURN(store_, options_.store.open());
  if (options_.resume > 0) {
    ASSIGN_OR_RETURN(const StudyRecord record, store_->study(options_.resume));
    ASSIGN_OR_RETURN(plan_, stored_plan(record));
    if (plan_.study.is_course()) {
      course_ = record.id;
      ASSIGN_OR_RETURN(earlier_, store_->parts(course_));
    }
  } else {
    ASSIGN_OR_RETURN(plan_, new_plan(options_));
  }
  ASSIGN_OR_RETURN(engine_, options_.model.load(invocation_));
  ASSIGN_OR_RETURN(origin_, origin_of(*engine_));
  origin_.command = command_line(options_, plan_);
  return {};
}

Result<int> StudyCommand::say_cost() {
  Table table({{"study", Align::kLeft},
               {"runs", Align::kRight},
               {"prompt tokens", Align::kRight},
               {"of them distinct", Align::kRight},
               {"new tokens, at most", Align::kRight},
               {"states, at most", Align::kRight}});
  Json document = Json::array();
  StudyEstimate sum;
  for (const Study& part : plan_.parts) {
    ASSIGN_OR_RETURN(const StudyEstimate cost, estimate_study(engine_.get(), part));
    sum.runs += cost.runs;
    sum.new_tokens_at_most += cost.new_tokens_at_most;
    table.add_row({part.name, with_commas(cost.runs), with_commas(cost.prompt_tokens),
                   with_commas(cost.distinct_prompt_tokens), with_commas(cost.new_tokens_at_most),
                   human_bytes(cost.state_bytes_at_most)});
    document.push_back({{"study", part.name},
                        {"runs", cost.runs},
                        {"prompt_tokens", cost.prompt_tokens},
                        {"distinct_prompt_tokens", cost.distinct_prompt_tokens},
                        {"new_tokens_at_most", cost.new_tokens_at_most},
                        {"state_bytes_at_most", cost.state_bytes_at_most}});
  }
  if (invocation_.json) {
    print_json(&terminal_, document);
    return 0;
  }
  terminal_.print(
      fmt::format("{}: {} runs, at most {} new tokens. Runs that share a beginning share "
                  "its cost.\n\n",
                  plan_.study.name, with_commas(sum.runs), with_commas(sum.new_tokens_at_most)));
  terminal_.print(table.render(terminal_));
  return 0;
}

StudyRunOptions StudyCommand::run_options(const Study& part, ProgressBar* bar) {
  StudyRunOptions run;
  run.share_prefixes = !options_.one_by_one;
  run.state_budget_bytes = static_cast<size_t>(options_.state_mib) << 20;
  run.parent = course_;
  run.origin = origin_;
  run.overrides = plan_.overrides;
  run.is_cancelled = InterruptGuard::was_interrupted;
  run.on_progress = [bar, what = "study " + part.name](const StudyProgress& progress) {
    bar->update(what, static_cast<uint64_t>(progress.tokens_asked),
                static_cast<uint64_t>(progress.tokens_at_most), "tokens",
                fmt::format("{} of {} runs, {} distinct prefixes", progress.runs_finished,
                            progress.runs, with_commas(progress.prefixes_computed)));
  };
  return run;
}

std::optional<StudyRecord> StudyCommand::earlier(const std::string& name) const {
  const auto known = std::find_if(earlier_.begin(), earlier_.end(),
                                  [&](const StudyRecord& part) { return part.name == name; });
  return known == earlier_.end() ? std::nullopt : std::optional(*known);
}

Status StudyCommand::run_part(const Study& part, std::optional<int64_t> resume) {
  ProgressBar bar(&terminal_, true);
  StudyRunOptions run = run_options(part, &bar);
  run.resume = resume;
  ASSIGN_OR_RETURN(const int64_t id, run_study(engine_.get(), store_.get(), part, run));
  ids_.push_back(id);
  was_stopped_ = InterruptGuard::was_interrupted();
  return {};
}

Status StudyCommand::run_parts() {
  if (!plan_.study.is_course()) {
    return run_part(plan_.study,
                    options_.resume > 0 ? std::optional(options_.resume) : std::nullopt);
  }
  if (course_ == 0) {
    StudyRecord record;
    record.name = plan_.study.name;
    record.source = plan_.study.source;
    record.overrides = plan_.overrides;
    record.status = "running";
    record.origin = origin_;
    ASSIGN_OR_RETURN(course_, store_->begin_study(record));
  }
  StudyTotals totals;
  Status outcome;
  for (const Study& part : plan_.parts) {
    const std::optional<StudyRecord> before = earlier(part.name);
    if (before && before->status == "done") {
      ids_.push_back(before->id);
    } else {
      outcome = run_part(part, before ? std::optional(before->id) : std::nullopt);
    }
    if (!outcome || was_stopped_) {
      break;
    }
    ASSIGN_OR_RETURN(const StudyRecord done, store_->study(ids_.back()));
    add(&totals, done.totals);
  }
  const bool is_done = outcome.has_value() && !was_stopped_;
  const Status finished =
      store_->finish_study(course_, is_done ? "done" : "interrupted", totals, "");
  return outcome ? finished : outcome;
}

Status StudyCommand::write_report(const std::vector<StudyResults>& results) {
  const int64_t id = course_ > 0 ? course_ : ids_.front();
  const std::filesystem::path folder =
      options_.out.empty() ? logitlab_home() / "reports" : std::filesystem::path(options_.out);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return fail(ErrorCode::kInvalidArgument, "{}: {}; want a folder that can be written to",
                folder.string(), error.message());
  }
  ASSIGN_OR_RETURN(const Report report, make_report(store_.get(), id, results));
  const std::filesystem::path path = folder / fmt::format("{}-{}.html", plan_.study.name, id);
  RETURN_IF_ERROR(write_file_atomically(path, to_html(report)));
  report_ = path.string();
  return {};
}

Result<int> StudyCommand::show() {
  std::vector<StudyResults> results;
  for (const int64_t id : ids_) {
    ASSIGN_OR_RETURN(results.emplace_back(), analyse_study(store_.get(), id));
  }
  if (!options_.no_report && !results.empty()) {
    RETURN_IF_ERROR(write_report(results));
  }
  if (invocation_.json) {
    Json document = Json::object();
    document["course"] = course_ > 0 ? Json(course_) : Json();
    document["report"] = report_.empty() ? Json() : Json(report_);
    document["studies"] = Json::array();
    for (const StudyResults& one : results) {
      ASSIGN_OR_RETURN(Json json, parse_json(to_json_text(one), "results"));
      document["studies"].push_back(std::move(json));
    }
    print_json(&terminal_, document);
  } else if (course_ > 0) {
    print_course(&terminal_, plan_.study, results);
  } else if (!results.empty()) {
    print_study(&terminal_, results.front());
  }
  if (!report_.empty()) {
    terminal_.note(terminal_.paint_note(Style::kDim, "report: " + printable(report_)) + "\n");
  }
  if (was_stopped_) {
    const int64_t id = course_ > 0 ? course_ : (ids_.empty() ? 0 : ids_.front());
    terminal_.note(terminal_.paint_note(Style::kWarn,
                                        fmt::format("stopped; `logitlab study --resume {}` goes on "
                                                    "from there",
                                                    id)) +
                   "\n");
    return kInterrupted;
  }
  return 0;
}

Result<int> StudyCommand::run() {
  InterruptGuard interrupts;
  RETURN_IF_ERROR(prepare());
  if (options_.dry_run) {
    return say_cost();
  }
  RETURN_IF_ERROR(run_parts());
  return show();
}

Result<int> run_study_command(const StudyCommandOptions& options, Invocation& invocation) {
  if (options.name.empty() == (options.resume == 0)) {
    return fail(ErrorCode::kUsage,
                "study: want the name of a study (`logitlab studies` lists them) or a file, or "
                "--resume ID");
  }
  if (options.resume > 0 && (!options.set.empty() || options.runs > 0)) {
    return fail(ErrorCode::kUsage,
                "study: --resume goes on with what was begun; leave --set and --runs out");
  }
  return StudyCommand(options, &invocation).run();
}

Action declare_study(CLI::App& app) {
  auto options = std::make_shared<StudyCommandOptions>();
  app.add_option("NAME", options->name,
                 "A study that comes with logitlab (`logitlab studies`), or a YAML file.")
      ->type_name("NAME|FILE");
  app.add_option("--set", options->set,
                 "Replaces a setting of every run, or the values of a sweep: temperature=0.7, "
                 "top_k=1,5,50, prompt=TEXT, base=7 (of the seeds), policy=running.")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->group("Study");
  app.add_option("--runs", options->runs, "Runs of every setting.")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kMostRuns))
      ->group("Study");
  app.add_flag("--dry-run", options->dry_run, "Says what it would cost, and runs nothing.")
      ->group("Study");
  app.add_option("--resume", options->resume,
                 "Goes on with a study of the store that was interrupted.")
      ->type_name("ID")
      ->check(CLI::PositiveNumber)
      ->group("Study");
  app.add_flag("--one-by-one", options->one_by_one,
               "Every run alone, one after the other: the same results, more slowly.")
      ->group("Study");
  app.add_option(
         "--state-mib", options->state_mib,
         "Memory for the states of the runs, in MiB; branches that do not fit wait. Default: "
         "a quarter of what is free.")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->group("Study");
  app.add_option("--out", options->out, "Folder of the report. Default: reports in $LOGITLAB_HOME.")
      ->type_name("DIR")
      ->group("Result");
  app.add_flag("--no-report", options->no_report, "Writes no report.")->group("Result");
  options->store.declare(app);
  options->model.declare_source(app);
  options->model.declare_compute(app);
  return [options](Invocation& invocation) { return run_study_command(*options, invocation); };
}

}  // namespace

Command study_command() {
  return {"study",
          "a question in, an honest answer out",
          "Runs a study: settings times seeds of one or several prompts, as its file says "
          "(docs/studies.md). All runs advance together, and what they have in common goes through "
          "the model once; tokens, traces and hashes are those of every run alone.\n\n"
          "Every finished run is in the store at once. Ctrl-C stops and keeps what is there; "
          "--resume goes on. At the end stand the answer, the figures and a report: "
          "one HTML file that needs no network.",
          {{"study lesson-01", "the whole course"},
           {"study top-k --runs 10", "more runs of every setting"},
           {"study temperature --set max_new_tokens=40 --set prompt='Tell me a joke.'",
            "another prompt, shorter texts"},
           {"study my-study.yaml --dry-run", "what it would cost"}},
          declare_study};
}

}  // namespace logitlab
