#include "models/batch.h"

#include "base/check.h"

namespace logitlab {

Status check_batch(std::span<const SequenceChunk> batch, int64_t vocab_size) {
  for (const SequenceChunk& chunk : batch) {
    CHECK(chunk.state != nullptr);
    if (chunk.ids.empty()) {
      return fail(ErrorCode::kInvalidArgument, "no token ids; want at least one");
    }
    for (size_t i = 0; i < chunk.ids.size(); ++i) {
      if (chunk.ids[i] < 0 || chunk.ids[i] >= vocab_size) {
        return fail(ErrorCode::kInvalidArgument,
                    "token id {} at position {} is outside the vocabulary, want 0 to {}",
                    chunk.ids[i], chunk.state->length() + static_cast<int64_t>(i), vocab_size - 1);
      }
    }
  }
  return {};
}

BatchRows flatten(std::span<const SequenceChunk> batch) {
  BatchRows rows;
  for (const SequenceChunk& chunk : batch) {
    rows.spans.push_back({chunk.state, static_cast<int64_t>(rows.ids.size()),
                          static_cast<int64_t>(chunk.ids.size())});
    for (size_t i = 0; i < chunk.ids.size(); ++i) {
      const bool is_last = i + 1 == chunk.ids.size();
      const bool wants_logits =
          chunk.logit_rows == LogitRows::kAll || (chunk.logit_rows == LogitRows::kLast && is_last);
      if (wants_logits) {
        rows.logit_rows.push_back(static_cast<int64_t>(rows.ids.size()));
      }
      rows.ids.push_back(chunk.ids[i]);
      rows.positions.push_back(chunk.state->length() + static_cast<int64_t>(i));
      rows.states.push_back(chunk.state);
    }
  }
  return rows;
}

}  // namespace logitlab
