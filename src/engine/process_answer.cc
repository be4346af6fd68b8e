// How the answers of process_rows are written. Rows are appended as text: a JSON value for each of
// 150,000 numbers would take most of the time.
#include <cmath>
#include <iterator>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "engine/process_rows.h"
#include "sampling/distribution.h"

namespace logitlab {
namespace {

constexpr size_t kListedTies = 32;

// The shortest text that reads back as the same number.
template <typename Number>
void append_number(Number number, std::string* out) {
  if (std::isnan(number)) {
    *out += "\"nan\"";
  } else if (std::isinf(number)) {
    *out += number < 0 ? "\"-inf\"" : "\"inf\"";
  } else {
    fmt::format_to(std::back_inserter(*out), "{}", number);
  }
}

template <typename Number>
void append_row(std::string_view key, std::span<const Number> row, RowEncoding encoding,
                std::string* out) {
  if (encoding == RowEncoding::kBase64) {
    *out += fmt::format(",\"{}_base64\":\"", key);
    if constexpr (std::is_same_v<Number, float>) {
      *out += encode_base64(std::as_bytes(row));
    } else {
      const std::vector<float> rounded(row.begin(), row.end());
      *out += encode_base64(std::as_bytes(std::span(rounded)));
    }
    *out += '"';
    return;
  }
  *out += fmt::format(",\"{}\":[", key);
  for (size_t i = 0; i < row.size(); ++i) {
    if (i > 0) {
      *out += ',';
    }
    append_number(row[i], out);
  }
  *out += ']';
}

Json first_of(const std::vector<TokenId>& ids) {
  return std::vector<TokenId>(
      ids.begin(), ids.begin() + static_cast<int64_t>(std::min(ids.size(), kListedTies)));
}

Json number_or_null(double number) {
  return std::isfinite(number) ? Json(number) : Json();
}

Json stage_json(const ProcessedStage& stage, bool kept_ids) {
  Json json = Json::object();
  json["name"] = stage.name;
  json["survivors"] = stage.survivors;
  json["measure"] = std::string(stage.measure);
  json["threshold"] = number_or_null(stage.threshold);
  json["cut_score"] = number_or_null(stage.cut_score);
  json["n_tied_kept"] = stage.tied_kept.size();
  json["n_tied_dropped"] = stage.tied_dropped.size();
  // One survivor alone at the cut is no tie.
  if (stage.tied_kept.size() + stage.tied_dropped.size() > 1) {
    json["tied_kept"] = first_of(stage.tied_kept);
    json["tied_dropped"] = first_of(stage.tied_dropped);
  }
  if (kept_ids) {
    json["kept"] = stage.kept;
  }
  return json;
}

Json ties_json(const ProcessedRow& row) {
  Json json = Json::object();
  json["n_logits_at_max"] = row.logits_tied_at_max.size();
  json["logits_at_max"] = first_of(row.logits_tied_at_max);
  json["n_at_max"] = row.scores_tied_at_max.size();
  json["at_max"] = first_of(row.scores_tied_at_max);
  return json;
}

}  // namespace

std::string answer_line(const Json& id, const ProcessedRow& row, const AnswerOptions& options) {
  Json stages = Json::array();
  for (const ProcessedStage& stage : row.stages) {
    stages.push_back(stage_json(stage, options.kept_ids));
  }
  std::string out = fmt::format("{{\"id\":{}", dump_json(id));
  append_row(std::string_view("scores"), std::span(row.scores), options.encoding, &out);
  fmt::format_to(std::back_inserter(out),
                 ",\"stages\":{},\"survivors\":{},\"ties\":{},\"greedy\":{}", dump_json(stages),
                 row.survivors, dump_json(ties_json(row)), row.greedy);
  if (options.probabilities) {
    const std::vector<double> probabilities = softmax_probabilities(row.scores);
    if (std::isnan(probabilities.front())) {
      out += ",\"probabilities\":null";
    } else {
      append_row(std::string_view("probabilities"), std::span(probabilities), options.encoding,
                 &out);
    }
  }
  out += fmt::format(",\"warnings\":{}}}", dump_json(row.warnings));
  return out;
}

std::string error_line(const Json& id, int64_t line, const Error& error) {
  Json json = Json::object();
  json["id"] = id;
  json["line"] = line;
  json["error"] = {{"code", std::string(code_name(error.code))}, {"message", error.message}};
  return dump_json(json);
}

}  // namespace logitlab
