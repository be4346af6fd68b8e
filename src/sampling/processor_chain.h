// The processors of one sequence, in the order that `semantics` asks for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "logitlab/generation_config.h"
#include "sampling/logits_processor.h"

namespace logitlab {

// Sees the scores around every processor: the hook of the trace.
class StageObserver {
 public:
  virtual ~StageObserver() = default;
  // scores: [vocab_size], valid during the call. stage: 0 for the first processor of the chain.
  virtual void after_stage(int64_t stage, const LogitsProcessor& processor,
                           std::span<const float> scores) = 0;
};

// Where classifier-free guidance gets the scores of the unguided sequence from.
class GuidanceSource {
 public:
  virtual ~GuidanceSource() = default;
  // Raw logits, [vocab_size], of the unguided sequence: the negative prompt (without one the last
  // prompt token) and the generated ids. Valid until the next call. Empty when they could not be
  // computed: the source keeps the error and the scores stay as they are.
  [[nodiscard]] virtual std::span<const float> unguided_logits(const SequenceView& sequence) = 0;
};

// The ids between which a model thinks, as it has them: <think>, </think>.
struct ThinkingIds {
  TokenId open = -1;
  TokenId close = -1;
  bool operator==(const ThinkingIds& other) const = default;
};

struct ChainOptions {
  int64_t vocab_size = 0;  // >= 1
  // No filter leaves fewer tokens than this. Beam sampling wants more than one.
  int64_t min_tokens_to_keep = 1;
  int64_t prompt_length = 0;
  // Columns, prompt included, after which the sequence ends; forced_eos_token_id acts one before.
  std::optional<int64_t> max_length;
  GuidanceSource* guidance = nullptr;   // must outlive the chain; null: guidance_scale is refused
  std::optional<ThinkingIds> thinking;  // none: thinking_budget does not act
  // The caller's own, copied into the chain. One that has the name of a processor that the settings
  // ask for, of those before this place, takes that one's place; all others stand before the
  // temperature. Only with semantics=transformers: no other engine's order has a place for them.
  std::span<const LogitsProcessor* const> callers;
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
// validate_generation_config, which it calls, and for ids outside the vocabulary where transformers
// refuses them.
[[nodiscard]] Result<ProcessorChain> build_chain(const GenerationConfig& effective,
                                                 const ChainOptions& options);

}  // namespace logitlab
