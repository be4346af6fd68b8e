// The processors without a model: rows of logits in, processed scores out, one JSON object each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/error.h"
#include "base/json.h"
#include "logitlab/generation_config.h"
#include "sampling/processor_chain.h"

namespace logitlab {

// One step of one sequence.
struct RowRequest {
  std::vector<TokenId> input_ids;      // prompt and generated tokens, inside the vocabulary
  int64_t prompt_length = 0;           // <= input_ids.size()
  std::vector<float> logits;           // [vocab_size], not empty
  std::vector<float> unguided_logits;  // [vocab_size], or empty: guidance_scale is refused
  GenerationConfig config;             // of the call
  GenerationConfig model_config;       // the model's defaults
  std::vector<std::string> ignored;    // what model_config asks for and is not a setting here
  // Length of prompt and answer at which the sequence ends; unset: what the settings say.
  std::optional<int64_t> max_length;
  std::optional<ThinkingIds> thinking;
};

// Reads {"logits" or "logits_base64", "input_ids", "prompt_length", "config", "model_config",
// "unguided_logits" or "unguided_logits_base64", "max_length", "thinking_ids", "id"}; all but the
// first may be absent. A number may be null or "-inf" (minus infinity), "inf" or "nan".
// kInvalidArgument names the key.
[[nodiscard]] Result<RowRequest> read_row_request(const Json& json);

struct ProcessedStage {
  std::string name;
  int64_t survivors = 0;      // scores that are not -inf
  std::string_view measure;   // what the threshold is; "none"
  double threshold = 0;       // of a filter; NaN when it has none
  std::vector<TokenId> kept;  // ids of the survivors, ascending; only when asked for
  // Ties at the cut, when the stage removed tokens: the entering score of its worst survivor, and
  // all ids that entered with exactly that score.
  double cut_score = 0;  // NaN when it removed nothing or left nothing
  std::vector<TokenId> tied_kept;
  std::vector<TokenId> tied_dropped;
};

struct ProcessedRow {
  std::vector<float> scores;  // [vocab_size]
  std::vector<ProcessedStage> stages;
  int64_t survivors = 0;
  std::vector<TokenId> logits_tied_at_max;  // ids with the largest logit that entered the chain
  std::vector<TokenId> scores_tied_at_max;
  TokenId greedy = 0;  // arg-max of the scores
  std::vector<std::string> warnings;
};

// What generate does with the row: settings merged and checked, logits rounded to logits_dtype,
// for num_beams > 1 made log-probabilities (a stage "log_softmax"), then the chain.
// kInvalidArgument as build_chain.
[[nodiscard]] Result<ProcessedRow> process_row(const RowRequest& request, bool wants_kept_ids);

enum class RowEncoding {
  kJson,    // an array of numbers; not finite: "-inf", "inf", "nan"
  kBase64,  // float32, little endian
};

struct AnswerOptions {
  RowEncoding encoding = RowEncoding::kJson;
  bool probabilities = true;
  bool kept_ids = false;
};

// The answer as one line of JSON without its line break; `id` is repeated as it came.
[[nodiscard]] std::string answer_line(const Json& id, const ProcessedRow& row,
                                      const AnswerOptions& options);
// {"id", "line", "error": {"code", "message"}}
[[nodiscard]] std::string error_line(const Json& id, int64_t line, const Error& error);

// One line of input to one line of output. `line` counts from 1.
struct LineAnswer {
  std::string text;
  bool is_error = false;
};
[[nodiscard]] LineAnswer process_line(std::string_view text, int64_t line,
                                      const AnswerOptions& options);

}  // namespace logitlab
