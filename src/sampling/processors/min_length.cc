#include "sampling/processors/min_length.h"

#include <utility>

#include "sampling/row_edits.h"

namespace logitlab {

MinLength::MinLength(int64_t min_length, std::vector<TokenId> end_ids)
    : min_length_(min_length), end_ids_(std::move(end_ids)) {}

void MinLength::apply(std::span<float> scores, const SequenceView& sequence) {
  if (sequence.length() < min_length_) {
    ban_tokens(scores, end_ids_);
  }
}

std::unique_ptr<LogitsProcessor> MinLength::clone() const {
  return std::make_unique<MinLength>(*this);
}

}  // namespace logitlab
