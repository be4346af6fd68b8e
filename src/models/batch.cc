#include "models/batch.h"

#include <algorithm>

#include "base/check.h"
#include "nn/work_rows.h"

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

Logits project_logits(ExecContext& context, const RmsNorm& norm, const Linear& head,
                      const float* hidden, std::span<const int64_t> rows) {
  Logits logits;
  logits.rows = static_cast<int64_t>(rows.size());
  logits.vocab_size = head.out();
  if (rows.empty()) {
    return logits;
  }
  WorkRows chosen(logits.rows, norm.d);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(hidden + rows[i] * norm.d, norm.d, chosen.row(static_cast<int64_t>(i)));
  }
  norm.apply(context, chosen.data(), logits.rows, chosen.data());
  logits.values.resize(rows.size() * static_cast<size_t>(logits.vocab_size));
  const LinearPart part = head.part(logits.values.data());
  context.backend.linear(context, chosen.data(), logits.rows, {&part, 1});
  return logits;
}

}  // namespace logitlab
