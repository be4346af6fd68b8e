#include "sampling/processors/cutoffs.h"

#include <algorithm>
#include <cmath>

#include "sampling/row_edits.h"
#include "sampling/selection.h"

namespace logitlab {
namespace {

void remove_below(std::span<float> scores, std::span<const float> probabilities, float threshold,
                  int64_t min_tokens_to_keep, std::vector<TokenId>* best) {
  top_ids(scores, min_tokens_to_keep, best);
  const float safe_score = scores[static_cast<size_t>(best->back())];
  for (size_t i = 0; i < scores.size(); ++i) {
    if (probabilities[i] < threshold && scores[i] < safe_score) {
      scores[i] = kRemovedScore;
    }
  }
}

}  // namespace

EpsilonCutoff::EpsilonCutoff(double epsilon, int64_t min_tokens_to_keep)
    : epsilon_(static_cast<float>(epsilon)), min_tokens_to_keep_(min_tokens_to_keep) {}

void EpsilonCutoff::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  if (!softmax_float32(scores, &probabilities_)) {
    return;
  }
  cut_ = {CutMeasure::kProbability, static_cast<double>(epsilon_)};
  remove_below(scores, probabilities_, epsilon_, min_tokens_to_keep_, &best_);
}

std::unique_ptr<LogitsProcessor> EpsilonCutoff::clone() const {
  return std::make_unique<EpsilonCutoff>(*this);
}

EtaCutoff::EtaCutoff(double epsilon, int64_t min_tokens_to_keep)
    : epsilon_(static_cast<float>(epsilon)), min_tokens_to_keep_(min_tokens_to_keep) {}

void EtaCutoff::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  cut_ = {};
  if (!softmax_float32(scores, &probabilities_)) {
    return;
  }
  // The root of epsilon alone, as transformers' code has it; its documentation takes the root of
  // the whole product.
  const float eta =
      std::min(epsilon_, std::sqrt(epsilon_) * std::exp(-entropy_float32(scores, probabilities_)));
  cut_ = {CutMeasure::kProbability, static_cast<double>(eta)};
  remove_below(scores, probabilities_, eta, min_tokens_to_keep_, &best_);
}

std::unique_ptr<LogitsProcessor> EtaCutoff::clone() const {
  return std::make_unique<EtaCutoff>(*this);
}

}  // namespace logitlab
