// The names that a study file may hold, place by place. docs/study.schema.json lists the same; a
// test compares them.
#pragma once

#include <array>
#include <string_view>

#include "lab/study/study.h"

namespace logitlab {

inline constexpr std::array<std::string_view, 22> kStudyKeys = {
    "name",      "title",      "question",          "expect", "reading",  "notes",
    "prompt",    "prompts",    "messages",          "chat",   "thinking", "settings",
    "execution", "sweep",      "variants",          "runs",   "seeds",    "measures",
    "exact",     "candidates", "published_jaccard", "studies"};
// All that a course may hold.
inline constexpr std::array<std::string_view, 7> kCourseKeys = {
    "name", "title", "question", "expect", "reading", "notes", "studies"};
inline constexpr std::array<std::string_view, 8> kVariantKeys = {
    "name", "settings", "runs", "seeds", "execution", "thinking", "prompt", "control"};
inline constexpr std::array<std::string_view, 4> kPromptKeys = {"name", "text", "messages", "chat"};
inline constexpr std::array<std::string_view, 2> kMessageKeys = {"role", "content"};
inline constexpr std::array<std::string_view, 2> kSeedsKeys = {"policy", "base"};
inline constexpr std::array<std::string_view, 2> kExactKeys = {"mass", "max_nodes"};
inline constexpr std::array<std::string_view, 3> kExecutionKeys = {"threads", "prefill_chunk",
                                                                   "neighbours"};

inline constexpr std::array kSeedPolicies = {SeedPolicy::kShared, SeedPolicy::kRunning};
inline constexpr std::array kMeasureKinds = {MeasureKind::kTexts,    MeasureKind::kCandidates,
                                             MeasureKind::kThinking, MeasureKind::kDivergence,
                                             MeasureKind::kHashes,   MeasureKind::kNextToken,
                                             MeasureKind::kBeams,    MeasureKind::kPenalties,
                                             MeasureKind::kStops,    MeasureKind::kCache};

// Ranges that the schema repeats.
inline constexpr int kMostThreads = 1'024;
inline constexpr int64_t kMostPrefillChunk = 1'000'000;
inline constexpr int64_t kMostNeighbours = 64;
inline constexpr int64_t kMostCandidates = 1'000;
inline constexpr int64_t kMostNodes = 1'000'000;

}  // namespace logitlab
