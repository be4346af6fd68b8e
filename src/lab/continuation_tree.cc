#include "lab/continuation_tree.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <utility>

#include "base/env.h"
#include "engine/live_state.h"
#include "generate/prompt_run.h"
#include "generate/stopping.h"
#include "sampling/effective_config.h"
#include "sampling/processor_chain.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

// A sum of products of up to some hundred probabilities, each a quotient of sums over the
// vocabulary, is wrong by less than this: 10^5 terms of 2^-53 relative error each are 2e-11.
constexpr double kRounding = 1e-9;

// Prefixes at least so probable, compared with the best open one, go with it in one forward pass.
constexpr double kNearlyAsProbable = 0.25;

struct Snapshot {
  std::optional<LiveState> state;  // none: given up
};

// A prefix whose last token has not gone through the model.
struct Open {
  double probability = 0;
  std::vector<TokenId> ids;        // generated
  std::shared_ptr<Snapshot> from;  // holds all but the last
};
struct LikelierFirst {
  bool operator()(const Open& a, const Open& b) const {
    return a.probability != b.probability ? a.probability > b.probability : a.ids < b.ids;
  }
  bool operator()(const TreeLeaf& a, const TreeLeaf& b) const {
    return a.probability != b.probability ? a.probability > b.probability : a.ids < b.ids;
  }
};

// Sums of squared probabilities, by the number of tokens: two runs are still together after step t
// when they chose the same prefix of t + 1 tokens, or the same shorter text.
struct Together {
  std::vector<double> prefixes;  // of t + 1 tokens, at [t]
  std::vector<double> texts;     // finished after t + 1 tokens
  std::vector<double> open;      // given up after t + 1 tokens: what comes after is not known
};

class Expansion {
 public:
  Expansion(Engine* engine, const TreeRequest& request) : engine_(*engine), request_(request) {}

  Result<ContinuationTree> run();

 private:
  Status prepare();
  Status read_prompt();
  Status expand_batch();
  Result<LiveState> state_of(std::shared_ptr<Snapshot> from, std::span<const TokenId> ids);
  // The children of the prefix `ids`, of which `logits` is the next row.
  Status add_children(std::span<const TokenId> ids, double probability,
                      std::span<const float> logits, LiveState state);
  void add_child(std::vector<TokenId>* ids, TokenId id, double probability,
                 const std::shared_ptr<Snapshot>& snapshot);
  void add_leaf(const std::vector<TokenId>& ids, double probability, StopReason reason);
  void trim_open();
  void give_up(const Open& open);
  void keep_budget();
  void align(std::span<const TokenId> generated);
  void settle();
  [[nodiscard]] size_t bytes_of(size_t n_generated) const {
    return engine_.model().state_bytes(static_cast<int64_t>(request_.prompt.size() + n_generated));
  }
  [[nodiscard]] size_t nodes_left() const {
    return static_cast<size_t>(std::max<int64_t>(0, request_.max_nodes - tree_.nodes));
  }

  Engine& engine_;
  const TreeRequest& request_;
  GenerationConfig config_;
  GenerateOptions options_;
  std::optional<RunSettings> settings_;
  std::optional<StoppingCriteria> stopping_;
  ProcessorChain chain_;
  std::vector<TokenId> accepted_;  // by the chain
  StateLedger ledger_;
  size_t budget_ = 0;
  std::optional<LiveState> root_;
  std::vector<float> root_logits_;
  std::set<Open, LikelierFirst> open_;
  std::set<TreeLeaf, LikelierFirst> leaves_;
  Together together_;
  double given_up_mass_ = 0;
  std::vector<TokenId> sequence_;  // prompt and generated, of the prefix in hand
  std::vector<float> scores_;
  ContinuationTree tree_;
};

Status Expansion::prepare() {
  if (!(request_.mass > 0 && request_.mass <= 1)) {
    return fail(ErrorCode::kInvalidArgument, "mass: {} found, want more than 0 and at most 1",
                request_.mass);
  }
  if (request_.max_nodes < 1) {
    return fail(ErrorCode::kInvalidArgument, "max_nodes: {} found, want at least 1",
                request_.max_nodes);
  }
  config_ = merge_generation_config(request_.config, engine_.defaults()).config;
  config_.max_time.reset();
  if (is_beam_search(config_) || config_.guidance_scale.value_or(1) != 1) {
    return fail(ErrorCode::kInvalidArgument,
                "{} found: the tree of continuations is one of tokens chosen one at a time by one "
                "model; want num_beams=1 and no guidance_scale",
                is_beam_search(config_) ? "num_beams" : "guidance_scale");
  }
  options_ = engine_.completed({});
  options_.is_cancelled = request_.is_cancelled;
  settings_.emplace(RunSettings{engine_.context(), engine_.model(), config_, options_,
                                monotonic_seconds(), nullptr});
  RETURN_IF_ERROR(check_settings(&*settings_));
  budget_ = engine_.available_state_bytes() / 4;
  return read_prompt();
}

Status Expansion::read_prompt() {
  const PromptInput input{request_.prompt};
  ASSIGN_OR_RETURN(std::vector<PromptRun> planned, plan_prompts(*settings_, {&input, 1}, false));
  PromptRun& prompt = planned.front();
  const int64_t max_new_tokens = prompt.lengths.max_new_tokens;
  stopping_.emplace(config_, max_new_tokens, settings_->start, settings_->stop_texts);
  ChainOptions chain;
  chain.vocab_size = engine_.model().config().vocab_size;
  chain.prompt_length = prompt.length();
  chain.max_length = prompt.length() + max_new_tokens;
  chain.thinking = options_.thinking;
  ASSIGN_OR_RETURN(chain_, build_chain(config_, chain));
  together_.prefixes.assign(static_cast<size_t>(max_new_tokens), 0);
  together_.texts = together_.prefixes;
  together_.open = together_.prefixes;
  ASSIGN_OR_RETURN(const bool is_read, prefill(*settings_, &planned));
  if (!is_read) {
    tree_.is_cancelled = true;
    return {};
  }
  root_.emplace(std::move(*prompt.own_state), bytes_of(0), &ledger_);
  root_logits_ = std::move(prompt.logits);
  return {};
}

void Expansion::align(std::span<const TokenId> generated) {
  const auto [known, wanted] =
      std::mismatch(accepted_.begin(), accepted_.end(), generated.begin(), generated.end());
  chain_.rollback(accepted_.end() - known);
  std::for_each(wanted, generated.end(), [this](TokenId id) { chain_.accept(id); });
  accepted_.assign(generated.begin(), generated.end());
}

Status Expansion::add_children(std::span<const TokenId> ids, double probability,
                               std::span<const float> logits, LiveState state) {
  sequence_ = request_.prompt;
  sequence_.insert(sequence_.end(), ids.begin(), ids.end());
  scores_.assign(logits.begin(), logits.end());
  align(ids);
  chain_.apply(scores_, {sequence_, static_cast<int64_t>(request_.prompt.size())});
  const auto snapshot = std::make_shared<Snapshot>();
  snapshot->state.emplace(std::move(state));
  std::vector<TokenId> child(ids.begin(), ids.end());
  child.push_back(0);
  if (!config_.do_sample.value_or(false)) {
    add_child(&child, arg_max(scores_), probability, snapshot);
    return {};
  }
  // Refuses what a draw would refuse: NaN, or nothing left to choose.
  RETURN_IF_ERROR(sample(scores_, Draw{}));
  const double largest = *std::max_element(scores_.begin(), scores_.end());
  double sum = 0;
  for (const float score : scores_) {
    sum += std::exp(static_cast<double>(score) - largest);
  }
  for (size_t id = 0; id < scores_.size(); ++id) {
    const double share = std::exp(static_cast<double>(scores_[id]) - largest) / sum;
    if (share > 0) {
      add_child(&child, static_cast<TokenId>(id), probability * share, snapshot);
    }
  }
  return {};
}

void Expansion::add_child(std::vector<TokenId>* ids, TokenId id, double probability,
                          const std::shared_ptr<Snapshot>& snapshot) {
  ids->back() = id;
  const size_t step = ids->size() - 1;
  together_.prefixes[step] += probability * probability;
  const auto stop = stopping_->check(sequence_, id, static_cast<int64_t>(ids->size()));
  if (stop) {
    add_leaf(*ids, probability, stop->reason);
    return;
  }
  // As many open prefixes as can still be expanded are kept: a less probable one never will be.
  const size_t kept = std::max(nodes_left(), ContinuationTree::kMostOpen);
  if (open_.size() >= kept && probability <= open_.rbegin()->probability) {
    give_up({probability, *ids, nullptr});
    return;
  }
  open_.insert({probability, *ids, snapshot});
  trim_open();
}

void Expansion::add_leaf(const std::vector<TokenId>& ids, double probability, StopReason reason) {
  ++tree_.n_texts;
  tree_.mass += probability;
  together_.texts[ids.size() - 1] += probability * probability;
  if (leaves_.size() >= ContinuationTree::kMostTexts &&
      probability <= leaves_.rbegin()->probability) {
    return;
  }
  leaves_.insert({ids, probability, reason});
  if (leaves_.size() > ContinuationTree::kMostTexts) {
    leaves_.erase(std::prev(leaves_.end()));
  }
}

void Expansion::give_up(const Open& open) {
  given_up_mass_ += open.probability;
  together_.open[open.ids.size() - 1] += open.probability * open.probability;
}

void Expansion::trim_open() {
  while (open_.size() > std::max(nodes_left(), ContinuationTree::kMostOpen)) {
    give_up(*open_.rbegin());
    open_.erase(std::prev(open_.end()));
  }
}

// The least probable ones are the last to be needed, if ever.
void Expansion::keep_budget() {
  for (auto open = open_.rbegin(); open != open_.rend() && ledger_.live > budget_; ++open) {
    open->from->state.reset();
  }
}

Result<LiveState> Expansion::state_of(std::shared_ptr<Snapshot> from,
                                      std::span<const TokenId> ids) {
  if (!from->state) {
    LiveState state = root_->fork();
    const auto held = ids.first(ids.size() - 1);
    RETURN_IF_ERROR(replay_tokens(engine_.context(), engine_.model(), held, &state.state()));
    tree_.replayed += static_cast<int64_t>(held.size());
    state.set_bytes(bytes_of(held.size()));
    from->state.emplace(std::move(state));
  }
  if (from.use_count() == 1) {
    return std::move(*from->state);
  }
  return from->state->fork();
}

Status Expansion::expand_batch() {
  std::vector<Open> batch;
  const double least = kNearlyAsProbable * open_.begin()->probability;
  const size_t most =
      std::min(static_cast<size_t>(std::max<int64_t>(1, request_.max_rows)), nodes_left());
  while (!open_.empty() && batch.size() < most && open_.begin()->probability >= least) {
    batch.push_back(std::move(open_.extract(open_.begin()).value()));
  }
  std::vector<LiveState> states;
  states.reserve(batch.size());  // chunks point at them
  std::vector<SequenceChunk> chunks;
  for (Open& open : batch) {
    ASSIGN_OR_RETURN(LiveState state, state_of(std::exchange(open.from, nullptr), open.ids));
    states.push_back(std::move(state));
    chunks.push_back({&states.back().state(), std::span(open.ids).last(1), LogitRows::kLast});
  }
  ASSIGN_OR_RETURN(const Logits logits, settings_->forward(chunks));
  tree_.nodes += static_cast<int64_t>(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    states[i].set_bytes(bytes_of(batch[i].ids.size()));
    RETURN_IF_ERROR(add_children(batch[i].ids, batch[i].probability,
                                 logits.row(static_cast<int64_t>(i)), std::move(states[i])));
  }
  keep_budget();
  return {};
}

// Sums over prefixes become probabilities of having parted.
void Expansion::settle() {
  for (const Open& open : open_) {
    tree_.open_mass += open.probability;
    together_.open[open.ids.size() - 1] += open.probability * open.probability;
    if (tree_.open.size() < ContinuationTree::kMostOpen) {
      tree_.open.push_back({open.ids, open.probability, StopReason::kCancelled});
    }
  }
  tree_.open_mass += given_up_mass_;
  tree_.leaves.assign(leaves_.begin(), leaves_.end());
  tree_.is_complete = tree_.mass + kRounding >= request_.mass;
  double ended = 0;    // texts that ended before this step
  double unknown = 0;  // prefixes given up before it
  for (size_t step = 0; step < together_.prefixes.size(); ++step) {
    const double known = together_.prefixes[step] + ended;
    tree_.parted_by_step.push_back(
        {std::clamp(1 - known - unknown, 0.0, 1.0), std::clamp(1 - known, 0.0, 1.0)});
    ended += together_.texts[step];
    unknown += together_.open[step];
  }
  tree_.same_text = {std::min(1.0, ended), std::min(1.0, ended + unknown)};
}

Result<ContinuationTree> Expansion::run() {
  RETURN_IF_ERROR(prepare());
  if (!tree_.is_cancelled) {
    RETURN_IF_ERROR(add_children({}, 1.0, root_logits_, root_->fork()));
  }
  while (!open_.empty() && nodes_left() > 0 && tree_.mass + kRounding < request_.mass) {
    if (request_.is_cancelled && request_.is_cancelled()) {
      tree_.is_cancelled = true;
      break;
    }
    RETURN_IF_ERROR(expand_batch());
    if (request_.on_progress) {
      request_.on_progress(tree_.mass, tree_.nodes);
    }
  }
  settle();
  return std::move(tree_);
}

}  // namespace

Result<ContinuationTree> expand_tree(Engine* engine, const TreeRequest& request) {
  return Expansion(engine, request).run();
}

Interval expected_distinct(const ContinuationTree& tree, int64_t n) {
  const auto runs = static_cast<double>(n);
  // 1 - (1 - p)^n, exact for small p.
  const auto occurs = [runs](double p) {
    return -std::expm1(runs * std::log1p(-std::min(p, 1.0)));
  };
  Interval expected;
  double listed = 0;
  for (const TreeLeaf& leaf : tree.leaves) {
    expected.low += leaf.probability >= 1 ? 1 : occurs(leaf.probability);
    listed += leaf.probability;
  }
  const double rest = std::max(0.0, 1 - listed);
  expected.high = std::min(runs, expected.low + runs * rest);
  expected.low += rest > kRounding ? occurs(rest) : 0;
  expected.high = std::max(expected.high, expected.low);
  return expected;
}

}  // namespace logitlab
