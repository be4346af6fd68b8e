#include "run_json.h"

#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace logitlab {
namespace {

// An object; what is none (an empty text) becomes an empty one.
Json object_of(const std::string& text) {
  auto json = parse_json(text, "settings");
  return json && json->is_object() ? std::move(*json) : Json::object();
}

std::string value_of(const Json& settings, const std::string& name) {
  return settings.contains(name) ? dump_json(settings[name]) : "unset";
}

void add_differences(const std::string& first_text, const std::string& second_text,
                     std::vector<std::string>* out) {
  const Json first = object_of(first_text);
  const Json second = object_of(second_text);
  std::set<std::string> names;
  for (const Json* one : {&first, &second}) {
    for (const auto& item : one->items()) {
      names.insert(item.key());
    }
  }
  for (const std::string& name : names) {
    const std::string before = value_of(first, name);
    const std::string after = value_of(second, name);
    if (before != after) {
      out->push_back(fmt::format("{}: {} -> {}", name, before, after));
    }
  }
}

}  // namespace

Result<std::unique_ptr<Store>> open_to_read(const StoreOptions& options) {
  return Store::open(options.path.empty() ? default_store_path() : options.path, StoreMode::kRead);
}

Json json_of(const RunRecord& run) {
  Json out = Json::object();
  out["run"] = run.id;
  out["study"] = run.study == 0 ? Json() : Json(run.study);
  out["index"] = run.index;
  out["prompt_name"] = run.prompt_name;
  out["setting_name"] = run.setting_name;
  out["repetition"] = run.run;
  out["seed"] = run.seed;
  out["is_control"] = run.is_control;
  out["settings"] = object_of(run.config_json);
  out["execution"] = object_of(run.execution_json);
  out["prompt_ids"] = run.prompt_ids;
  out["ids"] = run.ids;
  out["text"] = run.text;
  out["stop_reason"] = run.stop_reason;
  out["stop_id"] = run.stop_id < 0 ? Json() : Json(run.stop_id);
  out["thinking_tokens"] = run.thinking_tokens;
  out["answer_tokens"] = run.answer_tokens;
  out["logits_hash"] = fmt::format("{:016x}", run.hash);
  out["seconds"] = run.seconds;
  out["trace_bytes"] = run.trace_bytes;
  return out;
}

Json json_of(const StudyRecord& study) {
  Json out = Json::object();
  out["study"] = study.id;
  out["parent"] = study.parent == 0 ? Json() : Json(study.parent);
  out["name"] = study.name;
  out["created"] = study.created;
  out["status"] = study.status;
  out["runs"] = study.n_runs;
  out["overrides"] = study.overrides;
  out["model"] = study.origin.model;
  out["model_hash"] = study.origin.model_hash;
  out["device"] = study.origin.device;
  out["isa"] = study.origin.isa;
  out["threads"] = study.origin.threads;
  out["build"] = study.origin.build;
  out["command"] = study.origin.command;
  const StudyTotals& totals = study.totals;
  Json sums = Json::object();
  sums["prompt_tokens_asked"] = totals.prompt_tokens_asked;
  sums["new_tokens_asked"] = totals.new_tokens_asked;
  sums["prefill_tokens"] = totals.prefill_tokens;
  sums["decode_rows"] = totals.decode_rows;
  sums["replayed_rows"] = totals.replayed_rows;
  sums["forward_passes"] = totals.forward_passes;
  sums["peak_state_bytes"] = totals.peak_state_bytes;
  sums["prefill_seconds"] = totals.prefill_seconds;
  sums["seconds"] = totals.seconds;
  sums["peak_memory_bytes"] = totals.peak_memory_bytes;
  out["totals"] = std::move(sums);
  out["source"] = study.source;
  out["reading"] = study.reading;
  return out;
}

std::vector<std::string> setting_differences(const RunRecord& first, const RunRecord& second) {
  std::vector<std::string> out;
  // The settings hold the seed where the run was given one of its own.
  if (first.seed != second.seed && value_of(object_of(first.config_json), "seed") ==
                                       value_of(object_of(second.config_json), "seed")) {
    out.push_back(fmt::format("seed: {} -> {}", first.seed, second.seed));
  }
  add_differences(first.config_json, second.config_json, &out);
  add_differences(first.execution_json, second.execution_json, &out);
  return out;
}

}  // namespace logitlab
