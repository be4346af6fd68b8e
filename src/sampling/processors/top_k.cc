#include "sampling/processors/top_k.h"

#include <algorithm>
#include <limits>

#include "sampling/selection.h"

namespace logitlab {

TopK::TopK(int64_t top_k, int64_t min_tokens_to_keep) : k_(std::max(top_k, min_tokens_to_keep)) {}

void TopK::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  if (k_ >= static_cast<int64_t>(scores.size())) {
    return;
  }
  top_ids(scores, k_, &best_);
  const float kth_score = scores[static_cast<size_t>(best_.back())];
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
