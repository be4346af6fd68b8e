#include "sampling/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace logitlab {

bool ranks_before(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) {
    return std::isnan(a) && !std::isnan(b);
  }
  return a > b;
}

void top_ids(std::span<const float> scores, int64_t n, std::vector<TokenId>* ids) {
  const auto goes_first = [scores](TokenId a, TokenId b) {
    const float score_a = scores[static_cast<size_t>(a)];
    const float score_b = scores[static_cast<size_t>(b)];
    if (ranks_before(score_a, score_b)) {
      return true;
    }
    return !ranks_before(score_b, score_a) && a < b;
  };
  const auto vocab_size = static_cast<int64_t>(scores.size());
  n = std::min(n, vocab_size);
  ids->clear();
  if (n <= 0) {
    return;
  }
  // A heap of the n best touches the row once; for a large share of the row its logarithm costs
  // more than a selection.
  if (n > vocab_size / 16) {
    ids->resize(scores.size());
    std::iota(ids->begin(), ids->end(), 0);
    std::nth_element(ids->begin(), ids->begin() + (n - 1), ids->end(), goes_first);
    ids->resize(static_cast<size_t>(n));
    std::sort(ids->begin(), ids->end(), goes_first);
    return;
  }
  ids->resize(static_cast<size_t>(n));
  std::iota(ids->begin(), ids->end(), 0);
  std::make_heap(ids->begin(), ids->end(), goes_first);  // the worst of them in front
  float worst = scores[static_cast<size_t>(ids->front())];
  for (int64_t i = n; i < vocab_size; ++i) {
    const float score = scores[static_cast<size_t>(i)];
    // A later id loses to an equal score, so the score alone decides. The first comparison settles
    // nearly all of a row; NaN passes it.
    if (score <= worst || !ranks_before(score, worst)) {
      continue;
    }
    std::pop_heap(ids->begin(), ids->end(), goes_first);
    ids->back() = static_cast<TokenId>(i);
    std::push_heap(ids->begin(), ids->end(), goes_first);
    worst = scores[static_cast<size_t>(ids->front())];
  }
  std::sort_heap(ids->begin(), ids->end(), goes_first);
}

bool softmax_float32(std::span<const float> scores, std::vector<float>* probabilities) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const float score : scores) {
    if (std::isnan(score)) {
      return false;
    }
    largest = std::max(largest, score);
  }
  if (std::isinf(largest)) {
    return false;
  }
  probabilities->resize(scores.size());
  double sum = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const float exponential = std::exp(scores[i] - largest);
    (*probabilities)[i] = exponential;
    sum += static_cast<double>(exponential);
  }
  const auto divisor = static_cast<float>(sum);
  for (float& probability : *probabilities) {
    probability /= divisor;
  }
  return true;
}

void log_softmax_float32(std::span<float> scores) {
  float largest = -std::numeric_limits<float>::infinity();
  bool has_nan = false;
  for (const float score : scores) {
    has_nan = has_nan || std::isnan(score);
    largest = std::max(largest, score);
  }
  if (has_nan || std::isinf(largest)) {
    std::ranges::fill(scores, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  double sum = 0;
  for (const float score : scores) {
    sum += static_cast<double>(std::exp(score - largest));
  }
  const float log_sum = std::log(static_cast<float>(sum));
  // Two subtractions: next to a huge maximum the logarithm would vanish.
  for (float& score : scores) {
    score = score - largest - log_sum;
  }
}

float entropy_float32(std::span<const float> scores, std::span<const float> probabilities) {
  const float largest = *std::ranges::max_element(scores);
  double sum = 0;
  for (const float score : scores) {
    sum += static_cast<double>(std::exp(score - largest));
  }
  const float log_sum_exp = std::log(static_cast<float>(sum)) + largest;
  double nats = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const float log_probability =
        std::max(scores[i] - log_sum_exp, std::numeric_limits<float>::lowest());
    nats -= static_cast<double>(log_probability * probabilities[i]);
  }
  return static_cast<float>(nats);
}

}  // namespace logitlab
