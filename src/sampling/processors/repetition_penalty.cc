#include "sampling/processors/repetition_penalty.h"

#include <algorithm>

namespace logitlab {
namespace {

void penalise(std::span<float> scores, std::span<const TokenId> ids, float penalty,
              SeenTokens* seen) {
  seen->start_over(scores.size());
  for (const TokenId id : ids) {
    if (is_in_row(scores, id) && seen->insert(id)) {
      float& score = scores[static_cast<size_t>(id)];
      score = score < 0 ? score * penalty : score / penalty;
    }
  }
}

}  // namespace

RepetitionPenalty::RepetitionPenalty(double penalty, int64_t window)
    : penalty_(static_cast<float>(penalty)), window_(window) {}

void RepetitionPenalty::apply(std::span<float> scores, const SequenceView& sequence) {
  const int64_t n =
      window_ == kWholeSequence ? sequence.length() : std::min(window_, sequence.length());
  penalise(scores, sequence.ids.last(static_cast<size_t>(n)), penalty_, &seen_);
}

std::unique_ptr<LogitsProcessor> RepetitionPenalty::clone() const {
  return std::make_unique<RepetitionPenalty>(*this);
}

// The reciprocal is taken in double and rounded once, as Python does it.
EncoderRepetitionPenalty::EncoderRepetitionPenalty(double penalty)
    : penalty_(static_cast<float>(1.0 / penalty)) {}

void EncoderRepetitionPenalty::apply(std::span<float> scores, const SequenceView& sequence) {
  penalise(scores, sequence.ids.first(static_cast<size_t>(sequence.prompt_length)), penalty_,
           &seen_);
}

std::unique_ptr<LogitsProcessor> EncoderRepetitionPenalty::clone() const {
  return std::make_unique<EncoderRepetitionPenalty>(*this);
}

}  // namespace logitlab
