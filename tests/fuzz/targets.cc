#include "targets.h"

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/utf8.h"
#include "engine/process_rows.h"
#include "formats/gguf.h"
#include "formats/hf_config.h"
#include "formats/npy.h"
#include "formats/safetensors.h"
#include "lab/study/study_file.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

constexpr std::string_view kWhere = "input";

// A message names the file, is one line and holds nothing that moves a terminal's cursor.
void check_message(const Error& error) {
  CHECK(error.message.starts_with(kWhere)) << error.message;
  CHECK(exit_code(error.code) != exit_code(ErrorCode::kInternal)) << error.message;
  CHECK(printable(error.message) == error.message) << error.message;
}

// Sum of the bytes that a tensor claims: a sanitizer sees any that lie outside the input.
unsigned touch(const std::vector<TensorEntry>& tensors, std::span<const std::byte> file) {
  unsigned sum = 0;
  for (const TensorEntry& tensor : tensors) {
    CHECK(tensor.offset <= file.size() && tensor.bytes <= file.size() - tensor.offset)
        << tensor.offset << " " << tensor.bytes;
    CHECK(tensor.view().bytes() == tensor.bytes) << tensor.shape.to_string();
    CHECK(tensor.data == file.data() + tensor.offset);
    for (size_t i = 0; i < tensor.bytes; ++i) {
      sum += std::to_integer<unsigned>(tensor.data[i]);
    }
  }
  return sum;
}

template <typename T>
void check_result(const Result<T>& result) {
  if (!result) {
    check_message(result.error());
  }
}

std::string_view as_text(std::span<const uint8_t> input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

}  // namespace

void fuzz_safetensors(std::span<const uint8_t> input) {
  const auto file = std::as_bytes(input);
  const auto tensors = parse_safetensors(file, kWhere);
  if (!tensors) {
    check_message(tensors.error());
    return;
  }
  [[maybe_unused]] volatile unsigned sum = touch(*tensors, file);
  const auto checkpoint = Checkpoint::assemble({}, *tensors);
  CHECK(checkpoint.has_value());
  for (const TensorEntry& tensor : *tensors) {
    CHECK(checkpoint->find(tensor.name) != nullptr) << tensor.name;
  }
}

void fuzz_gguf(std::span<const uint8_t> input) {
  const auto file = std::as_bytes(input);
  const auto content = parse_gguf(file, kWhere);
  if (!content) {
    check_message(content.error());
    return;
  }
  [[maybe_unused]] volatile unsigned sum = touch(content->tensors, file);
  const GgufMetadata& metadata = content->metadata;
  for (const GgufField& field : metadata.fields()) {
    CHECK(metadata.find(field.key) == &field);
    const std::string line = metadata.describe(field);
    CHECK(printable(line) == line) << line;
    check_result(metadata.get_int(field.key));
    check_result(metadata.get_float(field.key));
    check_result(metadata.get_bool(field.key));
    check_result(metadata.get_string(field.key));
    check_result(metadata.get_ints(field.key));
    check_result(metadata.get_floats(field.key));
    check_result(metadata.get_strings(field.key));
  }
  check_result(metadata.architecture());
  const auto vocab = read_gguf_vocab(metadata);
  if (!vocab) {
    check_message(vocab.error());
    return;
  }
  for (const auto& id :
       {vocab->bos_id, vocab->eos_id, vocab->eot_id, vocab->eom_id, vocab->unk_id, vocab->pad_id}) {
    CHECK(!id || (*id >= 0 && static_cast<size_t>(*id) < vocab->tokens.size())) << *id;
  }
}

void fuzz_config(std::span<const uint8_t> input) {
  const auto config = parse_config(as_text(input), kWhere);
  check_result(config);
  if (config) {
    for (const auto& item : config->items()) {
      const std::string& key = item.key();
      // Keys are asked for by our own names, so their spelling need not be printable here.
      (void)get_int(*config, key, kWhere);
      (void)get_float(*config, key, kWhere);
      (void)get_bool(*config, key, kWhere);
      (void)get_string(*config, key, kWhere);
      (void)get_int_list(*config, key, kWhere);
      (void)get_float_list(*config, key, kWhere);
      (void)get_string_list(*config, key, kWhere);
      (void)get_object(*config, key, kWhere);
      (void)require_int(*config, key, kWhere, 0, 1);
    }
    // What was read can be written and read again.
    CHECK(parse_json(dump_json(*config), kWhere).has_value());
  }
  const auto index = parse_safetensors_index(as_text(input), kWhere);
  check_result(index);
  if (index) {
    CHECK(!index->weight_map.empty() && !index->file_names.empty());
    for (const std::string& file_name : index->file_names) {
      CHECK(file_name.find('/') == std::string::npos && file_name != "..") << file_name;
    }
  }
  const auto floats = parse_npy(std::as_bytes(input), kWhere);
  check_result(floats);
  if (floats) {
    CHECK(floats->values.size() * sizeof(float) < input.size());
  }
}

void fuzz_trace(std::span<const uint8_t> input) {
  TraceMemory memory;
  const Status status = parse_trace(as_text(input), kWhere, &memory);
  if (!status) {
    check_message(status.error());
    return;
  }
  // What was accepted can be followed by index without another look.
  const RunTrace& run = memory.run();
  for (const TracedStep& step : memory.steps()) {
    CHECK(step.id >= 0 && step.id < run.vocab_size) << step.id;
    const auto sequence = static_cast<size_t>(step.sequence);
    const auto prompt = static_cast<size_t>(run.sequence_prompts.at(sequence));
    CHECK(prompt < run.prompts.size());
    CHECK(memory.ended().sequences.at(sequence).ids.at(static_cast<size_t>(step.step)) == step.id);
    for (const TracedCandidate& candidate : step.candidates) {
      CHECK(candidate.dropped_by < static_cast<int64_t>(step.stages.size()));
    }
  }
}

void fuzz_process(std::span<const uint8_t> input) {
  for (const RowEncoding encoding : {RowEncoding::kJson, RowEncoding::kBase64}) {
    const LineAnswer answer =
        process_line(as_text(input), 1, {.encoding = encoding, .kept_ids = true});
    CHECK(answer.text.find('\n') == std::string::npos) << answer.text;
    const Result<Json> json = parse_json(answer.text, kWhere);
    CHECK(json.has_value() && json->contains("id")) << answer.text;
    CHECK(json->contains("error") == answer.is_error) << answer.text;
    CHECK(json->contains("survivors") != answer.is_error) << answer.text;
  }
}

void fuzz_study(std::span<const uint8_t> input) {
  const auto study = parse_study(as_text(input), kWhere);
  if (!study) {
    check_message(study.error());
    return;
  }
  CHECK(!study->name.empty() && !study->question.empty());
  CHECK(study->is_course() == study->settings.empty());
  CHECK(study->is_course() == study->prompts.empty());
  const std::vector<PlannedRun> plan = plan_runs(*study);
  CHECK(plan.size() <= static_cast<size_t>(kMostRuns)) << plan.size();
  for (const PlannedRun& run : plan) {
    CHECK(run.prompt < study->prompts.size() && run.setting < study->settings.size());
    CHECK(run.run < study->settings[run.setting].runs);
  }
  for (const StudySetting& setting : study->settings) {
    CHECK(!setting.config.seed && printable(setting.name) == setting.name) << setting.name;
  }
}

}  // namespace logitlab
