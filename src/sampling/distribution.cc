#include "sampling/distribution.h"

#include <cmath>
#include <limits>

#include "sampling/selection.h"

namespace logitlab {

double log_sum_exp(std::span<const float> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) {
    if (std::isnan(logit)) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    largest = std::max(largest, static_cast<double>(logit));
  }
  if (std::isinf(largest)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - largest);
  }
  return largest + std::log(sum);
}

std::vector<double> softmax_probabilities(std::span<const float> logits) {
  const double normaliser = log_sum_exp(logits);
  std::vector<double> probabilities;
  probabilities.reserve(logits.size());
  for (const float logit : logits) {
    probabilities.push_back(std::exp(static_cast<double>(logit) - normaliser));
  }
  return probabilities;
}

std::vector<Alternative> top_alternatives(std::span<const float> logits, int64_t n) {
  const double normaliser = log_sum_exp(logits);
  std::vector<TokenId> ids;
  top_ids(logits, n, &ids);
  std::vector<Alternative> alternatives;
  alternatives.reserve(ids.size());
  for (const TokenId id : ids) {
    const float logit = logits[static_cast<size_t>(id)];
    alternatives.push_back({id, logit, std::exp(static_cast<double>(logit) - normaliser)});
  }
  return alternatives;
}

double entropy(std::span<const float> logits) {
  const double normaliser = log_sum_exp(logits);
  if (std::isnan(normaliser)) {
    return normaliser;
  }
  double sum = 0;
  for (const float logit : logits) {
    const double log_probability = static_cast<double>(logit) - normaliser;
    const double probability = std::exp(log_probability);
    if (probability > 0) {
      sum -= probability * log_probability;
    }
  }
  return sum;
}

}  // namespace logitlab
