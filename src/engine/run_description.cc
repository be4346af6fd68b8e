#include "engine/run_description.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "sampling/generation_fields.h"
#include "sampling/ledger.h"

namespace logitlab {

std::vector<TracedStopId> stop_ids_in_force(const EffectiveConfig& effective,
                                            const std::vector<StopId>& of_model) {
  std::vector<TracedStopId> stops;
  const bool is_given = effective.origin("eos_token_id") == Origin::kGiven;
  for (const TokenId id : effective.config.eos_token_id.value_or(TokenIds{})) {
    TracedStopId stop{.id = id, .origin = is_given ? "given" : "model"};
    for (const StopId& known : of_model) {
      if (known.id == id && !is_given) {
        stop.origin = known.origin;
      }
    }
    stops.push_back(std::move(stop));
  }
  return stops;
}

std::string not_applied(const std::string& setting) {
  return fmt::format("the model's generation_config.json asks for {}, which does not act here",
                     setting);
}

RunTrace describe_run(const Engine& engine, const EffectiveConfig& effective, int64_t n_prompts,
                      int64_t longest_prompt) {
  RunTrace run;
  run.device = std::string(engine.backend().name());
  run.isa = std::string(engine.backend().isa());
  run.config_json = dump_json(to_json(effective.config));
  run.warnings = generation_warnings(effective, engine.model().config().vocab_size);
  for (const std::string& setting : engine.ignored_defaults()) {
    run.warnings.push_back(not_applied(setting));
  }
  run.stop_ids = stop_ids_in_force(effective, engine.stop_ids());
  LedgerFacts facts;
  facts.n_prompts = n_prompts;
  facts.prompt_length = longest_prompt;
  facts.model_thinks = engine.thinking_ids().has_value();
  facts.stop_ids = run.stop_ids;
  run.ledger = settings_ledger(effective, facts);
  return run;
}

}  // namespace logitlab
