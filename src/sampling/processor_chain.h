// The processors of one sequence, in transformers' order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "logitlab/generation_config.h"
#include "sampling/logits_processor.h"

namespace logitlab {

// Sees the scores after every processor: the hook of the trace.
class StageObserver {
 public:
  virtual ~StageObserver() = default;
  // scores: [vocab_size], valid during the call. stage: 0 for the first processor of the chain.
  virtual void after_stage(int64_t stage, std::string_view processor,
                           std::span<const float> scores) = 0;
};

struct ChainOptions {
  int64_t vocab_size = 0;  // >= 1
  // No filter leaves fewer tokens than this. Beam sampling wants more than one.
  int64_t min_tokens_to_keep = 1;
};

// One per sequence; movable; one thread at a time.
class ProcessorChain {
 public:
  ProcessorChain() = default;
  explicit ProcessorChain(std::vector<std::unique_ptr<LogitsProcessor>> processors);

  // scores: [vocab_size] raw logits in, processed scores out. `observer` may be null.
  void apply(std::span<float> scores, const SequenceView& sequence,
             StageObserver* observer = nullptr);
  void accept(TokenId id);
  void rollback(int64_t n);
  [[nodiscard]] ProcessorChain clone() const;

  [[nodiscard]] bool empty() const { return processors_.empty(); }
  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(processors_.size()); }
  [[nodiscard]] std::vector<std::string_view> names() const;

 private:
  std::vector<std::unique_ptr<LogitsProcessor>> processors_;
};

// The processors that `effective` (after merge_generation_config) asks for. kInvalidArgument as
// validate_generation_config, which it calls.
[[nodiscard]] Result<ProcessorChain> build_chain(const GenerationConfig& effective,
                                                 const ChainOptions& options);

}  // namespace logitlab
