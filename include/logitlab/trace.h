// What a run leaves behind: enough to say what happened inside every step, and to ask what other
// settings would have done, without the model. Probabilities are shares of 1, entropies in nats.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "logitlab/types.h"

namespace logitlab {

// Raised whenever a reader of the older version would misread a newer file.
inline constexpr int kTraceVersion = 1;

inline constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

// One setting as it held in the run.
struct LedgerEntry {
  std::string name;
  std::string value;   // as value_text writes it; "none" when unset
  std::string origin;  // "given", "model", "default", "template", "unset"
  bool acts = false;   // whether it can change anything in this run
  std::string why;     // one clause: why it acts or does not; may be empty
};

struct TracedStopId {
  TokenId id = 0;
  std::string origin;  // "given", "generation_config.json", "tokenizer.ggml.eos_token_id"
};

// What holds for the whole run: the first line of a file.
struct RunTrace {
  std::string model;        // name as the user knows it
  std::string model_hash;   // fingerprint of its files
  std::string device;       // "cpu"
  std::string isa;          // "AVX2"
  std::string build;        // version and commit
  std::string config_json;  // the effective settings, as JSON
  std::vector<LedgerEntry> ledger;
  std::vector<TracedStopId> stop_ids;
  std::vector<std::string> warnings;
  uint64_t seed = 0;
  int64_t vocab_size = 0;
  int64_t n_candidates = 0;  // M: at most so many candidates a step, besides the chosen token
  std::vector<std::vector<TokenId>> prompts;
  // Per sequence, in the order of their numbers: index into prompts.
  std::vector<int64_t> sequence_prompts;
  TokenId think_open = -1;  // -1: the model has no such token
  TokenId think_close = -1;
};

struct TracedCandidate {
  TokenId id = 0;
  float logit = 0;             // as it entered the processors
  float score = 0;             // after the last one; -inf: dropped
  double raw_probability = 0;  // softmax of the logits over the whole vocabulary
  double probability = 0;      // softmax of the scores: what the choice saw
  int32_t dropped_by = -1;     // index into stages; -1: it survived
  bool in_prompt = false;
  bool in_answer = false;  // generated before this step
};

// One processor of one step, over the whole vocabulary.
struct TracedStage {
  std::string name;       // "top_k"
  int64_t survivors = 0;  // scores above -inf
  double mass = 0;        // raw probability of the survivors
  std::string measure;    // what `threshold` is: "score", "probability", "mass", ...; "none"
  double threshold = kNoNumber;
  // Ties at the cut: the entering score of the worst survivor, how many survivors have exactly it,
  // and how many of those that this stage removed. Zeros when it removed nothing.
  double cut_score = kNoNumber;
  int64_t tied_kept = 0;
  int64_t tied_dropped = 0;
  // Tokens whose score the stage changed and that stay; of these, those in the prompt and those in
  // the answer alone. Counted for penalties and biases (-1 elsewhere).
  int64_t changed = -1;
  int64_t changed_in_prompt = -1;
  int64_t changed_in_answer = -1;
};

// One token of one sequence. Reused from step to step: its vectors keep their memory.
struct TracedStep {
  int64_t sequence = 0;
  int64_t step = 0;
  TokenId id = 0;  // chosen
  float logit = 0;
  float score = 0;
  double raw_probability = 0;
  double probability = 0;
  int64_t raw_rank = 0;         // 1 + number of tokens with a larger logit
  int64_t rank = 0;             // 1 + number of tokens with a larger score
  double raw_entropy = 0;       // of softmax(logits)
  double entropy = 0;           // of softmax(scores)
  double log_sum_exp = 0;       // of the logits
  double tail_log_sum_exp = 0;  // of the logits that are not among the candidates; -inf: none
  float largest_logit = 0;
  std::vector<TokenId> tied_at_max;  // ids with exactly the largest logit, ascending; the first 32
  int64_t n_tied_at_max = 1;
  // The draw: E of the chosen token (sampling/sampler.h), its score - log(E), and by how much that
  // is above the next best token's. NaN under greedy decoding.
  double draw = kNoNumber;
  double draw_key = kNoNumber;
  double draw_margin = kNoNumber;
  TokenId draw_runner_up = -1;
  uint64_t logits_hash = 0;  // hash_logits
  bool is_thinking = false;  // the token stands inside the model's thinking, its marks included
  std::vector<TracedStage> stages;
  // The M largest logits, largest first, the lower id first among equals; then the chosen token,
  // when it is not among them.
  std::vector<TracedCandidate> candidates;
  std::vector<float> logits;  // the whole row, when full rows were asked for
};

// One step of beam search for one prompt.
struct TracedBeam {
  TokenId id = 0;
  int64_t parent = 0;  // beam of the step before
  double score = 0;    // running: sum of log-probabilities; finished: with the length penalty
};
struct TracedBeamStep {
  int64_t prompt = 0;
  int64_t step = 0;
  std::vector<TracedBeam> candidates;  // all K, in the order of the choice
  std::vector<bool> candidate_stops;   // [K]
  std::vector<TracedBeam> running;     // [num_beams]
  std::vector<double> finished;        // scores of the finished hypotheses, best first
  bool improvable = true;
};

struct TracedSequence {
  int64_t sequence = 0;
  int64_t prompt = 0;
  std::vector<TokenId> ids;  // generated, the end token included
  std::string stop_reason;
  TokenId stop_id = -1;
  std::string stop_string;
  int64_t thinking_tokens = 0;
  int64_t answer_tokens = 0;
  double beam_score = kNoNumber;      // beam search: with the length penalty
  std::vector<int64_t> beam_indices;  // per generated token the beam it came from
};

// The last line of a file.
struct RunEnd {
  std::vector<TracedSequence> sequences;
  std::string beam_stop;  // why beam search ended; empty without beams
  double seconds = 0;
  // Text of every id that occurs, for readers without the tokenizer.
  std::vector<std::pair<TokenId, std::string>> pieces;
};

// Takes a run apart as it happens, in this order: begin, steps, end. One thread.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  virtual void begin(const RunTrace& run) = 0;
  virtual void step(const TracedStep& step) = 0;
  virtual void beam_step(const TracedBeamStep& step) = 0;
  virtual void end(const RunEnd& end) = 0;
};

}  // namespace logitlab
