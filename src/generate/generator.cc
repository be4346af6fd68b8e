#include "generate/generator.h"

#include <utility>

#include "base/env.h"
#include "generate/guidance_source.h"
#include "generate/prompt_run.h"
#include "generate/run_trace.h"
#include "generate/stop_strings.h"
#include "generate/strategies/beam.h"
#include "generate/strategies/sample.h"
#include "sampling/effective_config.h"

namespace logitlab {
namespace {

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

namespace {

// Stands in while the settings are checked.
class NoGuidance final : public GuidanceSource {
 public:
  [[nodiscard]] std::span<const float> unguided_logits(const SequenceView& /*sequence*/) override {
    return {};
  }
};

}  // namespace

bool is_beam_search(const GenerationConfig& config) {
  return config.num_beams.value_or(1) > 1;
}

Status check_settings(RunSettings* settings) {
  const GenerationConfig& config = settings->config;
  const int64_t vocab_size = settings->model.config().vocab_size;
  RETURN_IF_ERROR(validate_generation_config(config));
  NoGuidance guidance;
  ChainOptions chain;
  chain.vocab_size = vocab_size;
  chain.guidance = &guidance;
  chain.thinking = settings->options.thinking;
  chain.callers = settings->options.processors;
  if (!chain.callers.empty() && settings->options.trace.sink != nullptr) {
    return fail(ErrorCode::kInvalidArgument,
                "trace: asked for with processors of the caller ({}), want one of the two: whoever "
                "reads the trace could not run them",
                chain.callers.front()->name());
  }
  RETURN_IF_ERROR(build_chain(config, chain));
  if (config.stop_strings && !config.stop_strings->empty()) {
    ASSIGN_OR_RETURN(
        settings->stop_texts,
        StopTexts::make(*config.stop_strings, settings->options.token_texts, vocab_size));
  }
  if (is_beam_search(config)) {
    RETURN_IF_ERROR(check_beams(config, vocab_size));
  }
  return GuidanceRows::check(config, vocab_size);
}

Result<GenerationResult> generate(ExecContext& context, const Model& model,
                                  std::span<const PromptInput> prompts,
                                  const GenerationConfig& config, const GenerateOptions& options) {
  RunSettings settings{context, model, config, options, monotonic_seconds(), nullptr};
  RETURN_IF_ERROR(check_settings(&settings));
  const int64_t copies = config.num_return_sequences.value_or(1);
  const bool is_single = !is_beam_search(config) && copies == 1;
  ASSIGN_OR_RETURN(std::vector<PromptRun> runs, plan_prompts(settings, prompts, is_single));
  RETURN_IF_ERROR(check_room(settings, runs, read_memory().available_bytes));

  GenerationResult result;
  for (const PromptRun& run : runs) {
    result.prompt_tokens += run.length();
    result.reused_prompt_tokens += run.reused;
  }
  RunTracer tracer(options.trace, {.seed = config.seed.value_or(0),
                                   .vocab_size = model.config().vocab_size,
                                   .thinking = options.thinking,
                                   .start = settings.start});
  tracer.begin(runs, copies);
  ASSIGN_OR_RETURN(const bool is_read, prefill(settings, &runs));
  result.prefill_seconds = monotonic_seconds() - settings.start;
  if (!is_read) {
    store_cancelled(config, runs.size(), &result);
  } else if (is_beam_search(config)) {
    RETURN_IF_ERROR(run_beams(settings, &runs, &tracer, &result));
  } else {
    RETURN_IF_ERROR(run_samples(settings, &runs, &tracer, &result));
  }
  tracer.end(result);
  return result;
}

}  // namespace logitlab
