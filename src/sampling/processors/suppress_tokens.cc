#include "sampling/processors/suppress_tokens.h"

#include <utility>

#include "sampling/row_edits.h"

namespace logitlab {

SuppressTokens::SuppressTokens(std::vector<TokenId> ids) : ids_(std::move(ids)) {}

void SuppressTokens::apply(std::span<float> scores, const SequenceView& /*sequence*/) {
  ban_tokens(scores, ids_);
}

std::unique_ptr<LogitsProcessor> SuppressTokens::clone() const {
  return std::make_unique<SuppressTokens>(*this);
}

BeginSuppressTokens::BeginSuppressTokens(std::vector<TokenId> ids, int64_t begin_length)
    : ids_(std::move(ids)), begin_length_(begin_length) {}

void BeginSuppressTokens::apply(std::span<float> scores, const SequenceView& sequence) {
  if (sequence.length() == begin_length_) {
    ban_tokens(scores, ids_);
  }
}

std::unique_ptr<LogitsProcessor> BeginSuppressTokens::clone() const {
  return std::make_unique<BeginSuppressTokens>(*this);
}

}  // namespace logitlab
