#include "sampling/processors/top_k.h"

#include <algorithm>
#include <limits>

#include "sampling/selection.h"

namespace logitlab {

TopK::TopK(int64_t top_k, int64_t min_tokens_to_keep, TopKTies ties)
    : k_(std::max(top_k, min_tokens_to_keep)), ties_(ties) {}

void TopK::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  if (k_ >= static_cast<int64_t>(scores.size())) {
    return;
  }
  top_ids(scores, k_, &best_);
  const float kth_score = scores[static_cast<size_t>(best_.back())];
  cut_ = {CutMeasure::kScore, static_cast<double>(kth_score)};
  if (ties_ == TopKTies::kCut) {
    // Of those that tie with the k-th the best list holds the lowest ids, in ascending order.
    const TokenId last_kept = best_.back();
    for (size_t i = static_cast<size_t>(last_kept) + 1; i < scores.size(); ++i) {
      if (scores[i] == kth_score) {
        scores[i] = -std::numeric_limits<float>::infinity();
      }
    }
  }
  for (float& score : scores) {
    if (score < kth_score) {
      score = -std::numeric_limits<float>::infinity();
    }
  }
}

std::unique_ptr<LogitsProcessor> TopK::clone() const {
  return std::make_unique<TopK>(*this);
}

}  // namespace logitlab
