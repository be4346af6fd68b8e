#include "generate/generator.h"

#include <utility>

#include "base/env.h"
#include "generate/prompt_run.h"
#include "generate/stop_strings.h"
#include "generate/strategies/sample.h"
#include "sampling/effective_config.h"

namespace logitlab {
namespace {

bool is_beam_search(const GenerationConfig& config) {
  return config.num_beams.value_or(1) > 1;
}

// Nothing was generated: as many empty sequences as there would have been.
void store_cancelled(const GenerationConfig& config, size_t n_prompts, GenerationResult* result) {
  const int64_t copies = config.num_return_sequences.value_or(1);
  for (size_t prompt = 0; prompt < n_prompts; ++prompt) {
    for (int64_t copy = 0; copy < copies; ++copy) {
      SequenceResult one;
      one.prompt = static_cast<int64_t>(prompt);
      one.stop_reason = StopReason::kCancelled;
      result->sequences.push_back(std::move(one));
    }
  }
}

}  // namespace

std::string_view name(StopReason reason) {
  switch (reason) {
    case StopReason::kEos:
      return "eos_token";
    case StopReason::kLength:
      return "length";
    case StopReason::kTime:
      return "time";
    case StopReason::kStopString:
      return "stop_string";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

int64_t GenerationResult::new_tokens() const {
  int64_t n = 0;
  for (const SequenceResult& sequence : sequences) {
    n += static_cast<int64_t>(sequence.ids.size());
  }
  return n;
}

Result<GenerationResult> generate(ExecContext& context, const Model& model,
                                  std::span<const PromptInput> prompts,
                                  const GenerationConfig& config, const GenerateOptions& options) {
  RETURN_IF_ERROR(validate_generation_config(config));
  RunSettings settings{context, model, config, options, monotonic_seconds(), nullptr};
  if (config.stop_strings && !config.stop_strings->empty()) {
    ASSIGN_OR_RETURN(settings.stop_texts, StopTexts::make(*config.stop_strings, options.token_texts,
                                                          model.config().vocab_size));
  }
  const bool is_single = !is_beam_search(config) && config.num_return_sequences.value_or(1) == 1;
  ASSIGN_OR_RETURN(std::vector<PromptRun> runs, plan_prompts(settings, prompts, is_single));

  GenerationResult result;
  for (const PromptRun& run : runs) {
    result.prompt_tokens += run.length();
    result.reused_prompt_tokens += run.reused;
  }
  ASSIGN_OR_RETURN(const bool is_read, prefill(settings, &runs));
  result.prefill_seconds = monotonic_seconds() - settings.start;
  if (!is_read) {
    store_cancelled(config, runs.size(), &result);
    return result;
  }
  RETURN_IF_ERROR(run_samples(settings, &runs, &result));
  return result;
}

}  // namespace logitlab
