#include "sampling/processors/top_p.h"

#include <algorithm>
#include <limits>

#include "sampling/selection.h"

namespace logitlab {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();
// Ranges this short are sorted and walked.
constexpr int64_t kShortRange = 32;

}  // namespace

TopP::TopP(double top_p, int64_t min_tokens_to_keep)
    : removed_mass_(static_cast<float>(1.0 - top_p)), min_tokens_to_keep_(min_tokens_to_keep) {}

void TopP::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  const auto vocab_size = static_cast<int64_t>(scores.size());
  cut_ = {};
  if (vocab_size <= min_tokens_to_keep_ || !softmax_float32(scores, &probabilities_)) {
    return;
  }
  // What lies below `surely_removed` sums to at most half the mass to remove, whatever the order,
  // so most of a vocabulary never takes part in the selection.
  const double surely_removed =
      static_cast<double>(removed_mass_) / (2.0 * static_cast<double>(vocab_size));
  candidates_.clear();
  double mass = 0;
  for (int64_t i = 0; i < vocab_size; ++i) {
    const float probability = probabilities_[static_cast<size_t>(i)];
    if (static_cast<double>(probability) < surely_removed) {
      mass += static_cast<double>(probability);
    } else {
      candidates_.push_back({scores[static_cast<size_t>(i)], probability, static_cast<TokenId>(i)});
    }
  }
  // Ascending: what goes first stands first.
  const auto goes_first = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score < b.score : a.id > b.id;
  };
  const auto is_removed = [this](double sum) { return static_cast<float>(sum) <= removed_mass_; };
  // [begin, end) holds the cut: all before it is removed, all after it stays.
  auto begin = candidates_.begin();
  auto end = candidates_.end();
  while (end - begin > kShortRange) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, goes_first);
    double lower_mass = mass;
    for (auto it = begin; it != middle; ++it) {
      lower_mass += static_cast<double>(it->probability);
    }
    if (is_removed(lower_mass)) {
      mass = lower_mass;
      begin = middle;
    } else {
      end = middle;
    }
  }
  std::sort(begin, end, goes_first);
  while (begin != end && is_removed(mass + static_cast<double>(begin->probability))) {
    mass += static_cast<double>(begin->probability);
    ++begin;
  }
  cut_ = {CutMeasure::kMass, 1.0 - mass};
  if (candidates_.end() - begin < min_tokens_to_keep_) {
    // What stays is a part of the best, so the best alone replace it.
    top_ids(scores, min_tokens_to_keep_, &best_);
    std::ranges::fill(probabilities_, 0.0F);
    for (const TokenId id : best_) {
      probabilities_[static_cast<size_t>(id)] = 1;
    }
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] = probabilities_[i] > 0 ? scores[i] : kRemoved;
    }
    return;
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (static_cast<double>(probabilities_[i]) < surely_removed) {
      scores[i] = kRemoved;
    }
  }
  for (auto it = candidates_.begin(); it != begin; ++it) {
    scores[static_cast<size_t>(it->id)] = kRemoved;
  }
}

std::unique_ptr<LogitsProcessor> TopP::clone() const {
  return std::make_unique<TopP>(*this);
}

}  // namespace logitlab
