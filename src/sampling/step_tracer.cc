#include "sampling/step_tracer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "sampling/row_kernels.h"
#include "sampling/row_statistics.h"
#include "sampling/selection.h"

namespace logitlab {
namespace {

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr size_t kMostTied = 32;

// Transforms that move the whole row by one rule: which tokens they changed says nothing.
constexpr std::array<std::string_view, 3> kWholeRow = {"temperature", "renormalize_logits",
                                                       "guidance_scale"};

class IdSet {
 public:
  explicit IdSet(int64_t vocab_size) : words_(static_cast<size_t>(vocab_size + 63) / 64) {}
  void clear() { std::fill(words_.begin(), words_.end(), 0); }
  void insert(TokenId id) {
    const auto bit = static_cast<size_t>(id);
    if (id >= 0 && bit / 64 < words_.size()) {
      words_[bit / 64] |= uint64_t{1} << bit % 64;
    }
  }
  [[nodiscard]] bool contains(TokenId id) const {
    const auto bit = static_cast<size_t>(id);
    return (words_[bit / 64] >> bit % 64 & 1) != 0;
  }

 private:
  std::vector<uint64_t> words_;
};

// What the choice saw, as a distribution.
struct Choice {
  bool exists = false;
  double largest = 0;
  double sum = 0;
  double entropy = kNoNumber;

  [[nodiscard]] double probability(float score) const {
    return exists ? std::exp(static_cast<double>(score) - largest) / sum : kNoNumber;
  }
};

// A few scores, exactly.
Choice choice_of(std::span<const float> scores) {
  Choice choice;
  choice.largest = kMinusInfinity;
  for (const float score : scores) {
    if (std::isnan(score)) {
      return choice;
    }
    choice.largest = std::max(choice.largest, static_cast<double>(score));
  }
  choice.exists = std::isfinite(choice.largest);
  if (!choice.exists) {
    return choice;
  }
  double weighted = 0;
  for (const float score : scores) {
    const double difference = static_cast<double>(score) - choice.largest;
    const double term = std::exp(difference);
    choice.sum += term;
    weighted += term > 0 ? term * difference : 0.0;
  }
  choice.entropy = std::max(0.0, std::log(choice.sum) - weighted / choice.sum);
  return choice;
}

}  // namespace

// The scores between two stages are known in one of two ways. While many tokens are alive: as
// `entering`, the whole row, looked at with passes over the vocabulary. Once a stage has left few:
// as `survivors` with their scores, so that later filters cost next to nothing.
struct StepTracer::Impl {
  explicit Impl(const StepTracerOptions& tracer_options)
      : options(tracer_options),
        raw(options.vocab_size),
        processed(options.vocab_size),
        in_prompt(options.vocab_size),
        in_answer(options.vocab_size),
        most_survivors(std::max<int64_t>(64, options.vocab_size / 16)) {
    const auto vocab_size = static_cast<size_t>(options.vocab_size);
    buffer.resize(vocab_size);
    survivors.reserve(vocab_size);
    survivor_scores.reserve(vocab_size);
    touched.reserve(vocab_size);
    followed.reserve(static_cast<size_t>(options.n_candidates) + 1);
    step.tied_at_max.reserve(kMostTied);
    step.candidates.reserve(static_cast<size_t>(options.n_candidates) + 1);
  }

  void begin(std::span<const float> row, std::span<const float> first_scores);
  void find_candidates();
  void filter(std::span<const float> scores, TracedStage* stage);
  void filter_survivors(std::span<const float> scores, TracedStage* stage);
  void transform(std::span<const float> scores, bool is_counted, TracedStage* stage);
  void list_survivors(std::span<const float> scores);
  void follow_candidates(std::span<const float> scores, int32_t stage);
  Choice final_distribution(std::span<const float> scores);
  void settle_candidates(std::span<const float> scores, TokenId id, const Choice& choice);
  void take_draw(std::span<const float> scores, const Draw& draw);
  [[nodiscard]] int64_t raw_rank(float logit) const;

  StepTracerOptions options;
  RowStatistics raw;        // of the logits
  RowStatistics processed;  // of the scores, when there are too many survivors to list
  IdSet in_prompt;
  IdSet in_answer;
  int64_t most_survivors;  // that are kept as a list

  TracedStep step;
  size_t n_stages = 0;
  std::span<const float> logits;
  std::span<const float> entering;  // scores before the next stage, unless is_listed
  std::vector<float> buffer;        // of `entering`, once a stage has changed it
  bool is_listed = false;
  bool is_raw = false;             // the choice saw the logits themselves
  std::vector<TokenId> survivors;  // ascending
  std::vector<float> survivor_scores;
  std::vector<TokenId> touched;
  std::vector<TracedCandidate> followed;  // the candidates after the last stage
  Choice final_choice;
  bool is_settled = false;  // the two above are of this step
  TokenId last_id = -1;     // chosen, and not among in_answer yet
  int64_t n_survivors = 0;
  double mass = 0;
};

void StepTracer::Impl::begin(std::span<const float> row, std::span<const float> first_scores) {
  CHECK(static_cast<int64_t>(row.size()) == options.vocab_size) << row.size();
  CHECK(first_scores.size() == row.size()) << first_scores.size();
  in_answer.insert(last_id);
  last_id = -1;
  is_settled = false;
  logits = row;
  entering = first_scores;
  is_listed = false;
  n_stages = 0;
  raw.measure(row);
  n_survivors = first_scores.data() == row.data() ? raw.n_alive() : count_alive(first_scores);
  mass = n_survivors == options.vocab_size ? (raw.exists() ? 1.0 : kNoNumber)
                                           : raw.alive_mass(first_scores);
  step.raw_entropy = raw.entropy();
  step.log_sum_exp = raw.log_sum_exp();
  step.largest_logit = raw.largest();
  step.n_tied_at_max = raw.tied_at_largest(kMostTied, &step.tied_at_max);
  step.logits_hash = hash_logits(row);
  if (options.full_rows) {
    step.logits.assign(row.begin(), row.end());
  }
  find_candidates();
}

// Token 0 is followed too: arg_max answers with it when every score is -inf.
void StepTracer::Impl::find_candidates() {
  raw.top(options.n_candidates, &touched);
  step.candidates.clear();
  if (std::find(touched.begin(), touched.end(), 0) == touched.end()) {
    touched.push_back(0);
  }
  for (const TokenId id : touched) {
    const float logit = logits[static_cast<size_t>(id)];
    TracedCandidate candidate;
    candidate.id = id;
    candidate.logit = logit;
    candidate.raw_probability = raw.probability(logit);
    candidate.in_prompt = in_prompt.contains(id);
    candidate.in_answer = in_answer.contains(id);
    step.candidates.push_back(candidate);
  }
}

void StepTracer::Impl::list_survivors(std::span<const float> scores) {
  alive_ids(scores, &survivors);
  survivor_scores.clear();
  for (const TokenId id : survivors) {
    survivor_scores.push_back(scores[static_cast<size_t>(id)]);
  }
  is_listed = true;
}

void StepTracer::Impl::filter(std::span<const float> scores, TracedStage* stage) {
  if (is_listed) {
    filter_survivors(scores, stage);
    return;
  }
  const int64_t n_alive = count_alive(scores);
  if (n_alive == n_survivors) {
    return;
  }
  n_survivors = n_alive;
  float cut = 0;
  if (n_alive <= most_survivors) {
    list_survivors(scores);
    mass = raw.mass(survivors);
    cut = lowest_alive(survivor_scores);
    stage->tied_kept = count_equal(survivor_scores, cut);
  } else {
    mass = raw.alive_mass(scores);
    cut = lowest_alive(scores);
    stage->tied_kept = count_equal(scores, cut);
  }
  if (std::isfinite(cut)) {
    stage->cut_score = static_cast<double>(cut);
    stage->tied_dropped = count_equal(entering, cut) - stage->tied_kept;
  } else {
    stage->tied_kept = 0;
  }
  if (!is_listed) {
    std::copy(scores.begin(), scores.end(), buffer.begin());
    entering = buffer;
  }
}

void StepTracer::Impl::filter_survivors(std::span<const float> scores, TracedStage* stage) {
  const auto stays = [&](size_t k) {
    return scores[static_cast<size_t>(survivors[k])] != kMinusInf;
  };
  size_t kept = 0;
  float cut = std::numeric_limits<float>::infinity();
  for (size_t k = 0; k < survivors.size(); ++k) {
    if (stays(k)) {
      ++kept;
      cut = std::min(cut, survivor_scores[k]);
    }
  }
  if (kept == survivors.size()) {
    return;
  }
  const bool has_cut = std::isfinite(cut);
  stage->cut_score = has_cut ? static_cast<double>(cut) : kNoNumber;
  size_t next = 0;
  for (size_t k = 0; k < survivors.size(); ++k) {
    const bool is_tied = has_cut && survivor_scores[k] == cut;
    if (stays(k)) {
      stage->tied_kept += is_tied ? 1 : 0;
      survivors[next] = survivors[k];
      survivor_scores[next] = survivor_scores[k];
      ++next;
    } else {
      stage->tied_dropped += is_tied ? 1 : 0;
    }
  }
  survivors.resize(kept);
  survivor_scores.resize(kept);
  n_survivors = static_cast<int64_t>(kept);
  mass = raw.mass(survivors);
}

void StepTracer::Impl::transform(std::span<const float> scores, bool is_counted,
                                 TracedStage* stage) {
  if (is_listed) {
    std::fill(buffer.begin(), buffer.end(), kMinusInf);
    for (size_t k = 0; k < survivors.size(); ++k) {
      buffer[static_cast<size_t>(survivors[k])] = survivor_scores[k];
    }
    entering = buffer;
    is_listed = false;
  }
  if (is_counted) {
    changed_ids(entering, scores, &touched);
    stage->changed = static_cast<int64_t>(touched.size());
    stage->changed_in_prompt = 0;
    stage->changed_in_answer = 0;
    for (const TokenId id : touched) {
      if (in_prompt.contains(id)) {
        ++stage->changed_in_prompt;
      } else if (in_answer.contains(id)) {
        ++stage->changed_in_answer;
      }
    }
  }
  std::copy(scores.begin(), scores.end(), buffer.begin());
  entering = buffer;
  n_survivors = count_alive(scores);
  if (n_survivors == options.vocab_size) {
    mass = raw.exists() ? 1.0 : kNoNumber;
  } else if (n_survivors <= most_survivors) {
    list_survivors(scores);
    mass = raw.mass(survivors);
  } else {
    mass = raw.alive_mass(scores);
  }
}

void StepTracer::Impl::follow_candidates(std::span<const float> scores, int32_t stage) {
  for (TracedCandidate& candidate : step.candidates) {
    if (scores[static_cast<size_t>(candidate.id)] != kMinusInf) {
      candidate.dropped_by = -1;
    } else if (candidate.dropped_by < 0) {
      candidate.dropped_by = stage;
    }
  }
}

Choice StepTracer::Impl::final_distribution(std::span<const float> scores) {
  is_raw = false;
  if (is_listed) {
    return choice_of(survivor_scores);
  }
  is_raw = n_stages == 0 && (scores.data() == logits.data() ||
                             std::memcmp(scores.data(), logits.data(), scores.size_bytes()) == 0);
  if (!is_raw) {
    processed.measure(scores);
  }
  const RowStatistics& row = is_raw ? raw : processed;
  Choice choice;
  choice.exists = row.exists();
  choice.largest = static_cast<double>(row.largest());
  choice.sum = row.sum();
  choice.entropy = row.entropy();
  return choice;
}

// Completes the candidates with what became of them, and adds the chosen token when it is not among
// them.
void StepTracer::Impl::settle_candidates(std::span<const float> scores, TokenId id,
                                         const Choice& choice) {
  std::vector<TracedCandidate>& candidates = step.candidates;
  const auto n_best = static_cast<size_t>(std::min(options.n_candidates, options.vocab_size));
  const bool is_best =
      std::any_of(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(n_best),
                  [id](const TracedCandidate& c) { return c.id == id; });
  TracedCandidate chosen;
  if (!is_best) {
    const float logit = logits[static_cast<size_t>(id)];
    chosen.id = id;
    chosen.logit = logit;
    chosen.raw_probability = raw.probability(logit);
    chosen.in_prompt = in_prompt.contains(id);
    chosen.in_answer = in_answer.contains(id);
    if (candidates.size() > n_best && candidates[n_best].id == id) {
      chosen.dropped_by = candidates[n_best].dropped_by;
    } else if (scores[static_cast<size_t>(id)] == kMinusInf) {
      chosen.dropped_by = static_cast<int32_t>(n_stages) - 1;
    }
  }
  candidates.resize(n_best);
  if (!is_best) {
    candidates.push_back(chosen);
  }
  touched.clear();
  for (TracedCandidate& candidate : candidates) {
    candidate.score = scores[static_cast<size_t>(candidate.id)];
    candidate.probability = choice.probability(candidate.score);
    touched.push_back(candidate.id);
  }
  step.tail_log_sum_exp = raw.tail_log_sum_exp(touched);
}

void StepTracer::Impl::take_draw(std::span<const float> scores, const Draw& draw) {
  step.draw = draw_exponential(draw, step.id);
  step.draw_key = static_cast<double>(step.score) - std::log(step.draw);
  const std::span<const TokenId> ids =
      is_listed ? std::span<const TokenId>(survivors) : std::span<const TokenId>();
  const DrawKey next = runner_up(scores, ids, draw, step.id);
  step.draw_runner_up = next.id;
  step.draw_margin = step.draw_key - next.key;
}

int64_t StepTracer::Impl::raw_rank(float logit) const {
  const auto n_best = static_cast<size_t>(std::min(options.n_candidates, options.vocab_size));
  // All larger logits are candidates when one of them is not larger.
  if (raw.exists() && n_best > 0 && step.candidates[n_best - 1].logit <= logit) {
    return 1 + std::count_if(step.candidates.begin(), step.candidates.end(),
                             [logit](const TracedCandidate& c) { return c.logit > logit; });
  }
  return rank_in(logits, logit);
}

StepTracer::StepTracer(const StepTracerOptions& options) {
  CHECK(options.vocab_size >= 1) << options.vocab_size;
  CHECK(options.n_candidates >= 0) << options.n_candidates;
  impl_ = std::make_unique<Impl>(options);
}

StepTracer::~StepTracer() = default;

void StepTracer::begin_sequence(std::span<const TokenId> prompt,
                                std::span<const TokenId> generated) {
  impl_->in_prompt.clear();
  impl_->in_answer.clear();
  impl_->last_id = -1;
  for (const TokenId id : prompt) {
    impl_->in_prompt.insert(id);
  }
  for (const TokenId id : generated) {
    impl_->in_answer.insert(id);
  }
}

void StepTracer::begin_step(std::span<const float> logits) {
  impl_->begin(logits, logits);
}

void StepTracer::begin_step(std::span<const float> logits, std::span<const float> entering) {
  impl_->begin(logits, entering);
}

void StepTracer::after_stage(int64_t stage, const LogitsProcessor& processor,
                             std::span<const float> scores) {
  Impl& impl = *impl_;
  CHECK(static_cast<size_t>(stage) == impl.n_stages) << stage << ", want " << impl.n_stages;
  // Elements are reused, so that a long name keeps its memory.
  if (impl.n_stages == impl.step.stages.size()) {
    impl.step.stages.emplace_back();
  }
  TracedStage& traced = impl.step.stages[impl.n_stages++];
  const std::string_view name = processor.name();
  traced.name.assign(name);
  const Cut cut = processor.cut();
  traced.measure.assign(logitlab::name(cut.measure));
  traced.threshold = cut.threshold;
  traced.cut_score = kNoNumber;
  traced.tied_kept = 0;
  traced.tied_dropped = 0;
  traced.changed = -1;
  traced.changed_in_prompt = -1;
  traced.changed_in_answer = -1;
  if (processor.kind() == ProcessorKind::kFilter) {
    impl.filter(scores, &traced);
  } else {
    const bool is_counted = std::find(kWholeRow.begin(), kWholeRow.end(), name) == kWholeRow.end();
    impl.transform(scores, is_counted, &traced);
  }
  traced.survivors = impl.n_survivors;
  traced.mass = impl.mass;
  impl.follow_candidates(scores, static_cast<int32_t>(stage));
}

TracedStep& StepTracer::end_step(std::span<const float> scores, TokenId id,
                                 const std::optional<Draw>& draw) {
  Impl& impl = *impl_;
  TracedStep& step = impl.step;
  CHECK(id >= 0 && id < impl.options.vocab_size) << id;
  CHECK(scores.size() == impl.logits.size()) << scores.size();
  step.stages.resize(impl.n_stages);
  step.id = id;
  step.logit = impl.logits[static_cast<size_t>(id)];
  step.score = scores[static_cast<size_t>(id)];
  if (!impl.is_settled) {
    impl.final_choice = impl.final_distribution(scores);
    impl.followed = step.candidates;
    impl.is_settled = true;
  } else {
    step.candidates = impl.followed;
  }
  const Choice& choice = impl.final_choice;
  step.raw_probability = impl.raw.probability(step.logit);
  step.probability = choice.probability(step.score);
  step.entropy = choice.entropy;
  impl.settle_candidates(scores, id, choice);
  step.raw_rank = impl.raw_rank(step.logit);
  step.rank = impl.is_raw      ? step.raw_rank
              : impl.is_listed ? rank_in(impl.survivor_scores, step.score)
                               : rank_in(scores, step.score);
  step.draw = kNoNumber;
  step.draw_key = kNoNumber;
  step.draw_margin = kNoNumber;
  step.draw_runner_up = -1;
  if (draw) {
    impl.take_draw(scores, *draw);
  }
  impl.last_id = id;
  return step;
}

uint64_t hash_logits(std::span<const float> logits) {
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15ULL;
  constexpr size_t kLanes = 8;
  std::array<uint64_t, kLanes> lanes;
  for (size_t j = 0; j < kLanes; ++j) {
    lanes[j] = kFactor * (j + 1);
  }
  const auto word = [&](size_t w) {
    const uint64_t low = std::bit_cast<uint32_t>(logits[2 * w]);
    const uint64_t high =
        2 * w + 1 < logits.size() ? std::bit_cast<uint32_t>(logits[2 * w + 1]) : 0U;
    return low | high << 32;
  };
  const size_t n_words = (logits.size() + 1) / 2;
  const size_t n_whole = logits.size() / 2 / kLanes * kLanes;
  for (size_t w = 0; w < n_whole; w += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      lanes[j] = (lanes[j] ^ word(w + j)) * kFactor;
    }
  }
  for (size_t w = n_whole; w < n_words; ++w) {
    lanes[w - n_whole] = (lanes[w - n_whole] ^ word(w)) * kFactor;
  }
  // A product's high bits know all bits of its factors, its low bits only the low ones: so they are
  // folded down between the lanes.
  uint64_t hash = logits.size();
  for (const uint64_t lane : lanes) {
    hash = (hash ^ lane ^ lane >> 32) * kFactor;
    hash ^= hash >> 29;
  }
  return hash;
}

}  // namespace logitlab
