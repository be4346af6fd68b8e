#include "engine/process_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/utf8.h"
#include "sampling/distribution.h"
#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"
#include "sampling/logits_dtype.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

static_assert(std::endian::native == std::endian::little, "rows travel as they lie in memory");

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// New tokens that no run reaches; any limit is cut to it, so that lengths can be added.
constexpr int64_t kEndless = int64_t{1} << 60;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

constexpr std::string_view kKeys[] = {"id",
                                      "input_ids",
                                      "prompt_length",
                                      "logits",
                                      "logits_base64",
                                      "unguided_logits",
                                      "unguided_logits_base64",
                                      "config",
                                      "model_config",
                                      "max_length",
                                      "thinking_ids"};

Status check_keys(const Json& json) {
  if (!json.is_object()) {
    return fail(ErrorCode::kInvalidArgument,
                "{} found, want an object with \"logits\", \"input_ids\" and \"config\"",
                json.type_name());
  }
  for (const auto& item : json.items()) {
    if (std::ranges::find(kKeys, item.key()) == std::end(kKeys)) {
      std::string keys;
      for (const std::string_view key : kKeys) {
        keys += (keys.empty() ? "" : ", ") + std::string(key);
      }
      return fail(ErrorCode::kInvalidArgument, "{}: no key has this name; the keys are {}",
                  printable(item.key().substr(0, 60)), keys);
    }
  }
  return {};
}

// False: not a score.
bool read_score(const Json& value, float* score) {
  if (value.is_null()) {
    *score = kMinusInfinity;
    return true;
  }
  if (value.is_string()) {
    const auto& word = value.get_ref<const std::string&>();
    *score = word == "-inf"  ? kMinusInfinity
             : word == "inf" ? -kMinusInfinity
                             : std::numeric_limits<float>::quiet_NaN();
    return word == "-inf" || word == "inf" || word == "nan";
  }
  if (!value.is_number()) {
    return false;
  }
  const auto number = value.get<double>();
  *score = static_cast<float>(number);
  return std::isinf(number) || !std::isinf(*score);
}

Result<std::vector<float>> read_numbers(const Json& value, std::string_view key) {
  if (!value.is_array()) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} found, want an array of numbers", key,
                quoted_json(value));
  }
  std::vector<float> row(value.size());
  for (size_t i = 0; i < row.size(); ++i) {
    if (!read_score(value[i], &row[i])) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}[{}]: {} found, want a float32 number, null or \"-inf\" (minus infinity), "
                  "\"inf\" or \"nan\"",
                  key, i, quoted_json(value[i]));
    }
  }
  return row;
}

Result<std::vector<float>> read_base64(const Json& value, std::string_view key) {
  if (!value.is_string()) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} found, want a string of base64", key,
                quoted_json(value));
  }
  ASSIGN_OR_RETURN(const std::vector<std::byte> bytes,
                   decode_base64(value.get_ref<const std::string&>(), key));
  if (bytes.size() % sizeof(float) != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: {} bytes found, want a multiple of 4: little-endian float32", key,
                bytes.size());
  }
  std::vector<float> row(bytes.size() / sizeof(float));
  if (!row.empty()) {
    std::memcpy(row.data(), bytes.data(), bytes.size());
  }
  return row;
}

// The row under `name` or `name`_base64; empty when there is neither.
Result<std::vector<float>> read_row(const Json& json, const std::string& name) {
  const std::string coded = name + "_base64";
  if (json.contains(name) && json.contains(coded)) {
    return fail(ErrorCode::kInvalidArgument, "{} and {} were given; want one of them", name, coded);
  }
  if (json.contains(name)) {
    return read_numbers(json[name], name);
  }
  if (json.contains(coded)) {
    return read_base64(json[coded], coded);
  }
  return std::vector<float>();
}

Result<std::optional<int64_t>> read_count(const Json& json, const char* key) {
  if (!json.contains(key) || json[key].is_null()) {
    return std::optional<int64_t>();
  }
  int64_t count = 0;
  if (!read_value(json[key], &count) || count < 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} found, want a whole number >= 0", key,
                quoted_json(json[key]));
  }
  return std::optional<int64_t>(count);
}

Status read_ids(const Json& json, int64_t vocab_size, RowRequest* request) {
  if (json.contains("input_ids")) {
    const Json& ids = json["input_ids"];
    if (!ids.is_array()) {
      return fail(ErrorCode::kInvalidArgument, "input_ids: {} found, want a list of token ids",
                  quoted_json(ids));
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      TokenId id = 0;
      if (!read_value(ids[i], &id) || id < 0 || id >= vocab_size) {
        return fail(ErrorCode::kInvalidArgument, "input_ids[{}]: {} found, want an id from 0 to {}",
                    i, quoted_json(ids[i]), vocab_size - 1);
      }
      request->input_ids.push_back(id);
    }
  }
  const auto length = static_cast<int64_t>(request->input_ids.size());
  ASSIGN_OR_RETURN(const auto prompt_length, read_count(json, "prompt_length"));
  request->prompt_length = prompt_length.value_or(length);
  if (request->prompt_length > length) {
    return fail(ErrorCode::kInvalidArgument,
                "prompt_length: {} found, want at most {}: the length of input_ids",
                request->prompt_length, length);
  }
  if (json.contains("thinking_ids") && !json["thinking_ids"].is_null()) {
    const Json& pair = json["thinking_ids"];
    ThinkingIds ids;
    if (!pair.is_array() || pair.size() != 2 || !read_value(pair[0], &ids.open) ||
        !read_value(pair[1], &ids.close) || std::min(ids.open, ids.close) < 0 ||
        std::max(ids.open, ids.close) >= vocab_size) {
      return fail(ErrorCode::kInvalidArgument,
                  "thinking_ids: {} found, want [open, close]: two ids from 0 to {}",
                  quoted_json(pair), vocab_size - 1);
    }
    request->thinking = ids;
  }
  return {};
}

std::vector<TokenId> tied_at_max(std::span<const float> row) {
  // NaN ranks above all numbers, as in the arg-max.
  const float largest = row[static_cast<size_t>(arg_max(row))];
  std::vector<TokenId> ids;
  for (size_t i = 0; i < row.size(); ++i) {
    if (row[i] == largest || (std::isnan(largest) && std::isnan(row[i]))) {
      ids.push_back(static_cast<TokenId>(i));
    }
  }
  return ids;
}

int64_t count_survivors(std::span<const float> scores) {
  return std::ranges::count_if(scores, [](float score) { return score != kMinusInfinity; });
}

// Describes each stage by the scores before and after it.
class StageRecorder final : public StageObserver {
 public:
  StageRecorder(std::span<const float> scores, bool wants_kept_ids)
      : before_(scores.begin(), scores.end()), wants_kept_ids_(wants_kept_ids) {}

  void after_stage(int64_t /*stage*/, const LogitsProcessor& processor,
                   std::span<const float> scores) override {
    ProcessedStage stage;
    stage.name = processor.name();
    stage.measure = name(processor.cut().measure);
    stage.threshold = processor.cut().threshold;
    add(std::move(stage), scores);
  }

  void add(ProcessedStage stage, std::span<const float> scores) {
    stage.survivors = count_survivors(scores);
    if (wants_kept_ids_) {
      for (size_t i = 0; i < scores.size(); ++i) {
        if (scores[i] != kMinusInfinity) {
          stage.kept.push_back(static_cast<TokenId>(i));
        }
      }
    }
    find_ties(scores, &stage);
    before_.assign(scores.begin(), scores.end());
    stages_.push_back(std::move(stage));
  }

  [[nodiscard]] std::vector<ProcessedStage>& stages() { return stages_; }

 private:
  void find_ties(std::span<const float> scores, ProcessedStage* stage) const {
    stage->cut_score = kNone;
    bool has_removed = false;
    float worst = std::numeric_limits<float>::quiet_NaN();
    for (size_t i = 0; i < scores.size(); ++i) {
      if (scores[i] == kMinusInfinity) {
        has_removed = has_removed || before_[i] != kMinusInfinity;
      } else if (!(before_[i] >= worst)) {
        worst = before_[i];
      }
    }
    if (!has_removed || std::isnan(worst)) {
      return;
    }
    stage->cut_score = static_cast<double>(worst);
    for (size_t i = 0; i < scores.size(); ++i) {
      if (before_[i] == worst) {
        (scores[i] == kMinusInfinity ? stage->tied_dropped : stage->tied_kept)
            .push_back(static_cast<TokenId>(i));
      }
    }
  }

  std::vector<float> before_;
  bool wants_kept_ids_;
  std::vector<ProcessedStage> stages_;
};

class GivenRow final : public GuidanceSource {
 public:
  explicit GivenRow(std::vector<float> row) : row_(std::move(row)) {}
  [[nodiscard]] std::span<const float> unguided_logits(const SequenceView& /*sequence*/) override {
    return row_;
  }

 private:
  std::vector<float> row_;
};

void log_softmax(std::span<float> scores) {
  const double total = log_sum_exp(scores);
  for (float& score : scores) {
    score = static_cast<float>(static_cast<double>(score) - total);
  }
}

// Beam sampling must leave a token that does not end the answer: transformers keeps one more than
// there are end tokens, at least two.
int64_t min_tokens_to_keep(const GenerationConfig& config) {
  if (config.num_beams.value_or(1) <= 1) {
    return 1;
  }
  const auto n_ends = static_cast<int64_t>(config.eos_token_id.value_or(TokenIds{}).size());
  return std::max<int64_t>(n_ends + 1, 2);
}

}  // namespace

Result<RowRequest> read_row_request(const Json& json) {
  RETURN_IF_ERROR(check_keys(json));
  RowRequest request;
  ASSIGN_OR_RETURN(request.logits, read_row(json, "logits"));
  if (request.logits.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "logits: none found, want one number for every token of the vocabulary");
  }
  if (request.logits.size() > static_cast<size_t>(std::numeric_limits<TokenId>::max())) {
    return fail(ErrorCode::kInvalidArgument, "logits: {} found, want at most {}",
                request.logits.size(), std::numeric_limits<TokenId>::max());
  }
  const auto vocab_size = static_cast<int64_t>(request.logits.size());
  ASSIGN_OR_RETURN(request.unguided_logits, read_row(json, "unguided_logits"));
  if (!request.unguided_logits.empty() && request.unguided_logits.size() != request.logits.size()) {
    return fail(ErrorCode::kInvalidArgument, "unguided_logits: {} numbers found, want {} as logits",
                request.unguided_logits.size(), vocab_size);
  }
  RETURN_IF_ERROR(read_ids(json, vocab_size, &request));
  ASSIGN_OR_RETURN(request.max_length, read_count(json, "max_length"));
  if (json.contains("config")) {
    ASSIGN_OR_RETURN(ParsedConfig parsed,
                     generation_config_from_json(json["config"], "config", UnknownKeys::kRefuse));
    request.config = std::move(parsed.config);
  }
  if (json.contains("model_config")) {
    ASSIGN_OR_RETURN(
        ParsedConfig parsed,
        generation_config_from_json(json["model_config"], "model_config", UnknownKeys::kIgnore));
    request.model_config = std::move(parsed.config);
    request.ignored = std::move(parsed.ignored);
  }
  return request;
}

Result<ProcessedRow> process_row(const RowRequest& request, bool wants_kept_ids) {
  const EffectiveConfig effective = merge_generation_config(request.config, request.model_config);
  const GenerationConfig& config = effective.config;
  RETURN_IF_ERROR(validate_generation_config(config));
  ChainOptions options;
  options.vocab_size = static_cast<int64_t>(request.logits.size());
  options.min_tokens_to_keep = min_tokens_to_keep(config);
  options.prompt_length = request.prompt_length;
  options.max_length = request.max_length;
  options.thinking = request.thinking;
  if (!options.max_length) {
    ASSIGN_OR_RETURN(const Lengths lengths,
                     resolve_lengths(config, request.prompt_length, std::nullopt));
    options.max_length = request.prompt_length + std::min(lengths.max_new_tokens, kEndless);
  }
  if (config.guidance_scale.value_or(1.0) != 1.0 && request.unguided_logits.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "guidance_scale: {} found without unguided_logits; add the row that the model "
                "gives for the unguided sequence",
                *config.guidance_scale);
  }
  const LogitsDtype dtype = config.logits_dtype.value_or(LogitsDtype::kFloat32);
  ProcessedRow row;
  row.scores = request.logits;
  round_logits(row.scores, dtype);
  std::vector<float> unguided = request.unguided_logits;
  round_logits(unguided, dtype);
  GivenRow guidance(std::move(unguided));
  options.guidance = request.unguided_logits.empty() ? nullptr : &guidance;
  ASSIGN_OR_RETURN(ProcessorChain chain, build_chain(config, options));

  row.warnings = generation_warnings(effective, options.vocab_size);
  for (const std::string& setting : request.ignored) {
    row.warnings.push_back(fmt::format("{} of model_config is not applied", setting));
  }
  row.logits_tied_at_max = tied_at_max(row.scores);
  StageRecorder recorder(row.scores, wants_kept_ids);
  if (config.num_beams.value_or(1) > 1) {
    log_softmax(row.scores);
    ProcessedStage stage;
    stage.name = "log_softmax";
    stage.measure = name(CutMeasure::kNone);
    stage.threshold = kNone;
    recorder.add(std::move(stage), row.scores);
  }
  chain.apply(row.scores,
              SequenceView{.ids = request.input_ids, .prompt_length = request.prompt_length},
              &recorder);
  row.stages = std::move(recorder.stages());
  row.survivors = count_survivors(row.scores);
  row.scores_tied_at_max = tied_at_max(row.scores);
  row.greedy = arg_max(row.scores);
  return row;
}

LineAnswer process_line(std::string_view text, int64_t line, const AnswerOptions& options) {
  Json id;
  const auto refuse = [&](const Error& error) {
    return LineAnswer{error_line(id, line, error), /*is_error=*/true};
  };
  const std::string where = fmt::format("line {}", line);
  if (const Status is_text = require_utf8(text, where); !is_text) {
    return refuse(is_text.error());
  }
  const Result<Json> json = parse_json(text, where, {.allow_python_numbers = true});
  if (!json) {
    return refuse(json.error());
  }
  if (json->is_object() && json->contains("id")) {
    id = (*json)["id"];
  }
  const Result<RowRequest> request = read_row_request(*json);
  if (!request) {
    return refuse(request.error());
  }
  const Result<ProcessedRow> row = process_row(*request, options.kept_ids);
  if (!row) {
    return refuse(row.error());
  }
  return {answer_line(id, *row, options), /*is_error=*/false};
}

}  // namespace logitlab
