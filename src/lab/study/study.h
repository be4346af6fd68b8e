// A study: one question, the runs that shall answer it, and what was expected of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "logitlab/generation_config.h"
#include "logitlab/types.h"

namespace logitlab {

struct StudyMessage {
  std::string role;  // "user"
  std::string content;
};

// One prompt: a text or messages.
struct StudyPrompt {
  std::string name;                    // unique in its study
  std::string text;                    // empty when there are messages
  std::vector<StudyMessage> messages;  // empty when there is a text
  // The text goes through the chat template as one user message. false: tokenized as it is.
  bool is_chat = true;
};

// How a run is executed, where that is what a study asks about: none of it may change a token.
struct Execution {
  std::optional<int> threads;            // >= 1; none: the engine's
  std::optional<int64_t> prefill_chunk;  // >= 1; none: the engine's
  int64_t neighbours = 0;                // other sequences in the batch, 0 to 64
  [[nodiscard]] bool is_default() const { return !threads && !prefill_chunk && neighbours == 0; }
  bool operator==(const Execution&) const = default;
};

// One setting of a sweep as people read it: ("temperature", "0.7").
using SweptValue = std::pair<std::string, std::string>;

struct StudySetting {
  std::string name;               // unique in its study: "temperature=0.7", or as the file names it
  std::vector<SweptValue> swept;  // what tells it from its neighbours; empty for a named setting
  GenerationConfig config;        // the study's settings with its own over them; no seed
  Execution execution;
  std::optional<std::string> prompt;    // its only prompt; none: all of the study
  std::optional<bool> enable_thinking;  // given to the chat template; none: the template's default
  std::vector<uint64_t> seeds;          // one per run; empty: as the study's policy says
  int64_t runs = 0;                     // >= 1
  bool is_control = false;              // compared with all others, not with its neighbours
};

enum class SeedPolicy {
  kShared,   // run r of every setting has the seed base + r: the same draws everywhere
  kRunning,  // a counter that runs on across the settings: base + number of runs before
};
[[nodiscard]] std::string_view name(SeedPolicy policy);  // "shared", "running"

// What a study is asked for besides the texts. "cache" times decoding with and without the cache
// instead of comparing texts.
enum class MeasureKind {
  kTexts,       // unique outputs, Jaccard of words, lengths, stop reasons
  kCandidates,  // survivors of the filters per step
  kThinking,    // thinking and answer tokens
  kDivergence,  // where and why runs differ
  kHashes,      // logits hash of every step, side by side
  kNextToken,   // the likeliest next tokens at step 0
  kBeams,       // lineage, scores, why the search ended
  kPenalties,   // what penalties and bans changed
  kStops,       // stop ids in force and what each stopped
  kCache,       // cost of a step with and without the cache
};
[[nodiscard]] std::string_view name(MeasureKind kind);  // "texts", "candidates", ...

struct ExactRequest {
  double mass = 0.95;         // 0 < mass <= 1
  int64_t max_nodes = 2'000;  // 1 to 1,000,000
};

struct Study {
  std::string name;  // [a-z0-9-]+
  std::string title;
  std::string question;                // one sentence
  std::string expectation;             // written before the run; may be empty
  std::string reading;                 // written afterwards; may be empty
  std::string notes;                   // method and limits; may be empty
  std::vector<StudyPrompt> prompts;    // at least one, unless it is a course
  std::vector<StudySetting> settings;  // in the order of the file; a sweep in row-major order
  SeedPolicy seed_policy = SeedPolicy::kShared;
  uint64_t seed_base = 1234;
  std::vector<MeasureKind> measures;
  std::optional<ExactRequest> exact;  // compute the tree of continuations beside the samples
  int64_t n_candidates = 10;          // M of the traces, 0 to 1000
  bool published_jaccard = false;     // also the figure that counts every text against itself
  std::vector<std::string> studies;   // a course: names of studies to run in order; else empty
  std::string source;                 // the file's text

  [[nodiscard]] bool is_course() const { return !studies.empty(); }
};

// One run that a study asks for, in the order of the study: prompts outermost, then settings, then
// runs.
struct PlannedRun {
  int64_t index = 0;  // in the study
  size_t prompt = 0;  // into Study::prompts
  size_t setting = 0;
  int64_t run = 0;  // of its setting and prompt, from 0
  uint64_t seed = 0;
};
[[nodiscard]] std::vector<PlannedRun> plan_runs(const Study& study);
// Of all runs, by their max_new_tokens (20 where a setting has none). Beams count once.
[[nodiscard]] int64_t new_tokens_at_most(const Study& study);

}  // namespace logitlab
