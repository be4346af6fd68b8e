#include "lab/study/study.h"

#include "sampling/effective_config.h"

namespace logitlab {

std::string_view name(SeedPolicy policy) {
  return policy == SeedPolicy::kShared ? "shared" : "running";
}

std::string_view name(MeasureKind kind) {
  switch (kind) {
    case MeasureKind::kTexts:
      return "texts";
    case MeasureKind::kCandidates:
      return "candidates";
    case MeasureKind::kThinking:
      return "thinking";
    case MeasureKind::kDivergence:
      return "divergence";
    case MeasureKind::kHashes:
      return "hashes";
    case MeasureKind::kNextToken:
      return "next-token";
    case MeasureKind::kBeams:
      return "beams";
    case MeasureKind::kPenalties:
      return "penalties";
    case MeasureKind::kStops:
      return "stops";
    case MeasureKind::kCache:
      return "cache";
  }
  return "";
}

std::vector<PlannedRun> plan_runs(const Study& study) {
  std::vector<PlannedRun> plan;
  for (size_t p = 0; p < study.prompts.size(); ++p) {
    for (size_t s = 0; s < study.settings.size(); ++s) {
      const StudySetting& setting = study.settings[s];
      if (setting.prompt && *setting.prompt != study.prompts[p].name) {
        continue;
      }
      for (int64_t run = 0; run < setting.runs; ++run) {
        const auto index = static_cast<int64_t>(plan.size());
        const auto r = static_cast<size_t>(run);
        const auto offset =
            static_cast<uint64_t>(study.seed_policy == SeedPolicy::kShared ? run : index);
        const uint64_t seed =
            r < setting.seeds.size() ? setting.seeds[r] : study.seed_base + offset;
        plan.push_back({index, p, s, run, seed});
      }
    }
  }
  return plan;
}

int64_t new_tokens_at_most(const Study& study) {
  int64_t sum = 0;
  for (const PlannedRun& run : plan_runs(study)) {
    sum += study.settings[run.setting].config.max_new_tokens.value_or(kDefaultNewTokens);
  }
  return sum;
}

}  // namespace logitlab
