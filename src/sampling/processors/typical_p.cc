#include "sampling/processors/typical_p.h"

#include <algorithm>
#include <cmath>

#include "sampling/row_edits.h"
#include "sampling/selection.h"

namespace logitlab {

TypicalP::TypicalP(double typical_p, int64_t min_tokens_to_keep)
    : mass_(static_cast<float>(typical_p)), min_tokens_to_keep_(min_tokens_to_keep) {}

// The smallest distance at which the mass of all that are as near or nearer reaches the share.
// Order among equal distances does not matter: the whole group stays or goes.
float TypicalP::largest_kept_distance() {
  const auto is_nearer = [](const Candidate& a, const Candidate& b) {
    return a.distance < b.distance;
  };
  // The wanted one stands in [begin, end); all before it are nearer and their mass is too small.
  auto begin = candidates_.begin();
  auto end = candidates_.end();
  double mass = 0;
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, is_nearer);
    double lower_mass = mass;
    for (auto it = begin; it != middle; ++it) {
      lower_mass += static_cast<double>(it->probability);
    }
    if (static_cast<float>(lower_mass) < mass_) {
      mass = lower_mass;
      begin = middle;
    } else {
      end = middle;
    }
  }
  return begin->distance;
}

void TypicalP::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  if (!softmax_float32(scores, &probabilities_)) {
    return;
  }
  log_probabilities_.assign(scores.begin(), scores.end());
  log_softmax_float32(log_probabilities_);
  double entropy = 0;
  for (const float log_probability : log_probabilities_) {
    const float term = log_probability * std::exp(log_probability);
    entropy -= std::isnan(term) ? 0.0 : static_cast<double>(term);
  }
  distances_.resize(scores.size());
  candidates_.clear();
  for (size_t i = 0; i < scores.size(); ++i) {
    distances_[i] = std::abs(-log_probabilities_[i] - static_cast<float>(entropy));
    candidates_.push_back({distances_[i], probabilities_[i]});
  }
  const float largest = largest_kept_distance();
  cut_ = {CutMeasure::kSurprise, static_cast<double>(largest)};
  int64_t n_kept = 0;
  for (const float distance : distances_) {
    n_kept += distance <= largest ? 1 : 0;
  }
  if (n_kept < min_tokens_to_keep_) {
    for (float& distance : distances_) {
      distance = -distance;
    }
    top_ids(distances_, min_tokens_to_keep_, &nearest_);
    for (float& distance : distances_) {
      distance = -distance;
    }
    for (const TokenId id : nearest_) {
      distances_[static_cast<size_t>(id)] = 0;
    }
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (distances_[i] > largest) {
      scores[i] = kRemovedScore;
    }
  }
}

std::unique_ptr<LogitsProcessor> TypicalP::clone() const {
  return std::make_unique<TypicalP>(*this);
}

}  // namespace logitlab
