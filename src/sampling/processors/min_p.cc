#include "sampling/processors/min_p.h"

#include <algorithm>
#include <limits>

#include "sampling/selection.h"

namespace logitlab {

MinP::MinP(double min_p, int64_t min_tokens_to_keep)
    : min_p_(static_cast<float>(min_p)), min_tokens_to_keep_(min_tokens_to_keep) {}

void MinP::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  if (!softmax_float32(scores, &probabilities_)) {
    return;
  }
  const float threshold = min_p_ * *std::ranges::max_element(probabilities_);
  cut_ = {CutMeasure::kProbability, static_cast<double>(threshold)};
  // The most probable token is never below its own share, so one to keep needs no care.
  if (min_tokens_to_keep_ > 1) {
    top_ids(scores, min_tokens_to_keep_, &best_);
    for (const TokenId id : best_) {
      probabilities_[static_cast<size_t>(id)] = threshold;
    }
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (probabilities_[i] < threshold) {
      scores[i] = -std::numeric_limits<float>::infinity();
    }
  }
}

std::unique_ptr<LogitsProcessor> MinP::clone() const {
  return std::make_unique<MinP>(*this);
}

}  // namespace logitlab
