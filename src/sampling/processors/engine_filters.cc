#include "sampling/processors/engine_filters.h"

#include <algorithm>
#include <cmath>

#include "sampling/row_edits.h"
#include "sampling/sampler.h"
#include "sampling/selection.h"

namespace logitlab {
namespace {

// Most cuts of top_p fall among so many tokens; each further look takes eight times as many.
constexpr int64_t kFirstLook = 256;

}  // namespace

void BestOnly::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  const auto best = static_cast<size_t>(arg_max(scores));
  const float score = scores[best];
  std::ranges::fill(scores, kRemovedScore);
  scores[best] = score;
  cut_ = {CutMeasure::kScore, static_cast<double>(score)};
}

std::unique_ptr<LogitsProcessor> BestOnly::clone() const {
  return std::make_unique<BestOnly>(*this);
}

DescendingTopP::DescendingTopP(double top_p, int64_t min_tokens_to_keep)
    : top_p_(static_cast<float>(top_p)), min_tokens_to_keep_(min_tokens_to_keep) {}

int64_t DescendingTopP::tokens_to_mass(float* mass) const {
  *mass = 0;
  for (size_t i = 0; i < best_.size(); ++i) {
    *mass += probabilities_[static_cast<size_t>(best_[i])];
    const auto n = static_cast<int64_t>(i) + 1;
    if (*mass >= top_p_ && n >= min_tokens_to_keep_) {
      return n;
    }
  }
  return 0;
}

void DescendingTopP::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  if (!softmax_float32(scores, &probabilities_)) {
    return;
  }
  int64_t n_kept = 0;
  float mass = 0;
  for (int64_t look = kFirstLook; n_kept == 0; look *= 8) {
    top_ids(scores, look, &best_);
    n_kept = tokens_to_mass(&mass);
    if (n_kept == 0 && best_.size() == scores.size()) {
      return;  // by rounding all of them together fall short of top_p
    }
  }
  best_.resize(static_cast<size_t>(n_kept));
  kept_scores_.clear();
  for (const TokenId id : best_) {
    kept_scores_.push_back(scores[static_cast<size_t>(id)]);
  }
  std::ranges::fill(scores, kRemovedScore);
  for (size_t i = 0; i < best_.size(); ++i) {
    scores[static_cast<size_t>(best_[i])] = kept_scores_[i];
  }
  cut_ = {CutMeasure::kMass, static_cast<double>(mass)};
}

std::unique_ptr<LogitsProcessor> DescendingTopP::clone() const {
  return std::make_unique<DescendingTopP>(*this);
}

LogitMinP::LogitMinP(double min_p, int64_t min_tokens_to_keep)
    : log_min_p_(std::log(static_cast<float>(min_p))), min_tokens_to_keep_(min_tokens_to_keep) {}

void LogitMinP::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  top_ids(scores, min_tokens_to_keep_, &best_);
  const float largest = scores[static_cast<size_t>(best_.front())];
  if (!std::isfinite(largest)) {
    return;
  }
  const float smallest_to_keep = scores[static_cast<size_t>(best_.back())];
  const float threshold = largest + log_min_p_;
  for (size_t i = 0; i < scores.size(); ++i) {
    const bool is_one_of_the_best =
        scores[i] >= smallest_to_keep &&
        std::ranges::find(best_, static_cast<TokenId>(i)) != best_.end();
    if (scores[i] < threshold && !is_one_of_the_best) {
      scores[i] = kRemovedScore;
    }
  }
  cut_ = {CutMeasure::kScore, static_cast<double>(threshold)};
}

std::unique_ptr<LogitsProcessor> LogitMinP::clone() const {
  return std::make_unique<LogitMinP>(*this);
}

StrictTypicalP::StrictTypicalP(double typical_p, int64_t min_tokens_to_keep)
    : typical_p_(static_cast<float>(typical_p)), min_tokens_to_keep_(min_tokens_to_keep) {}

void StrictTypicalP::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  if (!softmax_float32(scores, &probabilities_)) {
    return;
  }
  top_ids(scores, static_cast<int64_t>(scores.size()), &order_);
  float entropy = 0;
  candidates_.clear();
  for (const TokenId id : order_) {
    const float probability = probabilities_[static_cast<size_t>(id)];
    // log(0) would make the entropy NaN.
    if (probability > 0) {
      entropy -= probability * std::log(probability);
      candidates_.push_back({id, probability, 0});
    }
  }
  for (Candidate& candidate : candidates_) {
    candidate.distance = std::abs(-std::log(candidate.probability) - entropy);
  }
  std::ranges::stable_sort(candidates_, {}, &Candidate::distance);
  size_t n_kept = candidates_.size();
  float mass = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    mass += candidates_[i].probability;
    if (mass > typical_p_ && static_cast<int64_t>(i) + 1 >= min_tokens_to_keep_) {
      n_kept = i + 1;
      break;
    }
  }
  order_.clear();
  for (size_t i = 0; i < n_kept; ++i) {
    order_.push_back(candidates_[i].id);
  }
  cut_ = {CutMeasure::kSurprise, static_cast<double>(candidates_[n_kept - 1].distance)};
  // Probabilities mark what stays: they are not needed any more.
  std::ranges::fill(probabilities_, 0.0F);
  for (const TokenId id : order_) {
    probabilities_[static_cast<size_t>(id)] = 1;
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    scores[i] = probabilities_[i] > 0 ? scores[i] : kRemovedScore;
  }
}

std::unique_ptr<LogitsProcessor> StrictTypicalP::clone() const {
  return std::make_unique<StrictTypicalP>(*this);
}

}  // namespace logitlab
