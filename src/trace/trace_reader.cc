// The strict reader of traces: text becomes JSON a line at a time, JSON becomes records by the list
// of trace_fields.h, and records are checked against each other.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "trace/trace_fields.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

constexpr size_t kLargestFile = size_t{2} << 30;
constexpr int64_t kMostCandidates = 1000;

// Where a value stands, as a chain of names up to the line.
struct Place {
  const Place* parent = nullptr;
  std::string_view name;
  int64_t index = -1;

  [[nodiscard]] std::string text() const {
    if (parent == nullptr) {
      return std::string(name);
    }
    return index >= 0 ? fmt::format("{}[{}]", parent->text(), index)
                      : fmt::format("{}.{}", parent->text(), name);
  }
};

Status wanted(const Place& place, const Json& found, std::string_view what) {
  return fail(ErrorCode::kDataLoss, "{}: found {}, want {}", place.text(), quoted_json(found),
              what);
}

// Reads an object's fields; remembers the first error and does nothing after it.
class FieldReader {
 public:
  FieldReader(const Json& object, const Place& place) : object_(object), place_(place) {
    if (!object.is_object()) {
      status_ = wanted(place, object, "an object");
    }
  }

  template <typename T>
  void field(std::string_view name, T&& value) {
    if (!status_) {
      return;
    }
    const auto found = object_.find(name);
    if (found == object_.end()) {
      status_ = fail(ErrorCode::kDataLoss, "{}: no field \"{}\"", place_.text(), name);
      return;
    }
    ++n_known_;
    const Place place{&place_, name};
    status_ = read(*found, place, value);
    known_.push_back(name);
  }

  // The first error; else whether there was a field that nobody asked for.
  [[nodiscard]] Status finish() {
    if (!status_ || n_known_ == object_.size()) {
      return std::move(status_);
    }
    for (const auto& item : object_.items()) {
      if (std::find(known_.begin(), known_.end(), item.key()) == known_.end()) {
        return fail(ErrorCode::kDataLoss,
                    "{}: unknown field \"{}\"; a newer version may have written it", place_.text(),
                    printable(item.key()));
      }
    }
    return {};
  }

 private:
  static Status read(const Json& json, const Place& place, bool& value) {
    if (!json.is_boolean()) {
      return wanted(place, json, "true or false");
    }
    value = json.get<bool>();
    return {};
  }
  template <typename T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) static Status
      read(const Json& json, const Place& place, T& value) {
    if (json.is_number_unsigned()) {
      const auto number = json.get<uint64_t>();
      if (number <= static_cast<uint64_t>(std::numeric_limits<T>::max())) {
        value = static_cast<T>(number);
        return {};
      }
    } else if (json.is_number_integer() && std::is_signed_v<T>) {
      const auto number = json.get<int64_t>();
      if (number >= static_cast<int64_t>(std::numeric_limits<T>::min())) {
        value = static_cast<T>(number);
        return {};
      }
    }
    return wanted(place, json,
                  fmt::format("a whole number, {} to {}", std::numeric_limits<T>::min(),
                              std::numeric_limits<T>::max()));
  }
  template <typename T>
  requires(std::is_floating_point_v<T>) static Status
      read(const Json& json, const Place& place, T& value) {
    if (json.is_null()) {
      value = std::numeric_limits<T>::quiet_NaN();
      return {};
    }
    if (json.is_string() && (json == "inf" || json == "-inf")) {
      value =
          json == "inf" ? std::numeric_limits<T>::infinity() : -std::numeric_limits<T>::infinity();
      return {};
    }
    // A number too large for the type would come back as infinity, which is written otherwise.
    if (!json.is_number() || !std::isfinite(static_cast<T>(json.get<double>()))) {
      return wanted(place, json, "a number, \"inf\", \"-inf\" or null");
    }
    value = static_cast<T>(json.get<double>());
    return {};
  }
  static Status read(const Json& json, const Place& place, std::string& value) {
    if (!json.is_string()) {
      return wanted(place, json, "a string");
    }
    value = json.get_ref<const std::string&>();
    return {};
  }
  static Status read(const Json& json, const Place& place, JsonText<std::string>& value) {
    if (!json.is_object() && !json.is_null()) {
      return wanted(place, json, "an object of settings or null");
    }
    value.text = json.is_null() ? "" : dump_json(json);
    return {};
  }
  static Status read(const Json& json, const Place& place, HexNumber<uint64_t>& value) {
    const std::string text = json.is_string() ? json.get<std::string>() : "";
    if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
      return wanted(place, json, "16 digits of 0-9 and a-f, in quotes");
    }
    value.value = std::stoull(text, nullptr, 16);
    return {};
  }
  template <typename Pieces>
  static Status read(const Json& json, const Place& place, PieceList<Pieces>& list) {
    if (!json.is_array()) {
      return wanted(place, json, "an array");
    }
    list.pieces.clear();
    for (const Json& pair : json) {
      const Place here{&place, "", static_cast<int64_t>(list.pieces.size())};
      if (!pair.is_array() || pair.size() != 2) {
        return wanted(here, pair, "an id and its text");
      }
      TokenId id = 0;
      std::string text;
      RETURN_IF_ERROR(read(pair[0], here, id));
      RETURN_IF_ERROR(read(pair[1], here, text));
      list.pieces.emplace_back(id, std::move(text));
    }
    return {};
  }
  template <typename T>
  static Status read(const Json& json, const Place& place, std::vector<T>& values) {
    if (!json.is_array()) {
      return wanted(place, json, "an array");
    }
    values.clear();
    for (const Json& element : json) {
      const Place here{&place, "", static_cast<int64_t>(values.size())};
      T value{};
      RETURN_IF_ERROR(read(element, here, value));
      values.push_back(std::move(value));
    }
    return {};
  }
  template <typename T>
  requires(std::is_class_v<T>) static Status read(const Json& json, const Place& place, T& record) {
    FieldReader fields(json, place);
    visit_fields(fields, record);
    return fields.finish();
  }

  const Json& object_;
  const Place& place_;
  Status status_;
  size_t n_known_ = 0;
  std::vector<std::string_view> known_;
};

// The records in their order, each against what came before.
class TraceChecker {
 public:
  Status run(const RunTrace& run);
  Status step(const TracedStep& step);
  Status beam_step(const TracedBeamStep& step);
  Status end(const RunEnd& end) const;

 private:
  [[nodiscard]] Status number(std::string_view field, int64_t found, int64_t lowest,
                              int64_t highest) const {
    if (found < lowest || found > highest) {
      return fail(ErrorCode::kDataLoss, "{}: found {}, want {} to {}", field, found, lowest,
                  highest);
    }
    return {};
  }
  [[nodiscard]] Status id(std::string_view field, TokenId found) const {
    return number(field, found, 0, vocab_size_ - 1);
  }
  [[nodiscard]] Status id_or_none(std::string_view field, TokenId found) const {
    return number(field, found, -1, vocab_size_ - 1);
  }
  [[nodiscard]] Status ids(std::string_view field, const std::vector<TokenId>& found) const {
    for (const TokenId one : found) {
      RETURN_IF_ERROR(id(field, one));
    }
    return {};
  }
  [[nodiscard]] Status beams(std::string_view field, const std::vector<TracedBeam>& found,
                             int64_t n_parents) const;
  [[nodiscard]] Status sequence(const TracedSequence& sequence) const;

  int64_t vocab_size_ = 0;
  int64_t n_candidates_ = 0;
  int64_t n_prompts_ = 0;
  std::vector<int64_t> sequence_prompts_;
  std::vector<std::vector<TokenId>> steps_;  // ids so far, per sequence
  std::vector<int64_t> beam_steps_;          // per prompt
  std::vector<int64_t> n_running_;           // beams of the step before, per prompt
};

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

Status TraceChecker::run(const RunTrace& run) {
  RETURN_IF_ERROR(number("run.vocab_size", run.vocab_size, 1, std::numeric_limits<TokenId>::max()));
  RETURN_IF_ERROR(number("run.n_candidates", run.n_candidates, 0, kMostCandidates));
  vocab_size_ = run.vocab_size;
  n_candidates_ = run.n_candidates;
  n_prompts_ = static_cast<int64_t>(run.prompts.size());
  for (const auto& prompt : run.prompts) {
    RETURN_IF_ERROR(ids("run.prompts", prompt));
  }
  for (const int64_t prompt : run.sequence_prompts) {
    RETURN_IF_ERROR(number("run.sequence_prompts", prompt, 0, n_prompts_ - 1));
  }
  for (const TracedStopId& stop : run.stop_ids) {
    RETURN_IF_ERROR(number("run.stop_ids.id", stop.id, 0, std::numeric_limits<TokenId>::max()));
  }
  RETURN_IF_ERROR(id_or_none("run.think_open", run.think_open));
  RETURN_IF_ERROR(id_or_none("run.think_close", run.think_close));
  sequence_prompts_ = run.sequence_prompts;
  steps_.resize(run.sequence_prompts.size());
  beam_steps_.resize(run.prompts.size());
  n_running_.resize(run.prompts.size(), kNoLimit);
  return {};
}

Status TraceChecker::step(const TracedStep& step) {
  RETURN_IF_ERROR(number("step.sequence", step.sequence, 0,
                         static_cast<int64_t>(sequence_prompts_.size()) - 1));
  std::vector<TokenId>& before = steps_[static_cast<size_t>(step.sequence)];
  const auto next = static_cast<int64_t>(before.size());
  if (step.step != next) {
    return fail(ErrorCode::kDataLoss, "step.step: found {} of sequence {}, want {}: steps in order",
                step.step, step.sequence, next);
  }
  RETURN_IF_ERROR(id("step.id", step.id));
  RETURN_IF_ERROR(number("step.raw_rank", step.raw_rank, 1, vocab_size_));
  RETURN_IF_ERROR(number("step.rank", step.rank, 1, vocab_size_));
  RETURN_IF_ERROR(number("step.n_tied_at_max", step.n_tied_at_max, 1, vocab_size_));
  RETURN_IF_ERROR(ids("step.tied_at_max", step.tied_at_max));
  RETURN_IF_ERROR(id_or_none("step.draw_runner_up", step.draw_runner_up));
  const auto n_stages = static_cast<int64_t>(step.stages.size());
  for (const TracedStage& stage : step.stages) {
    RETURN_IF_ERROR(number("step.stages.survivors", stage.survivors, 0, vocab_size_));
    RETURN_IF_ERROR(number("step.stages.tied_kept", stage.tied_kept, 0, vocab_size_));
    RETURN_IF_ERROR(number("step.stages.tied_dropped", stage.tied_dropped, 0, vocab_size_));
    RETURN_IF_ERROR(number("step.stages.changed", stage.changed, -1, vocab_size_));
    RETURN_IF_ERROR(
        number("step.stages.changed_in_prompt", stage.changed_in_prompt, -1, vocab_size_));
    RETURN_IF_ERROR(
        number("step.stages.changed_in_answer", stage.changed_in_answer, -1, vocab_size_));
  }
  RETURN_IF_ERROR(number("step.candidates: their number",
                         static_cast<int64_t>(step.candidates.size()), 0, n_candidates_ + 1));
  for (const TracedCandidate& candidate : step.candidates) {
    RETURN_IF_ERROR(id("step.candidates.id", candidate.id));
    RETURN_IF_ERROR(number("step.candidates.dropped_by", candidate.dropped_by, -1, n_stages - 1));
  }
  if (!step.logits.empty()) {
    RETURN_IF_ERROR(number("step.logits: their number", static_cast<int64_t>(step.logits.size()),
                           vocab_size_, vocab_size_));
  }
  before.push_back(step.id);
  return {};
}

Status TraceChecker::beams(std::string_view field, const std::vector<TracedBeam>& found,
                           int64_t n_parents) const {
  for (const TracedBeam& beam : found) {
    RETURN_IF_ERROR(id(field, beam.id));
    RETURN_IF_ERROR(
        number(field, beam.parent, 0, n_parents == kNoLimit ? kNoLimit : n_parents - 1));
  }
  return {};
}

Status TraceChecker::beam_step(const TracedBeamStep& step) {
  RETURN_IF_ERROR(number("beam_step.prompt", step.prompt, 0, n_prompts_ - 1));
  const auto prompt = static_cast<size_t>(step.prompt);
  if (step.step != beam_steps_[prompt]) {
    return fail(ErrorCode::kDataLoss,
                "beam_step.step: found {} of prompt {}, want {}: steps in order", step.step,
                step.prompt, beam_steps_[prompt]);
  }
  RETURN_IF_ERROR(beams("beam_step.candidates", step.candidates, n_running_[prompt]));
  RETURN_IF_ERROR(beams("beam_step.running", step.running, n_running_[prompt]));
  const auto n = static_cast<int64_t>(step.candidates.size());
  RETURN_IF_ERROR(number("beam_step.candidate_stops: their number",
                         static_cast<int64_t>(step.candidate_stops.size()), n, n));
  ++beam_steps_[prompt];
  n_running_[prompt] = static_cast<int64_t>(step.running.size());
  return {};
}

Status TraceChecker::sequence(const TracedSequence& sequence) const {
  const auto number_of = static_cast<size_t>(sequence.sequence);
  RETURN_IF_ERROR(number("end.sequences.prompt", sequence.prompt, sequence_prompts_[number_of],
                         sequence_prompts_[number_of]));
  RETURN_IF_ERROR(ids("end.sequences.ids", sequence.ids));
  RETURN_IF_ERROR(id_or_none("end.sequences.stop_id", sequence.stop_id));
  const auto n_ids = static_cast<int64_t>(sequence.ids.size());
  RETURN_IF_ERROR(number("end.sequences.thinking_tokens", sequence.thinking_tokens, 0, n_ids));
  RETURN_IF_ERROR(number("end.sequences.answer_tokens", sequence.answer_tokens, 0, n_ids));
  for (const int64_t beam : sequence.beam_indices) {
    RETURN_IF_ERROR(number("end.sequences.beam_indices", beam, 0, kNoLimit));
  }
  const std::vector<TokenId>& stepped = steps_[number_of];
  if (!stepped.empty() && stepped != sequence.ids) {
    return fail(ErrorCode::kDataLoss,
                "end.sequences.ids: found other ids than in the {} steps of sequence {}, want the "
                "same",
                stepped.size(), sequence.sequence);
  }
  return {};
}

Status TraceChecker::end(const RunEnd& end) const {
  const auto n = static_cast<int64_t>(sequence_prompts_.size());
  RETURN_IF_ERROR(
      number("end.sequences: their number", static_cast<int64_t>(end.sequences.size()), n, n));
  for (int64_t i = 0; i < n; ++i) {
    const TracedSequence& one = end.sequences[static_cast<size_t>(i)];
    RETURN_IF_ERROR(number("end.sequences.sequence", one.sequence, i, i));
    RETURN_IF_ERROR(sequence(one));
  }
  for (const auto& piece : end.pieces) {
    RETURN_IF_ERROR(number("end.pieces", piece.first, 0, std::numeric_limits<TokenId>::max()));
  }
  return {};
}

// One file: which record may follow which.
class TraceParser {
 public:
  explicit TraceParser(TraceMemory* memory) : memory_(*memory) {}

  Status line(std::string_view text);
  [[nodiscard]] bool has_begun() const { return has_begun_; }
  [[nodiscard]] bool has_ended() const { return has_ended_; }

 private:
  template <typename Record>
  Status read(const Json& json, std::string_view kind, Record* record);
  Status begin(const Json& json);

  TraceMemory& memory_;
  TraceChecker checker_;
  bool has_begun_ = false;
  bool has_ended_ = false;
};

template <typename Record>
Status TraceParser::read(const Json& json, std::string_view kind, Record* record) {
  const Place place{nullptr, kind};
  FieldReader fields(json, place);
  std::string word;
  fields.field("record", word);
  if constexpr (std::is_same_v<Record, RunTrace>) {
    fields.field("schema", word);
  }
  visit_fields(fields, *record);
  return fields.finish();
}

Status TraceParser::begin(const Json& json) {
  const auto schema = json.find("schema");
  if (schema == json.end()) {
    return fail(ErrorCode::kDataLoss, "run: no field \"schema\", want \"{}\"", kTraceSchema);
  }
  if (*schema != kTraceSchema) {
    return fail(ErrorCode::kUnsupported,
                "run.schema: found {}, want \"{}\"; another version of "
                "logitlab wrote it",
                quoted_json(*schema), kTraceSchema);
  }
  RunTrace run;
  RETURN_IF_ERROR(read(json, kRunRecord, &run));
  RETURN_IF_ERROR(checker_.run(run));
  has_begun_ = true;
  memory_.begin(run);
  return {};
}

Status TraceParser::line(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, parse_json(text, "record"));
  const auto kind = json.is_object() ? json.find("record") : json.end();
  if (!json.is_object() || kind == json.end() || !kind->is_string()) {
    return fail(ErrorCode::kDataLoss, "record: found {}, want an object with a field \"record\"",
                quoted_json(json));
  }
  if (has_ended_) {
    return fail(ErrorCode::kDataLoss, "record: found {}, want nothing after \"end\"",
                quoted_json(*kind));
  }
  if (has_begun_ == (*kind == kRunRecord)) {
    return fail(ErrorCode::kDataLoss, "record: found {}, want {}", quoted_json(*kind),
                has_begun_ ? "one \"run\", on the first line" : "\"run\" on the first line");
  }
  if (*kind == kRunRecord) {
    return begin(json);
  }
  if (*kind == kStepRecord) {
    TracedStep step;
    RETURN_IF_ERROR(read(json, kStepRecord, &step));
    RETURN_IF_ERROR(checker_.step(step));
    memory_.step(step);
    return {};
  }
  if (*kind == kBeamStepRecord) {
    TracedBeamStep step;
    RETURN_IF_ERROR(read(json, kBeamStepRecord, &step));
    RETURN_IF_ERROR(checker_.beam_step(step));
    memory_.beam_step(step);
    return {};
  }
  if (*kind == kEndRecord) {
    RunEnd end;
    RETURN_IF_ERROR(read(json, kEndRecord, &end));
    RETURN_IF_ERROR(checker_.end(end));
    has_ended_ = true;
    memory_.end(end);
    return {};
  }
  return fail(ErrorCode::kDataLoss,
              "record: found {}, want \"run\", \"step\", \"beam_step\" or \"end\"",
              quoted_json(*kind));
}

}  // namespace

Status parse_trace(std::string_view text, std::string_view where, TraceMemory* memory) {
  *memory = TraceMemory();
  TraceParser parser(memory);
  int64_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = std::min(text.find('\n'), text.size());
    if (auto status = parser.line(text.substr(0, end)); !status) {
      Error error = std::move(status).error();
      // A line that is no JSON is a broken file, not a wrong setting.
      error.code =
          error.code == ErrorCode::kUnsupported ? ErrorCode::kUnsupported : ErrorCode::kDataLoss;
      return fail_at(fmt::format("{}: line {}", where, number), std::move(error));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (!parser.has_begun()) {
    return fail(ErrorCode::kDataLoss, "{}: empty, want a trace (a file of --trace)", where);
  }
  if (!parser.has_ended()) {
    return fail(ErrorCode::kDataLoss,
                "{}: ends after line {} without its \"end\" record; the run or a copy of the file "
                "was cut off",
                where, number);
  }
  return {};
}

Status read_trace(const std::string& path, TraceMemory* memory) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kLargestFile));
  return parse_trace(text, path, memory);
}

}  // namespace logitlab
