#include "sampling/processors/openai_penalties.h"

#include <algorithm>
#include <utility>

namespace logitlab {
namespace {

std::span<const TokenId> counted(const SequenceView& sequence, int64_t window) {
  const int64_t n = window < 0 ? sequence.generated() : std::min(window, sequence.length());
  return sequence.ids.last(static_cast<size_t>(n));
}

}  // namespace

FrequencyPenalty::FrequencyPenalty(double penalty, int64_t window)
    : penalty_(static_cast<float>(penalty)), window_(window) {}

void FrequencyPenalty::apply(std::span<float> scores, const SequenceView& sequence) {
  counts_.resize(scores.size());
  const auto ids = counted(sequence, window_);
  for (const TokenId id : ids) {
    if (is_in_row(scores, id)) {
      ++counts_[static_cast<size_t>(id)];
    }
  }
  for (const TokenId id : ids) {
    if (is_in_row(scores, id) && counts_[static_cast<size_t>(id)] > 0) {
      scores[static_cast<size_t>(id)] -=
          static_cast<float>(counts_[static_cast<size_t>(id)]) * penalty_;
      counts_[static_cast<size_t>(id)] = 0;
    }
  }
}

std::unique_ptr<LogitsProcessor> FrequencyPenalty::clone() const {
  return std::make_unique<FrequencyPenalty>(*this);
}

PresencePenalty::PresencePenalty(double penalty, int64_t window)
    : penalty_(static_cast<float>(penalty)), window_(window) {}

void PresencePenalty::apply(std::span<float> scores, const SequenceView& sequence) {
  seen_.start_over(scores.size());
  for (const TokenId id : counted(sequence, window_)) {
    if (is_in_row(scores, id) && seen_.insert(id)) {
      scores[static_cast<size_t>(id)] -= penalty_;
    }
  }
}

std::unique_ptr<LogitsProcessor> PresencePenalty::clone() const {
  return std::make_unique<PresencePenalty>(*this);
}

LogitBias::LogitBias(std::vector<TokenBias> biases) : biases_(std::move(biases)) {}

void LogitBias::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  for (const TokenBias& entry : biases_) {
    scores[static_cast<size_t>(entry.id)] += static_cast<float>(entry.bias);
  }
}

std::unique_ptr<LogitsProcessor> LogitBias::clone() const {
  return std::make_unique<LogitBias>(*this);
}

}  // namespace logitlab
