#include "lab/study/study_runner.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/json.h"
#include "lab/measures/cache_cost.h"
#include "lab/study/exact_figures.h"
#include "lab/study/prepared_study.h"
#include "lab/study/study_extras.h"
#include "sampling/generation_fields.h"
#include "trace/trace_text.h"

namespace logitlab {
namespace {

// Finished runs go to the store together, when there are so many or the first has waited so long.
constexpr size_t kRunsPerWrite = 64;
constexpr double kSecondsPerWrite = 0.5;

// The trace of one run, without the times, which no second run has again.
class RunSink final : public TraceSink {
 public:
  explicit RunSink(TraceCompressor* compressor) : text_(compressor) {}
  void begin(const RunTrace& run) override { text_.begin(run); }
  void step(const TracedStep& step) override {
    constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
    hash_ = (hash_ ^ step.logits_hash) * kMultiplier;
    hash_ ^= hash_ >> 29;
    text_.step(step);
  }
  void beam_step(const TracedBeamStep& step) override { text_.beam_step(step); }
  void end(const RunEnd& end) override {
    RunEnd timeless = end;
    timeless.seconds = 0;
    text_.end(timeless);
  }
  // Over the logits hashes of all steps, in order; 0 of none.
  [[nodiscard]] uint64_t hash() const { return hash_; }
  [[nodiscard]] TraceText& text() { return text_; }

 private:
  TraceText text_;
  uint64_t hash_ = 0;
};

Json json_of(const Execution& execution) {
  Json out = Json::object();
  if (execution.threads) {
    out["threads"] = *execution.threads;
  }
  if (execution.prefill_chunk) {
    out["prefill_chunk"] = *execution.prefill_chunk;
  }
  if (execution.neighbours > 0) {
    out["neighbours"] = execution.neighbours;
  }
  return out;
}

void add(StudyTotals* sum, const TreeTotals& part) {
  sum->prompt_tokens_asked += part.prompt_tokens_asked;
  sum->new_tokens_asked += part.new_tokens_asked;
  sum->prefill_tokens += part.prefill_tokens;
  sum->decode_rows += part.decode_rows;
  sum->replayed_rows += part.replayed_rows;
  sum->forward_passes += part.forward_passes;
  sum->peak_state_bytes = std::max(sum->peak_state_bytes, part.peak_state_bytes);
  sum->prefill_seconds += part.prefill_seconds;
}

// Puts the engine's number of threads back.
class ThreadsGuard {
 public:
  ThreadsGuard(Engine* engine, std::optional<int> threads)
      : engine_(*engine), before_(engine->n_threads()) {
    if (threads && *threads != before_) {
      engine_.use_threads(*threads);
    }
  }
  ~ThreadsGuard() {
    if (engine_.n_threads() != before_) {
      engine_.use_threads(before_);
    }
  }
  ThreadsGuard(const ThreadsGuard&) = delete;
  ThreadsGuard& operator=(const ThreadsGuard&) = delete;

 private:
  Engine& engine_;
  int before_;
};

class StudyRun {
 public:
  // Without a store what has finished is kept in memory.
  StudyRun(Engine* engine, Store* store, const Study& study, const StudyRunOptions& options)
      : engine_(*engine), store_(store), study_(study), options_(options) {}

  Result<int64_t> run();
  Result<RunRecord> run_one(int64_t index);

 private:
  // One run on its way.
  struct Job {
    const PreparedRun* run = nullptr;
    GenerationConfig config;
    std::unique_ptr<RunSink> sink;
  };

  Status begin();
  Status run_all();
  Status run_group(const Execution& execution, const std::vector<const PreparedRun*>& runs);
  Status run_beside_others(const Execution& execution, const PreparedRun& run);
  Job make_job(const PreparedRun& run);
  TreeRun tree_run(const Job& job);
  TreeOptions tree_options(const Execution& execution);
  Status run_jobs(std::vector<Job>* jobs, std::span<const TreeRun> neighbours,
                  const Execution& execution);
  Result<RunRecord> record_of(Job* job, const GenerationResult& result);
  Status write_finished();
  Status measure_extras();
  [[nodiscard]] bool is_cancelled() const {
    return options_.is_cancelled && options_.is_cancelled();
  }
  void report(const TreeProgress& progress);
  Status end(Status outcome);

  Engine& engine_;
  Store* store_;
  const Study& study_;
  const StudyRunOptions& options_;
  PreparedStudy prepared_;
  TraceCompressor compressor_;
  int64_t id_ = 0;
  std::set<int64_t> done_before_;
  std::vector<RunRecord> finished_;
  double first_finished_ = 0;
  StudyTotals totals_;
  StudyProgress progress_;
  StudyExtras extras_;
  double start_ = 0;
  bool was_cancelled_ = false;
};

Status StudyRun::begin() {
  if (options_.resume) {
    id_ = *options_.resume;
    ASSIGN_OR_RETURN(const StudyRecord record, store_->study(id_));
    if (record.origin.model_hash != options_.origin.model_hash) {
      return fail(
          ErrorCode::kInvalidArgument,
          "study {}: begun with model {} ({}), found {} ({}); want the same files, or a new "
          "study",
          id_, record.origin.model, record.origin.model_hash, options_.origin.model,
          options_.origin.model_hash);
    }
    totals_ = record.totals;
    ASSIGN_OR_RETURN(const std::vector<int64_t> done, store_->finished_runs(id_));
    done_before_.insert(done.begin(), done.end());
    return {};
  }
  StudyRecord record;
  record.parent = options_.parent;
  record.name = study_.name;
  record.source = study_.source;
  record.overrides = options_.overrides;
  record.status = "running";
  record.origin = options_.origin;
  ASSIGN_OR_RETURN(id_, store_->begin_study(record));
  return {};
}

StudyRun::Job StudyRun::make_job(const PreparedRun& run) {
  Job job{&run, prepared_.cells[run.cell].config, std::make_unique<RunSink>(&compressor_)};
  job.config.seed = run.plan.seed;
  return job;
}

TreeRun StudyRun::tree_run(const Job& job) {
  const PreparedCell& cell = prepared_.cells[job.run->cell];
  TreeRun run;
  run.prompt = prepared_.prompts[cell.ids].ids;
  run.config = &job.config;
  run.trace.sink = job.sink.get();
  run.trace.run = cell.description;
  run.trace.run.model = options_.origin.model;
  run.trace.run.model_hash = options_.origin.model_hash;
  run.trace.run.build = options_.origin.build;
  run.trace.n_candidates = study_.n_candidates;
  run.trace.piece = [this](TokenId id) { return engine_.tokenizer().piece(id).value_or(""); };
  return run;
}

TreeOptions StudyRun::tree_options(const Execution& execution) {
  TreeOptions options;
  options.prefill_chunk = execution.prefill_chunk.value_or(options.prefill_chunk);
  options.state_budget_bytes = options_.state_budget_bytes;
  // Neighbours in a batch are what the run is about.
  options.share_prefixes = options_.share_prefixes || execution.neighbours > 0;
  options.is_cancelled = options_.is_cancelled;
  options.on_progress = [this](const TreeProgress& progress) { report(progress); };
  return options;
}

void StudyRun::report(const TreeProgress& progress) {
  if (!options_.on_progress) {
    return;
  }
  StudyProgress sum = progress_;
  sum.tokens_asked += progress.tokens_asked;
  sum.prefixes_computed += progress.prefixes_computed;
  options_.on_progress(sum);
}

Result<RunRecord> StudyRun::record_of(Job* job, const GenerationResult& result) {
  const PreparedCell& cell = prepared_.cells[job->run->cell];
  const StudySetting& setting = study_.settings[cell.setting];
  const SequenceResult& first = result.first();
  RunRecord record;
  record.study = id_;
  record.index = job->run->plan.index;
  record.prompt_name = study_.prompts[cell.prompt].name;
  record.setting_name = setting.name;
  record.run = job->run->plan.run;
  record.seed = job->run->plan.seed;
  record.is_control = setting.is_control;
  GenerationConfig config = merge_generation_config(job->config, engine_.defaults()).config;
  record.config_json = dump_json(to_json(config));
  record.execution_json = dump_json(json_of(setting.execution));
  record.prompt_ids = prepared_.prompts[cell.ids].ids;
  record.ids = first.ids;
  ASSIGN_OR_RETURN(record.text, engine_.tokenizer().decode(first.ids, true));
  record.stop_reason = std::string(name(first.stop_reason));
  record.stop_id = first.stop_id;
  record.thinking_tokens = first.thinking_tokens;
  record.answer_tokens = first.answer_tokens;
  record.hash = job->sink->hash();
  record.seconds = result.prefill_seconds + result.decode_seconds;
  record.trace_zstd = job->sink->text().take_zstd();
  return record;
}

Status StudyRun::write_finished() {
  if (finished_.empty() || store_ == nullptr) {
    return {};
  }
  RETURN_IF_ERROR(store_->add_runs(&finished_));
  progress_.runs_finished += static_cast<int64_t>(finished_.size());
  finished_.clear();
  return {};
}

Status StudyRun::run_jobs(std::vector<Job>* jobs, std::span<const TreeRun> neighbours,
                          const Execution& execution) {
  std::vector<TreeRun> runs;
  runs.reserve(jobs->size() + neighbours.size());
  for (const Job& job : *jobs) {
    runs.push_back(tree_run(job));
  }
  runs.insert(runs.end(), neighbours.begin(), neighbours.end());
  TreeOptions options = tree_options(execution);
  options.on_finished = [this, jobs](size_t run, const GenerationResult& result) -> Status {
    if (run >= jobs->size()) {
      return {};  // a neighbour
    }
    Job& job = (*jobs)[run];
    if (finished_.empty()) {
      first_finished_ = monotonic_seconds();
    }
    ASSIGN_OR_RETURN(finished_.emplace_back(), record_of(&job, result));
    job.sink.reset();
    if (finished_.size() >= kRunsPerWrite ||
        monotonic_seconds() - first_finished_ > kSecondsPerWrite) {
      return write_finished();
    }
    return {};
  };
  auto totals = run_tree(&engine_, runs, options);
  // What had finished is kept whatever ended the rest.
  const Status written = write_finished();
  if (!totals) {
    return tl::unexpected<Error>(std::move(totals).error());
  }
  RETURN_IF_ERROR(written);
  add(&totals_, *totals);
  progress_.tokens_asked += totals->new_tokens_asked;
  progress_.prefixes_computed += totals->decode_rows;
  was_cancelled_ = was_cancelled_ || totals->is_cancelled;
  return {};
}

// One run in a batch with `neighbours` others, whose prompts are other ones, so that no two of them
// share a row.
Status StudyRun::run_beside_others(const Execution& execution, const PreparedRun& run) {
  std::vector<Job> jobs;
  jobs.push_back(make_job(run));
  const std::vector<TokenId>& prompt = prepared_.prompts[prepared_.cells[run.cell].ids].ids;
  std::deque<std::vector<TokenId>> prompts;
  std::vector<TreeRun> neighbours;
  for (int64_t i = 0; i < execution.neighbours; ++i) {
    std::vector<TokenId>& ids = prompts.emplace_back(prompt);
    // Each repeats the end of the prompt once more than the one before it.
    for (int64_t repeat = 0; repeat <= i; ++repeat) {
      ids.push_back(prompt[prompt.size() - 1 - static_cast<size_t>(repeat) % prompt.size()]);
    }
    TreeRun other;
    other.prompt = ids;
    other.config = &jobs.front().config;
    neighbours.push_back(std::move(other));
  }
  return run_jobs(&jobs, neighbours, execution);
}

Status StudyRun::run_group(const Execution& execution,
                           const std::vector<const PreparedRun*>& runs) {
  const ThreadsGuard threads(&engine_, execution.threads);
  if (execution.neighbours > 0) {
    for (const PreparedRun* run : runs) {
      RETURN_IF_ERROR(run_beside_others(execution, *run));
      if (was_cancelled_) {
        return {};
      }
    }
    return {};
  }
  std::vector<Job> jobs;
  jobs.reserve(runs.size());
  for (const PreparedRun* run : runs) {
    jobs.push_back(make_job(*run));
  }
  return run_jobs(&jobs, {}, execution);
}

Status StudyRun::run_all() {
  std::vector<std::pair<Execution, std::vector<const PreparedRun*>>> groups;
  for (const PreparedRun& run : prepared_.runs) {
    progress_.tokens_at_most += prepared_.cells[run.cell].max_new_tokens;
    if (done_before_.count(run.plan.index) > 0) {
      ++progress_.runs_finished;
      continue;
    }
    const Execution& execution = study_.settings[run.plan.setting].execution;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& known) { return known.first == execution; });
    if (group == groups.end()) {
      group = groups.insert(groups.end(), {execution, {}});
    }
    group->second.push_back(&run);
  }
  for (const auto& [execution, runs] : groups) {
    RETURN_IF_ERROR(run_group(execution, runs));
    if (was_cancelled_) {
      return {};
    }
  }
  return measure_extras();
}

Status StudyRun::measure_extras() {
  if (study_.exact) {
    for (const PreparedCell& cell : prepared_.cells) {
      if (cell.has_beams) {
        continue;
      }
      ExactCell exact;
      exact.prompt_name = study_.prompts[cell.prompt].name;
      exact.setting_name = study_.settings[cell.setting].name;
      exact.prompt = prepared_.prompts[cell.ids].ids;
      exact.config = &cell.config;
      exact.runs = study_.settings[cell.setting].runs;
      ASSIGN_OR_RETURN(extras_.exact.emplace_back(),
                       exact_figures(&engine_, exact, *study_.exact, options_.is_cancelled));
      if (is_cancelled()) {
        was_cancelled_ = true;
        return {};
      }
    }
  }
  const auto& measures = study_.measures;
  if (std::find(measures.begin(), measures.end(), MeasureKind::kCache) != measures.end()) {
    CacheCostOptions options;
    options.new_tokens = std::max<int64_t>(1, prepared_.cells.front().max_new_tokens - 1);
    options.is_cancelled = options_.is_cancelled;
    const std::vector<TokenId>& prompt = prepared_.prompts.front().ids;
    auto cost = measure_cache_cost(&engine_, prompt, options);
    if (!cost && cost.error().code == ErrorCode::kCancelled) {
      was_cancelled_ = true;
      return {};
    }
    RETURN_IF_ERROR(cost);
    CacheFigures figures;
    figures.prompt_tokens = static_cast<int64_t>(prompt.size());
    figures.cached_seconds = median_steps(cost->cached);
    figures.uncached_seconds = median_steps(cost->uncached);
    figures.same_tokens = cost->n_same / options.reps;
    extras_.cache = std::move(figures);
  }
  return {};
}

Status StudyRun::end(Status outcome) {
  totals_.seconds += monotonic_seconds() - start_;
  totals_.peak_memory_bytes =
      std::max(totals_.peak_memory_bytes, read_memory().peak_resident_bytes);
  const bool is_done = outcome.has_value() && !was_cancelled_;
  const Status finished = store_->finish_study(id_, is_done ? "done" : "interrupted", totals_,
                                               is_done ? to_json_text(extras_) : "");
  // The first thing that went wrong is what a person wants to know.
  if (!outcome) {
    Error error = std::move(outcome).error();
    error.message += fmt::format(
        "; {} of {} runs are in the store, `logitlab study --resume {}` goes on from there",
        progress_.runs_finished, prepared_.runs.size(), id_);
    return tl::unexpected<Error>(std::move(error));
  }
  return finished;
}

Result<int64_t> StudyRun::run() {
  start_ = monotonic_seconds();
  ASSIGN_OR_RETURN(prepared_, prepare_study(engine_, study_));
  RETURN_IF_ERROR(begin());
  progress_.runs = static_cast<int64_t>(prepared_.runs.size());
  RETURN_IF_ERROR(end(run_all()));
  return id_;
}

Result<RunRecord> StudyRun::run_one(int64_t index) {
  ASSIGN_OR_RETURN(prepared_, prepare_study(engine_, study_));
  const auto wanted =
      std::find_if(prepared_.runs.begin(), prepared_.runs.end(),
                   [index](const PreparedRun& run) { return run.plan.index == index; });
  if (wanted == prepared_.runs.end()) {
    return fail(ErrorCode::kNotFound, "study {}: run {} found, want 0 to {}", study_.name, index,
                prepared_.runs.size() - 1);
  }
  RETURN_IF_ERROR(run_group(study_.settings[wanted->plan.setting].execution, {&*wanted}));
  if (finished_.empty()) {
    return fail(ErrorCode::kCancelled, "stopped");
  }
  RunRecord record = std::move(finished_.front());
  ASSIGN_OR_RETURN(record.trace, decompress_trace(record.trace_zstd, "the run made again"));
  return record;
}

}  // namespace

Result<RunRecord> run_again(Engine* engine, const Study& study, int64_t index,
                            const StudyRunOptions& options) {
  return StudyRun(engine, nullptr, study, options).run_one(index);
}

Result<StudyEstimate> estimate_study(Engine* engine, const Study& study) {
  ASSIGN_OR_RETURN(const PreparedStudy prepared, prepare_study(*engine, study));
  StudyEstimate estimate;
  std::set<std::vector<TokenId>> distinct;
  for (const PreparedRun& run : prepared.runs) {
    const PreparedCell& cell = prepared.cells[run.cell];
    const std::vector<TokenId>& prompt = prepared.prompts[cell.ids].ids;
    const auto length = static_cast<int64_t>(prompt.size());
    ++estimate.runs;
    estimate.prompt_tokens += length;
    estimate.new_tokens_at_most += cell.max_new_tokens;
    estimate.state_bytes_at_most += engine->model().state_bytes(length + cell.max_new_tokens);
    if (distinct.insert(prompt).second) {
      estimate.distinct_prompt_tokens += length;
    }
  }
  return estimate;
}

Result<int64_t> run_study(Engine* engine, Store* store, const Study& study,
                          const StudyRunOptions& options) {
  return StudyRun(engine, store, study, options).run();
}

}  // namespace logitlab
