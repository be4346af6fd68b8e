#include "generate/strategies/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace logitlab {
namespace {

constexpr float kNotYet = -1e9F;
// No exponential number is below 2^-53, so no -log of one is above this.
constexpr double kLargestGumbel = 37;

// The first n places of `order` that a stable sort by falling score would give.
template <typename Score>
void best_first(std::vector<int64_t>* order, size_t count, size_t n, const Score& score) {
  order->resize(count);
  std::iota(order->begin(), order->end(), 0);
  std::stable_sort(order->begin(), order->end(),
                   [&](int64_t a, int64_t b) { return score(a) > score(b); });
  order->resize(n);
}

}  // namespace

BeamSearch::BeamSearch(const BeamSettings& settings, std::span<const TokenId> prompt,
                       StoppingCriteria stopping)
    : settings_(settings),
      prompt_length_(static_cast<int64_t>(prompt.size())),
      stopping_(std::move(stopping)) {
  CHECK(settings.n_candidates >= settings.n_beams);
  Beam beam;
  beam.ids.assign(prompt.begin(), prompt.end());
  running_.assign(static_cast<size_t>(settings.n_beams), beam);
  // All beams are the same at first: only one of them may be continued.
  for (size_t i = 1; i < running_.size(); ++i) {
    running_[i].score = kNotYet;
  }
  beam.score = kNotYet;
  finished_.assign(static_cast<size_t>(settings.n_beams), beam);
}

float BeamSearch::penalty(int64_t length) const {
  return static_cast<float>(std::pow(static_cast<double>(length), settings_.length_penalty));
}

bool BeamSearch::pool_is_full() const {
  return std::all_of(finished_.begin(), finished_.end(),
                     [](const Beam& beam) { return beam.stop.has_value(); });
}

void BeamSearch::choose_candidates(std::span<const float> table) {
  const auto wanted = static_cast<size_t>(settings_.n_candidates);
  // A heap with the worst candidate on top. Places come in rising order, so an equal key that comes
  // later loses.
  const auto is_better = [](const Candidate& a, const Candidate& b) {
    return a.key > b.key || (a.key == b.key && a.place < b.place);
  };
  Draw draw = settings_.draw.value_or(Draw{});
  draw.step = static_cast<uint32_t>(steps_);
  candidates_.clear();
  for (size_t place = 0; place < table.size(); ++place) {
    // A NaN would make the order meaningless; it is the last choice.
    const double score = std::isnan(table[place]) ? -std::numeric_limits<double>::infinity()
                                                  : static_cast<double>(table[place]);
    const bool is_full = candidates_.size() == wanted;
    const double bound = settings_.draw ? score + kLargestGumbel : score;
    if (is_full && !(bound > candidates_.front().key)) {
      continue;
    }
    const double key =
        settings_.draw ? score - std::log(draw_beam_exponential(draw, place)) : score;
    if (is_full) {
      if (!(key > candidates_.front().key)) {
        continue;
      }
      std::pop_heap(candidates_.begin(), candidates_.end(), is_better);
      candidates_.pop_back();
    }
    candidates_.push_back({place, table[place], key, std::nullopt});
    std::push_heap(candidates_.begin(), candidates_.end(), is_better);
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), is_better);
}

void BeamSearch::check_stops() {
  const auto vocab_size = static_cast<uint64_t>(settings_.vocab_size);
  for (Candidate& candidate : candidates_) {
    candidate.stop =
        stopping_.check(running_[candidate.place / vocab_size].ids,
                        static_cast<TokenId>(candidate.place % vocab_size), steps_ + 1);
  }
}

Beam BeamSearch::extended(const Candidate& candidate) const {
  const auto vocab_size = static_cast<uint64_t>(settings_.vocab_size);
  Beam beam = running_[candidate.place / vocab_size];
  beam.ids.push_back(static_cast<TokenId>(candidate.place % vocab_size));
  beam.parents.push_back(static_cast<int64_t>(candidate.place / vocab_size));
  beam.score = candidate.score;
  return beam;
}

void BeamSearch::update_finished() {
  const auto n = static_cast<size_t>(settings_.n_beams);
  const bool is_closed = pool_is_full() && settings_.early_stopping == EarlyStopping::kTrue;
  const float divisor = penalty(steps_ + 1);
  const auto is_eligible = [&](size_t j) { return candidates_[j].stop.has_value() && j < n; };
  const auto finished_score = [&](size_t j) {
    float score = candidates_[j].score / divisor;
    score += is_closed ? kNotYet : 0.0F;
    score += is_improvable_ ? 0.0F : kNotYet;
    score += is_eligible(j) ? 0.0F : kNotYet;
    return score;
  };
  best_first(&order_, n + candidates_.size(), n, [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    return at < n ? finished_[at].score : finished_score(at - n);
  });
  std::vector<Beam> pool;
  for (const int64_t i : order_) {
    const auto at = static_cast<size_t>(i);
    if (at < n) {
      pool.push_back(std::move(finished_[at]));
      continue;
    }
    const size_t j = at - n;
    pool.push_back(extended(candidates_[j]));
    pool.back().score = finished_score(j);
    pool.back().stop = is_eligible(j) ? candidates_[j].stop : std::nullopt;
  }
  finished_ = std::move(pool);
}

void BeamSearch::update_running() {
  const auto n = static_cast<size_t>(settings_.n_beams);
  const auto running_score = [&](int64_t j) {
    const Candidate& candidate = candidates_[static_cast<size_t>(j)];
    return candidate.score + (candidate.stop ? kNotYet : 0.0F);
  };
  best_first(&order_, candidates_.size(), n, running_score);
  std::vector<Beam> next;
  next.reserve(n);
  for (const int64_t j : order_) {
    next.push_back(extended(candidates_[static_cast<size_t>(j)]));
    next.back().score = running_score(j);
  }
  running_ = std::move(next);
}

// Called after the step was counted.
void BeamSearch::update_end() {
  const bool assumes_longest =
      settings_.early_stopping == EarlyStopping::kNever && settings_.length_penalty > 0;
  const int64_t length = assumes_longest ? settings_.max_new_tokens : steps_;
  const float best = running_.front().score / penalty(length);
  // The pool is sorted, best first.
  const float worst = finished_.back().score;
  is_improvable_ =
      is_improvable_ && std::any_of(finished_.begin(), finished_.end(), [&](const Beam& beam) {
        return best > (beam.stop ? worst : kNotYet);
      });
  // Where every candidate stops the running scores mean nothing: that reason comes first.
  if (std::all_of(candidates_.begin(), candidates_.end(),
                  [](const Candidate& candidate) { return candidate.stop.has_value(); })) {
    why_ = "every candidate stops";
  } else if (settings_.early_stopping == EarlyStopping::kTrue && pool_is_full()) {
    why_ = "num_beams hypotheses are finished";
  } else if (!is_improvable_) {
    why_ = "no running beam can beat the finished ones";
  }
}

void BeamSearch::record(std::span<const int64_t> next) {
  const auto vocab_size = static_cast<uint64_t>(settings_.vocab_size);
  const auto traced = [&](const Candidate& candidate, double score) {
    return TracedBeam{static_cast<TokenId>(candidate.place % vocab_size),
                      static_cast<int64_t>(candidate.place / vocab_size), score};
  };
  traced_.candidates.clear();
  traced_.candidate_stops.clear();
  for (const Candidate& candidate : candidates_) {
    traced_.candidates.push_back(traced(candidate, candidate.score));
    traced_.candidate_stops.push_back(candidate.stop.has_value());
  }
  traced_.running.clear();
  for (size_t i = 0; i < next.size(); ++i) {
    traced_.running.push_back(traced(candidates_[static_cast<size_t>(next[i])], running_[i].score));
  }
  traced_.finished.clear();
  for (const Beam& beam : finished_) {
    if (beam.stop) {
      traced_.finished.push_back(beam.score);
    }
  }
  traced_.improvable = is_improvable_;
}

void BeamSearch::advance(std::span<float> rows) {
  CHECK(!is_done());
  const auto vocab_size = static_cast<size_t>(settings_.vocab_size);
  CHECK(rows.size() == running_.size() * vocab_size);
  for (size_t beam = 0; beam < running_.size(); ++beam) {
    for (float& score : rows.subspan(beam * vocab_size, vocab_size)) {
      score += running_[beam].score;
    }
  }
  choose_candidates(rows);
  check_stops();
  update_finished();
  update_running();
  ++steps_;
  update_end();
  record(order_);
}

std::vector<Beam> BeamSearch::best(int64_t n) const {
  std::vector<Beam> beams;
  for (const Beam& beam : finished_) {
    if (beam.stop || is_done()) {
      beams.push_back(beam);
    }
  }
  for (const Beam& beam : running_) {
    beams.push_back(beam);
    beams.back().score /= steps_ > 0 ? penalty(steps_) : 1.0F;
  }
  beams.resize(std::min(beams.size(), static_cast<size_t>(n)));
  return beams;
}

}  // namespace logitlab
