#include "sampling/processors/forced_tokens.h"

#include <utility>

#include "sampling/row_edits.h"

namespace logitlab {

ForcedBos::ForcedBos(TokenId id) : id_(id) {}

void ForcedBos::apply(std::span<float> scores, const SequenceView& sequence) {
  if (sequence.length() == 1) {
    force_tokens(scores, {&id_, 1});
  }
}

std::unique_ptr<LogitsProcessor> ForcedBos::clone() const {
  return std::make_unique<ForcedBos>(*this);
}

ForcedEos::ForcedEos(std::vector<TokenId> ids, int64_t max_length)
    : ids_(std::move(ids)), max_length_(max_length) {}

void ForcedEos::apply(std::span<float> scores, const SequenceView& sequence) {
  if (sequence.length() + 1 == max_length_) {
    force_tokens(scores, ids_);
  }
}

std::unique_ptr<LogitsProcessor> ForcedEos::clone() const {
  return std::make_unique<ForcedEos>(*this);
}

}  // namespace logitlab
