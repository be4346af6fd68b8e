#include "lab/measures/cache_cost.h"

#include <algorithm>
#include <numeric>

#include "base/env.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

Error stopped() {
  return {ErrorCode::kCancelled, "stopped by the user"};
}

bool is_cancelled(const CacheCostOptions& options) {
  return options.is_cancelled && options.is_cancelled();
}

// `ids`: where the generated ids go; may be null.
Result<StepSeconds> cached_run(Engine* engine, std::span<const TokenId> prompt,
                               const CacheCostOptions& options, std::vector<TokenId>* ids) {
  GenerationConfig config;
  config.do_sample = false;
  config.eos_token_id = std::vector<TokenId>{};
  config.max_new_tokens = options.new_tokens + 1;
  config.min_new_tokens = 0;
  StepSeconds ends;
  GenerateOptions generate;
  generate.is_cancelled = options.is_cancelled;
  generate.on_step = [&ends](const StepEvent& /*event*/) {
    ends.push_back(monotonic_seconds());
    return true;
  };
  ASSIGN_OR_RETURN(const GenerationResult result, engine->generate(prompt, config, generate));
  if (result.first().stop_reason == StopReason::kCancelled) {
    return tl::unexpected<Error>(stopped());
  }
  if (ids != nullptr) {
    ids->insert(ids->end(), result.first().ids.begin(), result.first().ids.end());
  }
  std::adjacent_difference(ends.begin(), ends.end(), ends.begin());
  ends.erase(ends.begin());
  return ends;
}

// The prefixes are the cached run's, so that both do the same work even where rounding would lead
// them apart.
Result<StepSeconds> uncached_run(Engine* engine, const CacheCostOptions& options, CacheCost* cost) {
  StepSeconds seconds;
  for (size_t step = 0; step < cost->n_steps(); ++step) {
    if (is_cancelled(options)) {
      return tl::unexpected<Error>(stopped());
    }
    const size_t length = cost->length(step);
    const double start = monotonic_seconds();
    ASSIGN_OR_RETURN(const Logits logits,
                     engine->logits(std::span(cost->ids).first(length), false));
    const TokenId id = arg_max(logits.values);
    seconds.push_back(monotonic_seconds() - start);
    cost->n_same += id == cost->ids[length] ? 1 : 0;
    if (options.on_step) {
      options.on_step(step + 1, cost->n_steps());
    }
  }
  return seconds;
}

}  // namespace

Result<CacheCost> measure_cache_cost(Engine* engine, std::span<const TokenId> prompt,
                                     const CacheCostOptions& options) {
  CacheCost cost;
  cost.ids.assign(prompt.begin(), prompt.end());
  cost.n_prompt = prompt.size();
  // Gives the ids, and touches all weights once before anything is timed.
  RETURN_IF_ERROR(cached_run(engine, prompt, options, &cost.ids));
  for (int rep = 0; rep < options.reps; ++rep) {
    // The order changes, so that a machine that becomes slower or faster favours neither side.
    for (int turn = 0; turn < 2; ++turn) {
      if ((turn + rep) % 2 == 0) {
        ASSIGN_OR_RETURN(cost.cached.emplace_back(), cached_run(engine, prompt, options, nullptr));
      } else {
        ASSIGN_OR_RETURN(cost.uncached.emplace_back(), uncached_run(engine, options, &cost));
      }
    }
  }
  return cost;
}

StepSeconds median_steps(std::span<const StepSeconds> runs) {
  StepSeconds medians;
  for (size_t step = 0; step < runs.front().size(); ++step) {
    std::vector<double> values;
    for (const StepSeconds& run : runs) {
      values.push_back(run[step]);
    }
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    medians.push_back(values.size() % 2 == 1 ? values[half]
                                             : (values[half - 1] + values[half]) / 2);
  }
  return medians;
}

}  // namespace logitlab
