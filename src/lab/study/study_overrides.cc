#include "lab/study/study_overrides.h"

#include <array>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "lab/study/study_keys.h"
#include "sampling/field_values.h"

namespace logitlab {
namespace {

constexpr std::array<std::string_view, 4> kOwnNames = {"prompt", "base", "policy", "candidates"};

bool is_own(std::string_view name) {
  for (const std::string_view own : kOwnNames) {
    if (own == name) {
      return true;
    }
  }
  return false;
}

Status change_study(std::string_view name, std::string_view value, StudyChanges* changes) {
  const std::string quoted = quoted_json(std::string(value));
  if (name == "prompt") {
    if (value.empty() || first_invalid_utf8(value) != value.size()) {
      return fail(ErrorCode::kInvalidArgument, "prompt: {} found, want a text in UTF-8", quoted);
    }
    changes->prompt = std::string(value);
  } else if (name == "base") {
    if (!parse_value(value, &changes->seed_base.emplace())) {
      return fail(ErrorCode::kInvalidArgument, "base: {} found, want {}", quoted,
                  type_words(uint64_t{}).wanted);
    }
  } else if (name == "policy") {
    for (const SeedPolicy policy : kSeedPolicies) {
      if (value == logitlab::name(policy)) {
        changes->seed_policy = policy;
        return {};
      }
    }
    return fail(ErrorCode::kInvalidArgument, "policy: {} found, want shared or running", quoted);
  } else {
    int64_t& number = changes->n_candidates.emplace();
    if (!parse_value(value, &number) || number < 0 || number > kMostCandidates) {
      return fail(ErrorCode::kInvalidArgument,
                  "candidates: {} found, want a whole number from 0 to {}", quoted,
                  kMostCandidates);
    }
  }
  return {};
}

Status change_setting(std::string_view name, std::string_view value, StudyChanges* changes) {
  StudyChanges::Setting setting;
  std::set<std::string> met;
  while (true) {
    const size_t comma = has_single_values(name) ? value.find(',') : std::string_view::npos;
    ASSIGN_OR_RETURN(Knob knob, parse_knob(name, value.substr(0, comma)));
    if (!met.insert(knob.text).second) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} found twice, want it once", name, knob.text);
    }
    setting.values.push_back(std::move(knob));
    if (comma == std::string_view::npos) {
      break;
    }
    value.remove_prefix(comma + 1);
  }
  changes->settings.push_back(std::move(setting));
  return {};
}

Status read_word(std::string_view word, std::set<std::string>* met, StudyChanges* changes) {
  const size_t equals = word.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return fail(ErrorCode::kInvalidArgument,
                "no name and value found, want NAME=VALUE, as "
                "temperature=0.7 or top_k=1,5,50");
  }
  const std::string_view name = word.substr(0, equals);
  const std::string_view value = word.substr(equals + 1);
  if (!met->insert(std::string(name)).second) {
    return fail(ErrorCode::kInvalidArgument, "{}: given twice, want it once",
                quoted_json(std::string(name)));
  }
  if (is_own(name)) {
    return change_study(name, value, changes);
  }
  const std::vector<std::string_view> knobs = knob_names(KnobPlace::kAnywhere);
  if (name != "seed" && std::find(knobs.begin(), knobs.end(), name) == knobs.end()) {
    std::vector<std::string_view> names(kOwnNames.begin(), kOwnNames.end());
    names.insert(names.end(), knobs.begin(), knobs.end());
    return tl::unexpected(unknown_name(name, names, "nothing has this name"));
  }
  RETURN_IF_ERROR(change_setting(name, value, changes));
  changes->settings.back().word = std::string(word);
  return {};
}

}  // namespace

Result<StudyChanges> read_overrides(const StudyOverrides& overrides) {
  StudyChanges changes;
  std::set<std::string> met;
  for (const std::string& word : overrides.set) {
    const Status status = read_word(word, &met, &changes);
    if (!status) {
      return fail_at("--set " + quoted_json(word), status.error());
    }
  }
  if (overrides.runs && (*overrides.runs < 1 || *overrides.runs > kMostRuns)) {
    return fail(ErrorCode::kInvalidArgument, "--runs: {} found, want 1 to {}", *overrides.runs,
                kMostRuns);
  }
  changes.runs = overrides.runs;
  return changes;
}

}  // namespace logitlab
