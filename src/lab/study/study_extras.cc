#include "lab/study/study_extras.h"

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace logitlab {
namespace {

Json json_of(const Interval& interval) {
  return Json::array({interval.low, interval.high});
}

Json json_of(const ExactFigures& exact) {
  Json out = Json::object();
  out["prompt"] = exact.prompt_name;
  out["setting"] = exact.setting_name;
  out["mass"] = exact.mass;
  out["nodes"] = exact.nodes;
  out["texts"] = exact.texts;
  out["complete"] = exact.is_complete;
  out["same_text"] = json_of(exact.same_text);
  out["expected_distinct"] = Json::array();
  for (const auto& [runs, distinct] : exact.expected_distinct) {
    out["expected_distinct"].push_back({{"runs", runs}, {"distinct", json_of(distinct)}});
  }
  out["parted_by_step"] = Json::array();
  for (const Interval& interval : exact.parted_by_step) {
    out["parted_by_step"].push_back(json_of(interval));
  }
  out["likeliest"] = Json::array();
  for (const ExactFigures::Text& text : exact.likeliest) {
    out["likeliest"].push_back({{"probability", text.probability}, {"text", text.text}});
  }
  return out;
}

// Throws what nlohmann::json throws.
Interval interval_of(const Json& json) {
  return {json.at(0).get<double>(), json.at(1).get<double>()};
}

ExactFigures exact_of(const Json& json) {
  ExactFigures exact;
  json.at("prompt").get_to(exact.prompt_name);
  json.at("setting").get_to(exact.setting_name);
  json.at("mass").get_to(exact.mass);
  json.at("nodes").get_to(exact.nodes);
  json.at("texts").get_to(exact.texts);
  json.at("complete").get_to(exact.is_complete);
  exact.same_text = interval_of(json.at("same_text"));
  for (const Json& item : json.at("expected_distinct")) {
    exact.expected_distinct.emplace_back(item.at("runs").get<int64_t>(),
                                         interval_of(item.at("distinct")));
  }
  for (const Json& item : json.at("parted_by_step")) {
    exact.parted_by_step.push_back(interval_of(item));
  }
  for (const Json& item : json.at("likeliest")) {
    exact.likeliest.push_back(
        {item.at("probability").get<double>(), item.at("text").get<std::string>()});
  }
  return exact;
}

StudyExtras extras_of(const Json& json) {
  StudyExtras extras;
  for (const Json& item : json.at("exact")) {
    extras.exact.push_back(exact_of(item));
  }
  if (const Json& cache = json.at("cache"); !cache.is_null()) {
    CacheFigures figures;
    cache.at("prompt_tokens").get_to(figures.prompt_tokens);
    cache.at("cached_seconds").get_to(figures.cached_seconds);
    cache.at("uncached_seconds").get_to(figures.uncached_seconds);
    cache.at("same_tokens").get_to(figures.same_tokens);
    extras.cache = std::move(figures);
  }
  return extras;
}

}  // namespace

std::string to_json_text(const StudyExtras& extras) {
  Json out = Json::object();
  out["exact"] = Json::array();
  for (const ExactFigures& exact : extras.exact) {
    out["exact"].push_back(json_of(exact));
  }
  out["cache"] = nullptr;
  if (extras.cache) {
    out["cache"] = {{"prompt_tokens", extras.cache->prompt_tokens},
                    {"cached_seconds", extras.cache->cached_seconds},
                    {"uncached_seconds", extras.cache->uncached_seconds},
                    {"same_tokens", extras.cache->same_tokens}};
  }
  return dump_json(out);
}

Result<StudyExtras> parse_study_extras(std::string_view text) {
  if (text.empty()) {
    return StudyExtras{};
  }
  auto json = parse_json(text, "extras of the study");
  if (!json) {
    return fail(ErrorCode::kDataLoss, "{}", json.error().message);
  }
  try {
    return extras_of(*json);
  } catch (const nlohmann::json::exception& problem) {
    return fail(ErrorCode::kDataLoss, "extras of the study: {}; want what `study` writes",
                problem.what());
  }
}

}  // namespace logitlab
