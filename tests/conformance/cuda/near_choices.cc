#include "near_choices.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace logitlab {
namespace {

// One way through the mixtures for one row.
struct Attempt {
  double error = std::numeric_limits<double>::infinity();
  bool is_turned = false;
  std::optional<DecodeState> state;
};

class RowFollower {
 public:
  RowFollower(const SmallModel& model, ExecContext* context, double layer_error, double own_error)
      : model_(model), context_(*context), layer_error_(layer_error), own_error_(own_error) {}

  Attempt nearest(const DecodeState& before, TokenId id, std::span<const float> got) {
    best_ = {};
    attempt(before, id, got, {}, 0);
    return std::move(best_);
  }

 private:
  // All choices of the layers from `first` on, those of the layers before it settled by `barred`.
  void attempt(const DecodeState& before, TokenId id, std::span<const float> got,
               const std::vector<Barred>& barred, size_t first) {
    DecodeState state = before.fork();
    std::vector<RowChoice> choices;
    const std::vector<float> want = model_.step(context_, &state, id, barred, &choices);
    const double error = row_error(got, want);
    if (!best_.state || error < best_.error) {
      best_ = {error, !barred.empty(), std::move(state)};
    }
    for (const RowChoice& choice : choices) {
      if (choice.layer < first) {
        continue;
      }
      const double square = own_error_ + static_cast<double>(choice.layer) * layer_error_;
      for (const std::vector<Barred>& more : choices_within(choice, std::sqrt(square))) {
        if (!more.empty()) {
          std::vector<Barred> all = barred;
          all.insert(all.end(), more.begin(), more.end());
          attempt(before, id, got, all, choice.layer + 1);
        }
      }
    }
  }

  const SmallModel& model_;
  ExecContext& context_;
  double layer_error_;
  double own_error_;
  Attempt best_;
};

// Adds the sets that take `n` of `open` from index `at` on; `out`: who is left out so far.
void add_sets(const RowChoice& choice, std::span<const size_t> open, size_t n,
              std::vector<Barred>* out, std::vector<std::vector<Barred>>* sets) {
  if (open.empty()) {
    if (n == 0) {
      sets->push_back(*out);
    }
    return;
  }
  if (n > 0) {
    add_sets(choice, open.subspan(1), n - 1, out, sets);
  }
  if (open.size() > n) {
    out->push_back({choice.layer, choice.experts[open[0]].expert});
    add_sets(choice, open.subspan(1), n, out, sets);
    out->pop_back();
  }
}

}  // namespace

double row_error(std::span<const float> got, std::span<const float> want) {
  double error = 0;
  double square = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    square += double{want[i]} * want[i];
  }
  return error / square;
}

std::vector<std::vector<Barred>> choices_within(const RowChoice& choice, double error) {
  const std::vector<Candidate>& experts = choice.experts;
  std::vector<size_t> open;
  size_t n_open_chosen = 0;
  for (size_t i = 0; i < experts.size(); ++i) {
    const bool is_chosen = i < choice.n_chosen;
    const size_t first = is_chosen ? choice.n_chosen : 0;
    const size_t last = is_chosen ? experts.size() : choice.n_chosen;
    bool may_turn = false;
    for (size_t other = first; other < last; ++other) {
      const double lead = std::fabs(experts[i].choice - experts[other].choice);
      const double deviation = error * std::hypot(experts[i].spread, experts[other].spread);
      may_turn = may_turn || lead <= kTurnedDeviations * deviation;
    }
    if (may_turn) {
      open.push_back(i);
      n_open_chosen += is_chosen ? 1 : 0;
    }
  }
  // The best first, so that the reference's own set comes first. It needs nobody barred.
  std::vector<std::vector<Barred>> sets;
  std::vector<Barred> out;
  add_sets(choice, open, n_open_chosen, &out, &sets);
  sets.front().clear();
  return sets;
}

Agreement follow(const SmallModel& model, ExecContext& context, std::span<const TokenId> ids,
                 std::span<const float> got, double layer_error, double own_error) {
  RowFollower follower(model, &context, layer_error, own_error);
  const auto vocab = static_cast<size_t>(model.vocab_size());
  Agreement agreement;
  DecodeState state = model.make_host_state();
  for (size_t row = 0; row < ids.size(); ++row) {
    Attempt best = follower.nearest(state, ids[row], got.subspan(row * vocab, vocab));
    agreement.errors.push_back(best.error);
    agreement.n_turned += best.is_turned ? 1 : 0;
    state = std::move(*best.state);
  }
  return agreement;
}

}  // namespace logitlab
