#include "sampling/processors/no_repeat_ngram.h"

#include <algorithm>

#include "sampling/row_edits.h"

namespace logitlab {
namespace {

// Bans the last token of every group in `text` that begins with the end of `ids`.
void ban_repeats(std::span<float> scores, std::span<const TokenId> ids,
                 std::span<const TokenId> text, int64_t ngram_size) {
  const auto prefix_size = static_cast<size_t>(ngram_size - 1);
  if (ids.size() < prefix_size) {
    return;
  }
  const auto prefix = ids.last(prefix_size);
  for (size_t end = prefix_size; end < text.size(); ++end) {
    const auto window = text.subspan(end - prefix_size, prefix_size);
    if (std::equal(window.rbegin(), window.rend(), prefix.rbegin())) {
      ban_tokens(scores, text.subspan(end, 1));
    }
  }
}

}  // namespace

NoRepeatNgram::NoRepeatNgram(int64_t ngram_size) : ngram_size_(ngram_size) {}

void NoRepeatNgram::apply(std::span<float> scores, const SequenceView& sequence) {
  ban_repeats(scores, sequence.ids, sequence.ids, ngram_size_);
}

std::unique_ptr<LogitsProcessor> NoRepeatNgram::clone() const {
  return std::make_unique<NoRepeatNgram>(*this);
}

EncoderNoRepeatNgram::EncoderNoRepeatNgram(int64_t ngram_size) : ngram_size_(ngram_size) {}

void EncoderNoRepeatNgram::apply(std::span<float> scores, const SequenceView& sequence) {
  ban_repeats(scores, sequence.ids, sequence.ids.first(static_cast<size_t>(sequence.prompt_length)),
              ngram_size_);
}

std::unique_ptr<LogitsProcessor> EncoderNoRepeatNgram::clone() const {
  return std::make_unique<EncoderNoRepeatNgram>(*this);
}

}  // namespace logitlab
