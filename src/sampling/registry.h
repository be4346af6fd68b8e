// The list of logits processors. A new one is a file in processors/ and one line in registry.cc.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "base/error.h"
#include "logitlab/generation_config.h"
#include "sampling/logits_processor.h"
#include "sampling/processor_chain.h"

namespace logitlab {

// Places in transformers' chain, top to bottom. The order of this enum is the order of the chain.
enum class ProcessorSlot {
  kGuidance,
  kSequenceBias,
  kEncoderRepetitionPenalty,
  kRepetitionPenalty,
  kNoRepeatNgram,
  kEncoderNoRepeatNgram,
  kBadWords,
  kMinLength,
  kMinNewTokens,
  kPrefixAllowedTokens,
  kForcedBos,
  kForcedEos,
  kRemoveInvalidValues,
  kExponentialDecay,
  kSuppressTokens,
  kBeginSuppressTokens,
  kCallerProcessors,
  kTemperature,
  kTopH,
  kTopK,
  kTopP,
  kMinP,
  kTypical,
  kEpsilonCutoff,
  kEtaCutoff,
  kWatermark,
  kRenormalize,
};

struct ProcessorSpec {
  ProcessorSlot slot;
  std::string_view name;
  bool only_when_sampling = false;
  // Whether the effective settings ask for it. do_sample is checked by build_chain.
  bool (*applies)(const GenerationConfig& effective) = nullptr;
  // Null inside: with these options it could never act, and no stage is built. kInvalidArgument: an
  // id outside the vocabulary where transformers refuses it, a setting that needs what is missing.
  Result<std::unique_ptr<LogitsProcessor>> (*make)(const GenerationConfig& effective,
                                                   const ChainOptions& options) = nullptr;
};

// Sorted by slot; our own additions (OpenAI's penalties, the thinking budget) stand where
// transformers puts a caller's processors. Static data.
[[nodiscard]] std::span<const ProcessorSpec> processor_registry();

}  // namespace logitlab
