// Classifier-free guidance: the unguided sequences beside the guided ones.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "generate/prompt_run.h"
#include "sampling/processor_chain.h"
#include "state/decode_state.h"

namespace logitlab {

// One unguided sequence per row of the search (a sequence, or a place among the beams of a prompt).
// It begins with negative_prompt_ids, else with the last prompt token alone, and takes every token
// that its row chose. A row of beam search is a place, not a hypothesis: as in transformers the
// unguided sequences are not reordered with the beams, so after a reordering a row goes on behind
// the tokens that were the newest at its place, whatever hypothesis they belonged to.
class GuidanceRows {
 public:
  // kInvalidArgument: an id of negative_prompt_ids outside the vocabulary.
  [[nodiscard]] static Status check(const GenerationConfig& config, int64_t vocab_size);

  // Nothing to do when guidance_scale is unset or 1: then row() is null. Runs the model over the
  // first contexts, once per prompt.
  [[nodiscard]] static Result<GuidanceRows> make(const RunSettings& settings,
                                                 std::span<const PromptRun> prompts,
                                                 int64_t rows_per_prompt);

  // Valid as long as this object is; null without guidance.
  [[nodiscard]] GuidanceSource* row(size_t index) const;

  struct Chosen {
    size_t row = 0;
    TokenId id = 0;
  };
  // Appends the newest token of each listed row and runs all of them as one batch.
  [[nodiscard]] Status advance(const RunSettings& settings, std::span<const Chosen> chosen);

 private:
  class Row;
  std::vector<std::shared_ptr<Row>> rows_;
  std::vector<SequenceChunk> batch_;
  Logits logits_;
};

}  // namespace logitlab
