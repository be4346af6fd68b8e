// One stage between the model's logits and the choice of a token.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>

#include "logitlab/types.h"

namespace logitlab {

struct SequenceView {
  std::span<const TokenId> ids;  // prompt and generated tokens
  int64_t prompt_length = 0;     // <= ids.size()

  [[nodiscard]] int64_t length() const { return static_cast<int64_t>(ids.size()); }
  [[nodiscard]] int64_t generated() const { return length() - prompt_length; }
};

// What a processor may do to a row; the trace relies on it.
enum class ProcessorKind {
  kFilter,     // only ever turns scores into -inf; all others stay as they are
  kTransform,  // may change any score
};

// What a filter compared with at its last apply().
enum class CutMeasure {
  kNone,         // no cut: nothing to report
  kScore,        // threshold: the lowest score that stays (top_k: the k-th score)
  kProbability,  // the lowest probability that stays (min_p, epsilon_cutoff, eta_cutoff)
  kMass,         // the mass, from the best token down, at which the cut fell (top_p)
  kSurprise,     // the largest distance | -log p - entropy | that stays (typical_p)
  kEntropy,      // the largest partial entropy that stays (top_h)
};
// "none", "score", "probability", "mass", "surprise", "entropy".
[[nodiscard]] std::string_view name(CutMeasure measure);

struct Cut {
  CutMeasure measure = CutMeasure::kNone;
  double threshold = std::numeric_limits<double>::quiet_NaN();
};

// One instance per sequence; one thread at a time. apply() allocates nothing once its buffers have
// grown to the vocabulary.
class LogitsProcessor {
 public:
  virtual ~LogitsProcessor() = default;

  // As in transformers' settings: "temperature", "top_k".
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual ProcessorKind kind() const { return ProcessorKind::kTransform; }

  // scores: [vocab_size] float32, changed in place; a removed token becomes -inf. Arithmetic is
  // float32 as in torch: a setting is a double that is rounded once, after what is derived from it.
  virtual void apply(std::span<float> scores, const SequenceView& sequence) = 0;

  // Of the last apply().
  [[nodiscard]] virtual Cut cut() const { return {}; }

  // For processors with memory: a token was chosen; the last n chosen tokens are taken back.
  virtual void accept(TokenId /*id*/) {}
  virtual void rollback(int64_t /*n*/) {}

  // An independent copy, memory included.
  [[nodiscard]] virtual std::unique_ptr<LogitsProcessor> clone() const = 0;
};

}  // namespace logitlab
