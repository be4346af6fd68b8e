// verify: stored runs, made again.
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/utf8.h"
#include "command.h"
#include "divergence_view.h"
#include "interrupt.h"
#include "json_out.h"
#include "lab/measures/verification.h"
#include "lab/study/stored_study.h"
#include "lab/study/study_runner.h"
#include "model_options.h"
#include "progress_bar.h"
#include "run_json.h"
#include "run_origin.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr int kDiffers = 1;

struct VerifyOptions {
  ModelOptions model;
  StoreOptions store;
  std::vector<int64_t> runs;
  int64_t study = 0;
};

// The runs that are asked for belong to one model: it is loaded once.
struct VerifyTask {
  std::vector<int64_t> runs;
  StudyRecord study;
  Study plan;
};

class VerifyCommand {
 public:
  VerifyCommand(const VerifyOptions& options, Invocation* invocation)
      : options_(options), invocation_(*invocation), terminal_(invocation->terminal) {}

  Result<int> run();

 private:
  Status collect();
  Status add_run(int64_t id);
  Status load();
  Result<Verification> verify(const VerifyTask& task, int64_t id);
  void print(int64_t id, const Verification& found);
  void print_sum();

  const VerifyOptions& options_;
  Invocation& invocation_;
  Terminal& terminal_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Engine> engine_;
  RunOrigin origin_;
  std::vector<VerifyTask> tasks_;  // one per study
  Json document_ = Json::array();
  int64_t n_runs_ = 0;
  int64_t n_equal_ = 0;
};

Status VerifyCommand::add_run(int64_t id) {
  ASSIGN_OR_RETURN(const RunRecord run, store_->run(id));
  if (run.study == 0) {
    return fail(ErrorCode::kInvalidArgument,
                "run {}: it belongs to no study, whose prompt and settings say how it was made",
                id);
  }
  if (tasks_.empty() || tasks_.back().study.id != run.study) {
    VerifyTask task;
    ASSIGN_OR_RETURN(task.study, store_->study(run.study));
    ASSIGN_OR_RETURN(task.plan, plan_of(task.study));
    tasks_.push_back(std::move(task));
  }
  tasks_.back().runs.push_back(id);
  ++n_runs_;
  return {};
}

Status VerifyCommand::collect() {
  for (const int64_t id : options_.runs) {
    RETURN_IF_ERROR(add_run(id));
  }
  if (options_.study == 0) {
    return {};
  }
  ASSIGN_OR_RETURN(std::vector<StudyRecord> studies, store_->parts(options_.study));
  if (studies.empty()) {
    ASSIGN_OR_RETURN(studies.emplace_back(), store_->study(options_.study));
  }
  for (const StudyRecord& study : studies) {
    ASSIGN_OR_RETURN(const auto runs, store_->runs({.study = study.id}));
    for (const RunRecord& run : runs) {
      RETURN_IF_ERROR(add_run(run.id));
    }
  }
  if (n_runs_ == 0) {
    return fail(ErrorCode::kNotFound, "study {}: it has no runs", options_.study);
  }
  return {};
}

Status VerifyCommand::load() {
  ASSIGN_OR_RETURN(engine_, options_.model.load(invocation_));
  ASSIGN_OR_RETURN(origin_, origin_of(*engine_));
  for (const VerifyTask& task : tasks_) {
    const RunOrigin& then = task.study.origin;
    if (then.model_hash != origin_.model_hash) {
      return fail(
          ErrorCode::kInvalidArgument,
          "run {}: made with model {} ({}) by `{}`, found {} ({}); name the same files with "
          "--model",
          task.runs.front(), then.model, then.model_hash, then.command, origin_.model,
          origin_.model_hash);
    }
  }
  return {};
}

Result<Verification> VerifyCommand::verify(const VerifyTask& task, int64_t id) {
  ASSIGN_OR_RETURN(const RunRecord stored, store_->run(id));
  ProgressBar bar(&terminal_, true);
  StudyRunOptions again;
  again.origin = origin_;
  again.is_cancelled = InterruptGuard::was_interrupted;
  again.on_progress = [&](const StudyProgress& progress) {
    bar.update(fmt::format("run {} again", id), static_cast<uint64_t>(progress.tokens_asked),
               stored.ids.size(), "tokens");
  };
  ASSIGN_OR_RETURN(const RunRecord made, run_again(engine_.get(), task.plan, stored.index, again));
  return verify_run(stored, made);
}

void VerifyCommand::print(int64_t id, const Verification& found) {
  if (invocation_.json) {
    Json one = Json::object();
    one["run"] = id;
    one["equal"] = found.is_equal();
    one["same_tokens"] = found.has_same_tokens;
    one["same_logits_hash"] = found.is_beam_search ? Json() : Json(found.has_same_hash);
    one["same_beams"] = found.is_beam_search ? Json(found.has_same_beams) : Json();
    one["tokens"] = found.n_tokens;
    one["first_difference"] = found.first_difference < 0 ? Json() : Json(found.first_difference);
    one["verdict"] = found.verdict;
    one["divergence"] = found.divergence && !found.is_equal() ? json_of(*found.divergence) : Json();
    document_.push_back(std::move(one));
    return;
  }
  const auto columns = static_cast<size_t>(terminal_.columns());
  const Style style = found.is_equal() ? Style::kGood : Style::kBad;
  const std::string text = fmt::format("Run {}: {}", id, printable(found.verdict));
  for (const std::string& line : wrap(text, columns)) {
    terminal_.print(terminal_.paint(style, line) + "\n");
  }
  if (!found.is_equal() && found.divergence) {
    print_divergence(&terminal_, *found.divergence, {"stored", "again"});
  }
  terminal_.flush();
}

void VerifyCommand::print_sum() {
  if (invocation_.json) {
    Json document = Json::object();
    document["runs"] = std::move(document_);
    document["equal"] = n_equal_;
    document["all_equal"] = n_equal_ == n_runs_;
    print_json(&terminal_, document);
  } else if (n_runs_ > 1) {
    terminal_.print(fmt::format("\n{} of {} runs are equal.\n", n_equal_, n_runs_));
  }
}

Result<int> VerifyCommand::run() {
  InterruptGuard interrupts;
  ASSIGN_OR_RETURN(store_, open_to_read(options_.store));
  RETURN_IF_ERROR(collect());
  RETURN_IF_ERROR(load());
  for (const VerifyTask& task : tasks_) {
    for (const int64_t id : task.runs) {
      ASSIGN_OR_RETURN(const Verification found, verify(task, id));
      n_equal_ += found.is_equal() ? 1 : 0;
      print(id, found);
    }
  }
  print_sum();
  return n_equal_ == n_runs_ ? 0 : kDiffers;
}

Result<int> run_verify(const VerifyOptions& options, Invocation& invocation) {
  if (options.runs.empty() == (options.study == 0)) {
    return fail(ErrorCode::kUsage, "verify: found {}, want the numbers of runs or --study ID",
                options.study == 0 ? "neither runs nor a study" : "both runs and a study");
  }
  return VerifyCommand(options, &invocation).run();
}

Action declare_verify(CLI::App& app) {
  auto options = std::make_shared<VerifyOptions>();
  const auto positive = CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max());
  app.add_option("RUN", options->runs, "Runs of the store.")->check(positive)->type_name("ID");
  app.add_option("--study", options->study, "All runs of a study, or of the parts of a course.")
      ->check(positive)
      ->type_name("ID");
  options->store.declare(app);
  options->model.declare_source(app);
  options->model.declare_compute(app);
  return [options](Invocation& invocation) { return run_verify(*options, invocation); };
}

}  // namespace

Command verify_command() {
  return {"verify",
          "makes a stored run again: equal tokens and logits, or the first difference",
          "Runs a run of the store once more, alone, with the prompt, settings, seed and way of "
          "execution of its study, and compares every token and the hash of the logits of every "
          "step. Where something differs, the first difference is named with its cause. Nothing "
          "is written to the store.\n\n"
          "Ends with 0 when all are equal and with 1 when one is not. The model has to be the one "
          "that the run was made with.",
          {{"verify 12", "run 12, made again"},
           {"verify --study 3", "every run of study 3"},
           {"verify 12 --threads 1 --json", "by one thread, for a program"}},
          declare_verify};
}

}  // namespace logitlab
