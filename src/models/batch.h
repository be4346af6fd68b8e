// From chunks of sequences to the rows of one forward pass: the same for every architecture.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "models/model.h"
#include "nn/layers.h"

namespace logitlab {

// kInvalidArgument: an empty chunk, an id outside [0, vocab_size).
[[nodiscard]] Status check_batch(std::span<const SequenceChunk> batch, int64_t vocab_size);

struct BatchRows {
  std::vector<TokenId> ids;          // [rows]
  std::vector<int64_t> positions;    // [rows]
  std::vector<DecodeState*> states;  // [rows]
  std::vector<RowSpan> spans;        // the rows of each chunk
  std::vector<int64_t> logit_rows;   // rows whose logits are wanted, ascending
};
[[nodiscard]] BatchRows flatten(std::span<const SequenceChunk> batch);

// Norm and head of the chosen rows of `hidden` [any rows, d].
[[nodiscard]] Logits project_logits(ExecContext& context, const RmsNorm& norm, const Linear& head,
                                    const float* hidden, std::span<const int64_t> rows);

}  // namespace logitlab
