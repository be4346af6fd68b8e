#include "sampling/engine_semantics.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "sampling/field_values.h"
#include "sampling/processors/engine_filters.h"
#include "sampling/processors/min_p.h"
#include "sampling/processors/openai_penalties.h"
#include "sampling/processors/repetition_penalty.h"
#include "sampling/processors/temperature.h"
#include "sampling/processors/top_k.h"
#include "sampling/registry.h"

namespace logitlab {
namespace {

using Config = GenerationConfig;
using Options = ChainOptions;
using Made = Result<std::unique_ptr<LogitsProcessor>>;

struct EngineStage {
  std::string_view name;
  // Null: as the registry makes it.
  Made (*make)(const Config& effective, const Options& options) = nullptr;
};

Made make_exact_top_k(const Config& c, const Options& o) {
  return std::make_unique<TopK>(*c.top_k, o.min_tokens_to_keep, TopKTies::kCut);
}

// vLLM raises a smaller temperature than this to it, but for 0, which makes the request greedy: all
// filters of the draw are switched off then.
constexpr double kVllmLowestTemperature = 1e-2;

bool is_greedy(const Config& c) {
  return c.temperature == 0.0;
}

Made make_vllm_temperature(const Config& c, const Options&) {
  if (is_greedy(c)) {
    return std::make_unique<BestOnly>();
  }
  return std::make_unique<Temperature>(std::max(*c.temperature, kVllmLowestTemperature));
}
Made make_vllm_min_p(const Config& c, const Options& o) {
  if (is_greedy(c) || *c.min_p == 0) {
    return nullptr;
  }
  return std::make_unique<MinP>(*c.min_p, o.min_tokens_to_keep);
}
Made make_vllm_top_k(const Config& c, const Options& o) {
  return is_greedy(c) ? nullptr : make_exact_top_k(c, o);
}
Made make_descending_top_p(const Config& c, const Options& o) {
  return std::make_unique<DescendingTopP>(*c.top_p, o.min_tokens_to_keep);
}
Made make_vllm_top_p(const Config& c, const Options& o) {
  return is_greedy(c) ? nullptr : make_descending_top_p(c, o);
}

// llama.cpp's default of penalty_last_n.
constexpr int64_t kLlamaWindow = 64;

Made make_windowed_repetition(const Config& c, const Options&) {
  return std::make_unique<RepetitionPenalty>(*c.repetition_penalty, kLlamaWindow);
}
Made make_windowed_frequency(const Config& c, const Options&) {
  return std::make_unique<FrequencyPenalty>(*c.frequency_penalty, kLlamaWindow);
}
Made make_windowed_presence(const Config& c, const Options&) {
  return std::make_unique<PresencePenalty>(*c.presence_penalty, kLlamaWindow);
}
Made make_llama_typical(const Config& c, const Options& o) {
  return std::make_unique<StrictTypicalP>(*c.typical_p, o.min_tokens_to_keep);
}
Made make_llama_min_p(const Config& c, const Options& o) {
  if (*c.min_p == 0) {
    return nullptr;
  }
  return std::make_unique<LogitMinP>(*c.min_p, o.min_tokens_to_keep);
}
Made make_llama_temperature(const Config& c, const Options&) {
  if (is_greedy(c)) {
    return std::make_unique<BestOnly>();
  }
  return std::make_unique<Temperature>(*c.temperature);
}

constexpr std::array kVllm = {
    EngineStage{"bad_words_ids"},
    EngineStage{"min_new_tokens"},
    EngineStage{"logit_bias"},
    EngineStage{"repetition_penalty"},
    EngineStage{"frequency_penalty"},
    EngineStage{"presence_penalty"},
    EngineStage{"thinking_budget"},
    EngineStage{"temperature", make_vllm_temperature},
    EngineStage{"min_p", make_vllm_min_p},
    EngineStage{"top_k", make_vllm_top_k},
    EngineStage{"top_p", make_vllm_top_p},
};

constexpr std::array kLlamaCpp = {
    EngineStage{"thinking_budget"},
    EngineStage{"logit_bias"},
    EngineStage{"repetition_penalty", make_windowed_repetition},
    EngineStage{"frequency_penalty", make_windowed_frequency},
    EngineStage{"presence_penalty", make_windowed_presence},
    EngineStage{"top_k", make_exact_top_k},
    EngineStage{"typical_p", make_llama_typical},
    EngineStage{"top_p", make_descending_top_p},
    EngineStage{"min_p", make_llama_min_p},
    EngineStage{"temperature", make_llama_temperature},
};

bool is_wanted(const ProcessorSpec& spec, const Config& effective) {
  if (spec.slot == ProcessorSlot::kMinLength && effective.min_new_tokens) {
    return false;  // transformers' second stage for min_new_tokens, not a setting of its own
  }
  return (!spec.only_when_sampling || effective.do_sample.value_or(false)) &&
         spec.applies(effective);
}

std::string list_names(std::span<const EngineStage> stages) {
  std::string names;
  for (const EngineStage& stage : stages) {
    fmt::format_to(std::back_inserter(names), "{}{}", names.empty() ? "" : ", ", stage.name);
  }
  return names;
}

}  // namespace

Result<std::vector<std::unique_ptr<LogitsProcessor>>> make_engine_processors(
    const GenerationConfig& effective, const ChainOptions& options) {
  CHECK(effective.semantics && *effective.semantics != Semantics::kTransformers);
  const std::span<const EngineStage> stages = *effective.semantics == Semantics::kVllm
                                                  ? std::span<const EngineStage>(kVllm)
                                                  : std::span<const EngineStage>(kLlamaCpp);
  for (const ProcessorSpec& spec : processor_registry()) {
    if (is_wanted(spec, effective) &&
        std::ranges::find(stages, spec.name, &EngineStage::name) == stages.end()) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}: set with semantics={}, which has no such setting (it has {}); turn it off, "
                  "or set semantics to transformers",
                  spec.name, name(*effective.semantics), list_names(stages));
    }
  }
  std::vector<std::unique_ptr<LogitsProcessor>> processors;
  for (const EngineStage& stage : stages) {
    const auto registry = processor_registry();
    const auto spec = std::ranges::find(registry, stage.name, &ProcessorSpec::name);
    CHECK(spec != registry.end()) << stage.name;
    if (is_wanted(*spec, effective)) {
      ASSIGN_OR_RETURN(auto processor, stage.make != nullptr ? stage.make(effective, options)
                                                             : spec->make(effective, options));
      if (processor != nullptr) {
        processors.push_back(std::move(processor));
      }
    }
  }
  return processors;
}

}  // namespace logitlab
