#include "engine/prefix_tree.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/env.h"
#include "base/json.h"
#include "engine/live_state.h"
#include "generate/prompt_run.h"
#include "generate/run_trace.h"
#include "generate/sequence_run.h"
#include "generate/stopping.h"
#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"
#include "sampling/logits_dtype.h"
#include "sampling/step_tracer.h"

namespace logitlab {
namespace {

// One prompt and one setting but for the seed: what runs need not have each for itself.
struct Cell {
  size_t number = 0;  // among the cells
  size_t prompt = 0;
  GenerationConfig config;  // after merge_generation_config
  GenerateOptions options;
  std::optional<RunSettings> settings;  // refers to the two above
  int64_t max_new_tokens = 0;
  std::optional<StoppingCriteria> stopping;
  ProcessorChain chain;
  std::vector<TokenId> accepted;  // by the chain's processors
  StepTracer* tracer = nullptr;   // null without a trace

  // Makes the chain one of a sequence that has generated these.
  void align(std::span<const TokenId> generated) {
    const auto [known, wanted] =
        std::mismatch(accepted.begin(), accepted.end(), generated.begin(), generated.end());
    chain.rollback(accepted.end() - known);
    std::for_each(wanted, generated.end(), [this](TokenId id) { chain.accept(id); });
    accepted.assign(generated.begin(), generated.end());
  }
};

struct Run {
  Cell* cell = nullptr;
  uint64_t seed = 0;
  std::optional<SequenceRun> sequence;  // none once it has ended
  std::optional<RunTracer> tracer;
};

// A state that several branches go on from. The last one takes it, the others fork it.
struct Snapshot {
  std::optional<LiveState> state;  // none: given up for the budget
  size_t prompt = 0;
  int64_t n_generated = 0;  // tokens after the prompt that the state holds
  int64_t n_waiting = 0;    // branches that are not in a batch
};

// A prefix that has not gone through the model to its end: the snapshot's, then `next`.
struct Branch {
  std::shared_ptr<Snapshot> from;
  TokenId next = 0;
  std::vector<uint32_t> runs;
};

struct Prompt {
  std::span<const TokenId> ids;
  std::vector<uint32_t> runs;     // that advance in the tree
  std::optional<LiveState> root;  // holds the prompt
  std::vector<float> logits;      // [vocab_size], of its last position
};

class PrefixTree {
 public:
  PrefixTree(Engine* engine, std::span<const TreeRun> asked, const TreeOptions& options)
      : engine_(*engine), asked_(asked), options_(options) {
    if (options_.prefill_chunk == 0) {
      options_.prefill_chunk = engine_.model().prefill_chunk();
    }
  }

  Result<TreeTotals> run();

 private:
  // What runs may share beside the prompt: settings without the seed, and what is traced.
  using CellKey = std::tuple<size_t, std::string, int64_t, bool, bool>;

  Status add_run(uint32_t index);
  Result<Cell*> make_cell(const GenerationConfig& config, const TreeRun& run, size_t prompt);
  size_t prompt_of(std::span<const TokenId> ids);
  StepTracer* tracer_of(const TraceOptions& trace);

  Status run_alone(uint32_t index);
  Status read_prompt(size_t prompt);
  Status advance_all();
  Status forward(std::vector<Branch>* batch);
  std::vector<Branch> next_batch();
  Branch take(std::deque<Branch>* branches, bool from_front);
  void make_room(const Snapshot& spared, size_t wanted);
  Result<LiveState> state_of(Branch* branch);
  Status replay(const Branch& branch);
  Status choose(std::span<const uint32_t> runs, std::span<const float> logits, size_t prompt,
                LiveState state);
  Status choose_in_cell(Cell* cell, std::span<const uint32_t> runs, std::span<const float> logits);
  Status finish(uint32_t run);

  [[nodiscard]] size_t bytes_of(const Snapshot& snapshot) const {
    return engine_.model().state_bytes(static_cast<int64_t>(prompts_[snapshot.prompt].ids.size()) +
                                       snapshot.n_generated);
  }
  // Of the states that are there besides those that live, once the branch has gone on.
  [[nodiscard]] size_t cost_of(const Branch& branch) const {
    const bool is_last = branch.from->n_waiting == 1;
    return is_last && branch.from->state ? 0 : bytes_of(*branch.from);
  }
  [[nodiscard]] size_t room() const { return budget_ > ledger_.live ? budget_ - ledger_.live : 0; }
  [[nodiscard]] bool is_cancelled() {
    totals_.is_cancelled =
        totals_.is_cancelled || (options_.is_cancelled && options_.is_cancelled());
    return totals_.is_cancelled;
  }
  void report() {
    if (options_.on_progress) {
      options_.on_progress({totals_.runs_finished, tokens_so_far_, totals_.decode_rows});
    }
  }

  Engine& engine_;
  std::span<const TreeRun> asked_;
  TreeOptions options_;
  double start_ = monotonic_seconds();
  size_t budget_ = 0;
  StateLedger ledger_;  // before all that counts into it
  int64_t tokens_so_far_ = 0;
  TreeTotals totals_;
  std::vector<Prompt> prompts_;
  std::map<std::vector<TokenId>, size_t> prompt_numbers_;
  std::map<CellKey, std::unique_ptr<Cell>> cells_;
  std::map<std::pair<int64_t, bool>, std::unique_ptr<StepTracer>> tracers_;
  std::vector<Run> runs_;
  std::vector<uint32_t> alone_;                    // beams, guidance
  std::map<int64_t, std::deque<Branch>> waiting_;  // by generated tokens
  std::vector<float> rounded_;
  std::vector<float> scores_;
  std::map<TokenId, std::vector<uint32_t>> children_;  // of the prefix in hand, by their next token
};

size_t PrefixTree::prompt_of(std::span<const TokenId> ids) {
  const auto [known, is_new] =
      prompt_numbers_.try_emplace(std::vector<TokenId>(ids.begin(), ids.end()), prompts_.size());
  if (is_new) {
    prompts_.push_back({ids, {}, std::nullopt, {}});
  }
  return known->second;
}

StepTracer* PrefixTree::tracer_of(const TraceOptions& trace) {
  if (trace.sink == nullptr) {
    return nullptr;
  }
  auto& tracer = tracers_[{trace.n_candidates, trace.full_rows}];
  if (tracer == nullptr) {
    tracer = std::make_unique<StepTracer>(
        StepTracerOptions{.vocab_size = engine_.model().config().vocab_size,
                          .n_candidates = trace.n_candidates,
                          .full_rows = trace.full_rows});
  }
  return tracer.get();
}

Result<Cell*> PrefixTree::make_cell(const GenerationConfig& config, const TreeRun& run,
                                    size_t prompt) {
  CellKey key{prompt, dump_json(to_json(config)), run.trace.n_candidates, run.trace.full_rows,
              run.trace.sink != nullptr};
  auto& cell = cells_[std::move(key)];
  if (cell != nullptr) {
    return cell.get();
  }
  auto made = std::make_unique<Cell>();
  made->number = cells_.size();
  made->prompt = prompt;
  made->config = config;
  made->options = engine_.completed({});
  made->options.prefill_chunk = options_.prefill_chunk;
  made->settings.emplace(RunSettings{engine_.context(), engine_.model(), made->config,
                                     made->options, start_, nullptr});
  RETURN_IF_ERROR(check_settings(&*made->settings));
  const PromptInput input{run.prompt};
  ASSIGN_OR_RETURN(const std::vector<PromptRun> planned,
                   plan_prompts(*made->settings, {&input, 1}, false));
  made->max_new_tokens = planned.front().lengths.max_new_tokens;
  made->stopping.emplace(made->config, made->max_new_tokens, start_, made->settings->stop_texts);
  made->tracer = tracer_of(run.trace);
  if (!is_beam_search(config) && config.guidance_scale.value_or(1) == 1) {
    const auto length = static_cast<int64_t>(run.prompt.size());
    ChainOptions chain;
    chain.vocab_size = engine_.model().config().vocab_size;
    chain.prompt_length = length;
    chain.max_length = length + made->max_new_tokens;
    chain.thinking = made->options.thinking;
    ASSIGN_OR_RETURN(made->chain, build_chain(config, chain));
  }
  cell = std::move(made);
  return cell.get();
}

Status PrefixTree::add_run(uint32_t index) {
  const TreeRun& asked = asked_[index];
  CHECK(asked.config != nullptr) << index;
  GenerationConfig config = merge_generation_config(*asked.config, engine_.defaults()).config;
  if (!is_beam_search(config) && config.num_return_sequences.value_or(1) != 1) {
    return fail(ErrorCode::kInvalidArgument,
                "num_return_sequences: {} found without beams, want 1; ask for more runs",
                *config.num_return_sequences);
  }
  Run& run = runs_[index];
  run.seed = config.seed.value_or(0);
  config.seed.reset();
  const size_t prompt = prompt_of(asked.prompt);
  ASSIGN_OR_RETURN(run.cell, make_cell(config, asked, prompt));
  totals_.prompt_tokens_asked += static_cast<int64_t>(asked.prompt.size());
  const bool is_alone =
      !options_.share_prefixes || is_beam_search(config) || config.guidance_scale.value_or(1) != 1;
  if (is_alone) {
    alone_.push_back(index);
    return {};
  }
  prompts_[prompt].runs.push_back(index);
  const auto& thinking = run.cell->options.thinking;
  run.sequence.emplace(0, asked.prompt, thinking);
  run.tracer.emplace(asked.trace, TracedFacts{.seed = run.seed,
                                              .vocab_size = engine_.model().config().vocab_size,
                                              .thinking = thinking,
                                              .start = std::nullopt});
  PromptRun described;
  described.ids = asked.prompt;
  run.tracer->begin({&described, 1}, 1);
  return {};
}

// Through generate, as a caller of one run would. The state of a prompt that the tree has read
// already is gone on from where that gives the same bits.
Status PrefixTree::run_alone(uint32_t index) {
  const TreeRun& asked = asked_[index];
  Run& run = runs_[index];
  GenerateOptions options;
  options.prefill_chunk = options_.prefill_chunk;
  options.sequence_index = asked.sequence_index;
  options.is_cancelled = options_.is_cancelled;
  options.trace = asked.trace;
  std::optional<LiveState>& root = prompts_[run.cell->prompt].root;
  std::optional<DecodeState> state;
  if (root && root->state().can_truncate() && asked.prompt.size() > 1) {
    state = root->state().fork();
    state->truncate(static_cast<int64_t>(asked.prompt.size()) - 1);
  }
  ASSIGN_OR_RETURN(
      const GenerationResult result,
      engine_.generate(asked.prompt, *asked.config, options, state ? &*state : nullptr));
  if (result.first().stop_reason == StopReason::kCancelled) {
    totals_.is_cancelled = true;
    return {};
  }
  int64_t rows = 0;
  for (const SequenceResult& sequence : result.sequences) {
    rows = std::max(rows, static_cast<int64_t>(sequence.ids.size()));
  }
  rows *= run.cell->config.num_beams.value_or(1);
  const int64_t read = result.prompt_tokens - result.reused_prompt_tokens;
  totals_.prefill_tokens += read;
  totals_.forward_passes += (read + options_.prefill_chunk - 1) / options_.prefill_chunk;
  totals_.prefill_seconds += result.prefill_seconds;
  totals_.new_tokens_asked += rows;
  totals_.decode_rows += std::max<int64_t>(0, rows - run.cell->config.num_beams.value_or(1));
  tokens_so_far_ += rows;
  ++totals_.runs_finished;
  if (options_.on_finished) {
    RETURN_IF_ERROR(options_.on_finished(index, result));
  }
  report();
  return {};
}

Status PrefixTree::read_prompt(size_t number) {
  Prompt& prompt = prompts_[number];
  const double start = monotonic_seconds();
  // Rows are rounded to a run's logits_dtype later, so that runs of several can share them.
  const GenerationConfig neutral;
  GenerateOptions options;
  options.prefill_chunk = options_.prefill_chunk;
  options.is_cancelled = options_.is_cancelled;
  const RunSettings settings{engine_.context(), engine_.model(), neutral, options, start, nullptr};
  const PromptInput input{prompt.ids};
  ASSIGN_OR_RETURN(std::vector<PromptRun> planned, plan_prompts(settings, {&input, 1}, false));
  ASSIGN_OR_RETURN(const bool is_read, prefill(settings, &planned));
  if (!is_read) {
    totals_.is_cancelled = true;
    return {};
  }
  const auto length = static_cast<int64_t>(prompt.ids.size());
  totals_.prefill_tokens += length;
  totals_.forward_passes += (length + options_.prefill_chunk - 1) / options_.prefill_chunk;
  totals_.prefill_seconds += monotonic_seconds() - start;
  prompt.root.emplace(std::move(*planned.front().own_state), engine_.model().state_bytes(length),
                      &ledger_);
  prompt.logits = std::move(planned.front().logits);
  return {};
}

Branch PrefixTree::take(std::deque<Branch>* branches, bool from_front) {
  Branch branch = std::move(from_front ? branches->front() : branches->back());
  from_front ? branches->pop_front() : branches->pop_back();
  --branch.from->n_waiting;
  return branch;
}

// Where one batch has room for all branches, those of the smallest depth come first. Else the
// deepest ones go on, because runs that end give their states back and can be kept; when not even
// one of them has room, others give up theirs.
std::vector<Branch> PrefixTree::next_batch() {
  std::vector<Branch> batch;
  size_t left = room();
  size_t n_waiting = 0;
  for (const auto& [depth, branches] : waiting_) {
    n_waiting += branches.size();
  }
  bool takes_deepest = static_cast<int64_t>(n_waiting) > options_.max_rows;
  while (!waiting_.empty() && static_cast<int64_t>(batch.size()) < options_.max_rows) {
    const auto depth = takes_deepest ? std::prev(waiting_.end()) : waiting_.begin();
    const Branch& candidate = takes_deepest ? depth->second.back() : depth->second.front();
    const size_t cost = cost_of(candidate);
    if (cost > left) {
      if (!batch.empty()) {
        break;
      }
      if (!takes_deepest) {
        takes_deepest = true;
        continue;
      }
      make_room(*candidate.from, cost - left);
      left = cost;  // one goes on whatever the budget is
    }
    left -= cost;
    batch.push_back(take(&depth->second, !takes_deepest));
    if (depth->second.empty()) {
      waiting_.erase(depth);
    }
  }
  return batch;
}

// Shallow states are the cheapest to make again.
void PrefixTree::make_room(const Snapshot& spared, size_t wanted) {
  const size_t before = ledger_.live;
  for (auto& [depth, branches] : waiting_) {
    for (Branch& branch : branches) {
      if (branch.from.get() != &spared) {
        branch.from->state.reset();
      }
      if (before - ledger_.live >= wanted) {
        return;
      }
    }
  }
}

Status PrefixTree::replay(const Branch& branch) {
  Snapshot& snapshot = *branch.from;
  LiveState state = prompts_[snapshot.prompt].root->fork();
  const std::span<const TokenId> ids = runs_[branch.runs.front()].sequence->generated();
  const auto n = static_cast<size_t>(snapshot.n_generated);
  RETURN_IF_ERROR(replay_tokens(engine_.context(), engine_.model(), ids.first(n), &state.state()));
  totals_.forward_passes += snapshot.n_generated;
  totals_.decode_rows += snapshot.n_generated;
  totals_.replayed_rows += snapshot.n_generated;
  state.set_bytes(bytes_of(snapshot));
  snapshot.state.emplace(std::move(state));
  return {};
}

// Takes the branch's part in its snapshot away from it.
Result<LiveState> PrefixTree::state_of(Branch* branch) {
  if (!branch->from->state) {
    RETURN_IF_ERROR(replay(*branch));
  }
  const std::shared_ptr<Snapshot> from = std::exchange(branch->from, nullptr);
  if (from.use_count() == 1) {
    return std::move(*from->state);
  }
  return from->state->fork();
}

Status PrefixTree::forward(std::vector<Branch>* batch) {
  struct Advanced {
    size_t prompt = 0;
    int64_t n_generated = 0;  // `next` included
  };
  std::vector<Advanced> advanced;
  std::vector<LiveState> states;
  states.reserve(batch->size());  // chunks point at them
  std::vector<SequenceChunk> chunks;
  for (Branch& branch : *batch) {
    advanced.push_back({branch.from->prompt, branch.from->n_generated + 1});
    ASSIGN_OR_RETURN(LiveState state, state_of(&branch));
    states.push_back(std::move(state));
    chunks.push_back({&states.back().state(), {&branch.next, 1}, LogitRows::kLast});
  }
  ASSIGN_OR_RETURN(const Logits logits, engine_.model().forward(engine_.context(), chunks));
  ++totals_.forward_passes;
  totals_.decode_rows += static_cast<int64_t>(batch->size());
  for (size_t i = 0; i < batch->size(); ++i) {
    states[i].set_bytes(engine_.model().state_bytes(
        static_cast<int64_t>(prompts_[advanced[i].prompt].ids.size()) + advanced[i].n_generated));
    RETURN_IF_ERROR(choose((*batch)[i].runs, logits.row(static_cast<int64_t>(i)),
                           advanced[i].prompt, std::move(states[i])));
  }
  return {};
}

// The next tokens of runs that have all come the same way; their next branches wait.
Status PrefixTree::choose(std::span<const uint32_t> runs, std::span<const float> logits,
                          size_t prompt, LiveState state) {
  children_.clear();
  const int64_t step = runs_[runs.front()].sequence->step();
  // Runs stand in the order of their cells from the start on.
  for (size_t first = 0; first < runs.size();) {
    Cell* cell = runs_[runs[first]].cell;
    size_t end = first;
    while (end < runs.size() && runs_[runs[end]].cell == cell) {
      ++end;
    }
    RETURN_IF_ERROR(choose_in_cell(cell, runs.subspan(first, end - first), logits));
    first = end;
  }
  if (children_.empty()) {
    return {};
  }
  const auto snapshot = std::make_shared<Snapshot>();
  snapshot->state.emplace(std::move(state));
  snapshot->prompt = prompt;
  snapshot->n_generated = step;
  snapshot->n_waiting = static_cast<int64_t>(children_.size());
  for (auto& [id, members] : children_) {
    waiting_[step + 1].push_back({snapshot, id, std::move(members)});
  }
  return {};
}

// Scores are the same for all runs of the cell; what differs is the draw.
Status PrefixTree::choose_in_cell(Cell* cell, std::span<const uint32_t> runs,
                                  std::span<const float> logits) {
  const SequenceRun& leader = *runs_[runs.front()].sequence;
  std::span<const float> row = logits;
  if (const auto dtype = cell->config.logits_dtype; dtype && *dtype != LogitsDtype::kFloat32) {
    rounded_.assign(logits.begin(), logits.end());
    round_logits(rounded_, *dtype);
    row = rounded_;
  }
  scores_.assign(row.begin(), row.end());
  StepTracer* tracer = cell->tracer;
  if (tracer != nullptr) {
    tracer->begin_sequence(prompts_[cell->prompt].ids, leader.generated());
    tracer->begin_step(row);
  }
  cell->align(leader.generated());
  cell->chain.apply(scores_, leader.view(), tracer);
  const int64_t step = leader.step();
  for (const uint32_t index : runs) {
    Run& run = runs_[index];
    cell->config.seed = run.seed;
    const std::optional<Draw> draw = draw_of(cell->config, asked_[index].sequence_index, step);
    ASSIGN_OR_RETURN(const TokenId id, choose_token(scores_, draw));
    const bool is_thinking = run.sequence->push(id, *cell->stopping);
    ++tokens_so_far_;
    if (tracer != nullptr) {
      TracedStep& traced = tracer->end_step(scores_, id, draw);
      traced.sequence = 0;
      traced.step = step;
      traced.is_thinking = is_thinking;
      run.tracer->step(traced);
    }
    if (run.sequence->has_ended()) {
      RETURN_IF_ERROR(finish(index));
    } else {
      children_[id].push_back(index);
    }
  }
  return {};
}

Status PrefixTree::finish(uint32_t index) {
  Run& run = runs_[index];
  GenerationResult result;
  result.sequences.push_back(run.sequence->result());
  result.prompt_tokens = static_cast<int64_t>(asked_[index].prompt.size());
  run.tracer->end(result);
  run.tracer.reset();
  run.sequence.reset();
  ++totals_.runs_finished;
  totals_.new_tokens_asked += result.new_tokens();
  return options_.on_finished ? options_.on_finished(index, result) : Status();
}

Status PrefixTree::advance_all() {
  while (!waiting_.empty() && !is_cancelled()) {
    std::vector<Branch> batch = next_batch();
    RETURN_IF_ERROR(forward(&batch));
    report();
  }
  return {};
}

Result<TreeTotals> PrefixTree::run() {
  budget_ = options_.state_budget_bytes > 0 ? options_.state_budget_bytes
                                            : engine_.available_state_bytes() / 4;
  runs_.resize(asked_.size());
  for (size_t i = 0; i < asked_.size(); ++i) {
    RETURN_IF_ERROR(add_run(static_cast<uint32_t>(i)));
  }
  for (size_t number = 0; number < prompts_.size() && !is_cancelled(); ++number) {
    Prompt& prompt = prompts_[number];
    if (prompt.runs.empty()) {
      continue;
    }
    RETURN_IF_ERROR(read_prompt(number));
    if (totals_.is_cancelled) {
      break;
    }
    std::stable_sort(prompt.runs.begin(), prompt.runs.end(), [this](uint32_t a, uint32_t b) {
      return std::less<>()(runs_[a].cell->number, runs_[b].cell->number);
    });
    RETURN_IF_ERROR(choose(prompt.runs, prompt.logits, number, prompt.root->fork()));
    report();
  }
  RETURN_IF_ERROR(advance_all());
  for (size_t i = 0; i < alone_.size() && !is_cancelled(); ++i) {
    RETURN_IF_ERROR(run_alone(alone_[i]));
  }
  totals_.peak_state_bytes = ledger_.peak;
  totals_.seconds = monotonic_seconds() - start_;
  return totals_;
}

}  // namespace

Result<TreeTotals> run_tree(Engine* engine, std::span<const TreeRun> runs,
                            const TreeOptions& options) {
  return PrefixTree(engine, runs, options).run();
}

}  // namespace logitlab
