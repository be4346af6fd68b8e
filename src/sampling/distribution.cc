#include "sampling/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "sampling/selection.h"

namespace logitlab {

namespace {

// probability = exp(logit - largest) / sum. Kept apart, not as one logarithm: next to a huge logit
// log(sum) would vanish.
struct Normaliser {
  double largest = 0;
  double sum = std::numeric_limits<double>::quiet_NaN();

  [[nodiscard]] double probability(float logit) const {
    return std::exp(static_cast<double>(logit) - largest) / sum;
  }
};

Normaliser normaliser_of(std::span<const float> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) {
    if (std::isnan(logit)) {
      return {};
    }
    largest = std::max(largest, static_cast<double>(logit));
  }
  if (std::isinf(largest)) {
    return {};
  }
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - largest);
  }
  return {largest, sum};
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const Normaliser normaliser = normaliser_of(logits);
  return normaliser.largest + std::log(normaliser.sum);
}

std::vector<double> softmax_probabilities(std::span<const float> logits) {
  const Normaliser normaliser = normaliser_of(logits);
  std::vector<double> probabilities;
  probabilities.reserve(logits.size());
  for (const float logit : logits) {
    probabilities.push_back(normaliser.probability(logit));
  }
  return probabilities;
}

std::vector<Alternative> top_alternatives(std::span<const float> logits, int64_t n) {
  const Normaliser normaliser = normaliser_of(logits);
  std::vector<TokenId> ids;
  top_ids(logits, n, &ids);
  std::vector<Alternative> alternatives;
  alternatives.reserve(ids.size());
  for (const TokenId id : ids) {
    const float logit = logits[static_cast<size_t>(id)];
    alternatives.push_back({id, logit, normaliser.probability(logit)});
  }
  return alternatives;
}

double entropy(std::span<const float> logits) {
  const Normaliser normaliser = normaliser_of(logits);
  if (std::isnan(normaliser.sum)) {
    return normaliser.sum;
  }
  const double log_sum = std::log(normaliser.sum);
  double nats = 0;
  for (const float logit : logits) {
    const double log_probability = static_cast<double>(logit) - normaliser.largest - log_sum;
    const double probability = std::exp(log_probability);
    if (probability > 0) {
      nats -= probability * log_probability;
    }
  }
  return nats;
}

}  // namespace logitlab
