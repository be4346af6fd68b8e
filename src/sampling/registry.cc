#include "sampling/registry.h"

#include <array>
#include <utility>

#include "sampling/processors/min_new_tokens.h"
#include "sampling/processors/min_p.h"
#include "sampling/processors/temperature.h"
#include "sampling/processors/top_k.h"
#include "sampling/processors/top_p.h"

namespace logitlab {
namespace {

using Config = GenerationConfig;
using Options = ChainOptions;
using Made = Result<std::unique_ptr<LogitsProcessor>>;

template <typename Processor, typename... Args>
Made made(Args&&... args) {
  return std::make_unique<Processor>(std::forward<Args>(args)...);
}

bool wants_min_new_tokens(const Config& c) {
  return c.min_new_tokens.value_or(0) > 0 && c.eos_token_id && !c.eos_token_id->empty();
}
Made make_min_new_tokens(const Config& c, const Options&) {
  return made<MinNewTokens>(*c.min_new_tokens, *c.eos_token_id);
}

bool wants_temperature(const Config& c) {
  return c.temperature.value_or(1.0) != 1.0;
}
Made make_temperature(const Config& c, const Options&) {
  return made<Temperature>(*c.temperature);
}

bool wants_top_k(const Config& c) {
  return c.top_k.value_or(0) != 0;
}
Made make_top_k(const Config& c, const Options& o) {
  return made<TopK>(*c.top_k, o.min_tokens_to_keep);
}

bool wants_top_p(const Config& c) {
  return c.top_p.value_or(1.0) < 1.0;
}
Made make_top_p(const Config& c, const Options& o) {
  return made<TopP>(*c.top_p, o.min_tokens_to_keep);
}

// Also for 0, which removes nothing: so it is in transformers.
bool wants_min_p(const Config& c) {
  return c.min_p.has_value();
}
Made make_min_p(const Config& c, const Options& o) {
  return made<MinP>(*c.min_p, o.min_tokens_to_keep);
}

constexpr bool kAlways = false;
constexpr bool kSampling = true;

constexpr std::array kRegistry = {
    ProcessorSpec{ProcessorSlot::kMinNewTokens, "min_new_tokens", kAlways, wants_min_new_tokens,
                  make_min_new_tokens},
    ProcessorSpec{ProcessorSlot::kTemperature, "temperature", kSampling, wants_temperature,
                  make_temperature},
    ProcessorSpec{ProcessorSlot::kTopK, "top_k", kSampling, wants_top_k, make_top_k},
    ProcessorSpec{ProcessorSlot::kTopP, "top_p", kSampling, wants_top_p, make_top_p},
    ProcessorSpec{ProcessorSlot::kMinP, "min_p", kSampling, wants_min_p, make_min_p},
};

}  // namespace

std::span<const ProcessorSpec> processor_registry() {
  return kRegistry;
}

}  // namespace logitlab
