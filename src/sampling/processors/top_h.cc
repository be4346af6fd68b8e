#include "sampling/processors/top_h.h"

#include <algorithm>
#include <cmath>

#include "sampling/row_edits.h"
#include "sampling/selection.h"

namespace logitlab {
namespace {

constexpr int64_t kConsidered = 100;

}  // namespace

TopH::TopH(double top_h) : top_h_(static_cast<float>(top_h)) {}

void TopH::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  top_ids(scores, kConsidered, &best_);
  best_scores_.clear();
  for (const TokenId id : best_) {
    best_scores_.push_back(scores[static_cast<size_t>(id)]);
  }
  if (!softmax_float32(best_scores_, &probabilities_)) {
    return;
  }
  const float threshold = entropy_float32(best_scores_, probabilities_) * top_h_;
  cut_ = {CutMeasure::kEntropy, static_cast<double>(threshold)};
  std::ranges::fill(scores, kRemovedScore);
  double sum = 0;
  for (size_t i = 0; i < best_.size(); ++i) {
    // At probability 0 this is 0 * inf = NaN, and no sum from there on is within the threshold.
    sum += static_cast<double>(-probabilities_[i] * std::log(probabilities_[i]));
    if (i == 0 || static_cast<float>(sum) <= threshold) {
      scores[static_cast<size_t>(best_[i])] = best_scores_[i];
    }
  }
}

std::unique_ptr<LogitsProcessor> TopH::clone() const {
  return std::make_unique<TopH>(*this);
}

}  // namespace logitlab
