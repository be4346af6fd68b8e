// What every strategy starts from: prompts that have gone through the model.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "generate/generator.h"
#include "generate/stop_strings.h"
#include "models/model.h"
#include "sampling/effective_config.h"

namespace logitlab {

// One call of generate: what all its prompts and sequences share. The referred objects outlive it.
struct RunSettings {
  ExecContext& context;
  const Model& model;
  const GenerationConfig& config;  // after merge_generation_config
  const GenerateOptions& options;
  double start = 0;                             // monotonic_seconds() at the call
  std::shared_ptr<const StopTexts> stop_texts;  // null: no stop strings

  [[nodiscard]] bool is_cancelled() const { return options.is_cancelled && options.is_cancelled(); }
  // Longest chunk of a prompt.
  [[nodiscard]] int64_t prefill_chunk() const {
    return options.prefill_chunk > 0 ? options.prefill_chunk : model.prefill_chunk();
  }
  // Rounds every row to logits_dtype.
  [[nodiscard]] Result<Logits> forward(std::span<const SequenceChunk> batch) const;
};

// One prompt after the prefill.
struct PromptRun {
  int64_t index = 0;
  std::span<const TokenId> ids;
  Lengths lengths;
  DecodeState* callers_state = nullptr;  // used in place of own_state when not null
  std::optional<DecodeState> own_state;
  std::vector<float> logits;  // [vocab_size], of the last position
  int64_t reused = 0;         // positions that the state held already
  int64_t mark = 0;           // this and the next: as PromptInput's
  std::optional<DecodeState>* at_mark = nullptr;

  [[nodiscard]] DecodeState* state() {
    return callers_state != nullptr ? callers_state : &own_state.value();
  }
  [[nodiscard]] int64_t length() const { return static_cast<int64_t>(ids.size()); }
};

// Whether `config` (after merge_generation_config) asks for beams.
[[nodiscard]] bool is_beam_search(const GenerationConfig& config);

// All that can be refused is refused here, before any model work; finds the stop texts.
// kInvalidArgument.
[[nodiscard]] Status check_settings(RunSettings* settings);

// Lengths are settled, nothing has run. `may_use_callers_state`: the state that the caller gave is
// the one to continue; else a fork of it is. kInvalidArgument: an empty prompt, an id outside the
// vocabulary, no room for one token.
[[nodiscard]] Result<std::vector<PromptRun>> plan_prompts(const RunSettings& settings,
                                                          std::span<const PromptInput> prompts,
                                                          bool may_use_callers_state);

// kResourceExhausted, before any model work: what the prompts' states and the first step of all
// sequences need for certain of the host's memory (later steps and scratch not counted) is more
// than `available_bytes`; 0: not known, nothing is refused.
[[nodiscard]] Status check_room(const RunSettings& settings, std::span<const PromptRun> runs,
                                size_t available_bytes);

// Runs what the states have not seen, in chunks. False when cancelled: then some have no logits.
[[nodiscard]] Result<bool> prefill(const RunSettings& settings, std::vector<PromptRun>* prompts);

}  // namespace logitlab
