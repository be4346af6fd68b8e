// For tests: rows of scores and what is left of them.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "logitlab/types.h"
#include "sampling/logits_processor.h"

namespace logitlab {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
inline constexpr float kPlusInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Row = std::vector<float>;
using Ids = std::vector<TokenId>;

// Row A of the conformance cases: softmax .64391 .23688 .08714 .03206.
inline Row row_a() {
  return {2, 1, 0, -1};
}

inline Ids kept_ids(const Row& scores) {
  Ids ids;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] != kMinusInfinity) {
      ids.push_back(static_cast<TokenId>(i));
    }
  }
  return ids;
}

// `row` after the processor, for a sequence of one prompt token.
inline Row processed(LogitsProcessor&& processor, Row row) {
  const Ids ids = {0};
  processor.apply(row, SequenceView{.ids = ids, .prompt_length = 1});
  return row;
}

inline Ids survivors(LogitsProcessor&& processor, const Row& row) {
  return kept_ids(processed(std::move(processor), row));
}

}  // namespace logitlab
