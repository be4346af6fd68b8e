#include "recordings.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "formats/npy.h"
#include "generate/generator.h"

namespace logitlab::testing {
namespace fs = std::filesystem;

namespace {

constexpr const char* kDefaultModelName = "smollm2_135m_instruct";

Json read_golden(const std::string& name) {
  const fs::path path = models_folder() / name / "golden.json";
  const auto text = read_text_file(path, size_t{4} << 20);
  if (!text) {
    ADD_FAILURE() << text.error().message;
    return {};
  }
  auto json = parse_json(*text, path.string());
  if (!json) {
    ADD_FAILURE() << json.error().message;
    return {};
  }
  return std::move(*json);
}

RecordedPrompt read_prompt(const Json& entry, int64_t vocab_size, std::span<const float> floats) {
  RecordedPrompt prompt;
  prompt.ids = entry.at("ids").get<std::vector<TokenId>>();
  if (entry.at("columns").is_null()) {
    for (int64_t column = 0; column < vocab_size; ++column) {
      prompt.columns.push_back(column);
    }
  } else {
    prompt.columns = entry.at("columns").get<std::vector<int64_t>>();
  }
  if (entry.contains("top")) {
    prompt.top = entry.at("top").get<std::vector<std::vector<TokenId>>>();
  }
  const auto offset = entry.at("offset").get<size_t>();
  const size_t count = prompt.ids.size() * (1 + prompt.columns.size());
  if (offset + count > floats.size()) {
    ADD_FAILURE() << "logits.npy holds " << floats.size() << " floats, want " << offset + count;
    return {};
  }
  const auto values = floats.subspan(offset, count);
  prompt.values.assign(values.begin(), values.end());
  return prompt;
}

}  // namespace

fs::path models_folder() {
  return fs::path(LOGITLAB_SOURCE_DIR) / "tests/data/models";
}

std::vector<std::string> recorded_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(models_folder())) {
    const std::string name = entry.path().filename().string();
    if (name != kDefaultModelName && fs::exists(entry.path() / "golden.json")) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path model_path(const std::string& name) {
  const fs::path folder = models_folder() / name;
  const fs::path gguf = folder / "model.gguf";
  return fs::exists(gguf) ? gguf : folder;
}

Recording read_recording(const std::string& name) {
  const Json golden = read_golden(name);
  if (golden.contains("same_as")) {
    return read_recording(golden.at("same_as").get<std::string>());
  }
  Recording recording;
  const auto logits = read_npy(models_folder() / name / "logits.npy");
  if (!logits || !golden.is_object()) {
    ADD_FAILURE() << name << ": " << (logits ? "golden.json" : logits.error().message);
    return recording;
  }
  recording.vocab_size = golden.at("vocab_size").get<int64_t>();
  recording.file = golden.value("file", std::string());
  recording.file_bytes = golden.value("file_bytes", int64_t{0});
  for (const Json& entry : golden.at("prompts")) {
    recording.prompts.push_back(read_prompt(entry, recording.vocab_size, logits->values));
  }
  for (const Json& entry : golden.at("greedy")) {
    recording.greedy.push_back({entry.at("prompt").get<std::vector<TokenId>>(),
                                entry.at("continuation").get<std::vector<TokenId>>()});
  }
  EXPECT_GE(recording.prompts.size(), 3U) << name;
  EXPECT_GE(recording.greedy.size(), 20U) << name;
  return recording;
}

LoadedModel::LoadedModel(const fs::path& path, const std::string& device, int threads,
                         const std::string& dtype) {
  const auto source = resolve_model(path.string());
  if (!source) {
    ADD_FAILURE() << source.error().message;
    return;
  }
  load(*source, device, threads, dtype);
}

LoadedModel::LoadedModel(const ModelSource& source, const std::string& device, int threads) {
  load(source, device, threads, "auto");
}

void LoadedModel::load(const ModelSource& source, const std::string& device, int threads,
                       const std::string& dtype) {
  auto backend = make_backend(device);
  if (!backend) {
    ADD_FAILURE() << backend.error().message;
    return;
  }
  backend_ = std::move(*backend);
  threads_ = std::make_unique<ThreadPool>(threads);
  context_ = std::make_unique<ExecContext>(ExecContext{*backend_, *threads_});
  LoadOptions options;
  options.dtype = dtype;
  auto model = load_model(source, options, *context_);
  if (!model) {
    ADD_FAILURE() << model.error().message;
    return;
  }
  model_ = std::move(*model);
}

std::vector<float> LoadedModel::run(DecodeState* state, std::span<const TokenId> ids,
                                    int64_t piece) {
  std::vector<float> all;
  for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(piece)) {
    const size_t count = std::min(static_cast<size_t>(piece), ids.size() - begin);
    const SequenceChunk chunk{state, ids.subspan(begin, count), LogitRows::kAll};
    const auto logits = model_->forward(*context_, {&chunk, 1});
    if (!logits) {
      ADD_FAILURE() << logits.error().message;
      return {};
    }
    EXPECT_EQ(logits->rows, static_cast<int64_t>(count));
    EXPECT_EQ(logits->vocab_size, model_->config().vocab_size);
    all.insert(all.end(), logits->values.begin(), logits->values.end());
  }
  return all;
}

std::vector<float> LoadedModel::run(std::span<const TokenId> ids) {
  DecodeState state = model_->make_state();
  return run(&state, ids, static_cast<int64_t>(ids.size()));
}

float expect_logits(const RecordedPrompt& prompt, std::span<const float> logits, int64_t vocab_size,
                    float bound) {
  EXPECT_EQ(logits.size(), prompt.ids.size() * static_cast<size_t>(vocab_size));
  if (logits.size() != prompt.ids.size() * static_cast<size_t>(vocab_size)) {
    return INFINITY;
  }
  float worst = 0;
  size_t worst_position = 0;
  const size_t stride = 1 + prompt.columns.size();
  for (size_t position = 0; position < prompt.ids.size(); ++position) {
    const auto row =
        logits.subspan(position * static_cast<size_t>(vocab_size), static_cast<size_t>(vocab_size));
    const float* want = prompt.values.data() + position * stride;
    float largest = 0;
    for (const float logit : row) {
      largest = std::max(largest, std::fabs(logit));
      if (!std::isfinite(logit)) {
        ADD_FAILURE() << "position " << position << " holds " << logit;
        return INFINITY;
      }
    }
    float difference = std::fabs(largest - want[0]) / want[0];
    for (size_t i = 0; i < prompt.columns.size(); ++i) {
      const float got = row[static_cast<size_t>(prompt.columns[i])];
      difference = std::max(difference, std::fabs(got - want[1 + i]) / want[0]);
    }
    if (difference > worst) {
      worst = difference;
      worst_position = position;
    }
  }
  EXPECT_LE(worst, bound) << "prompt of " << prompt.ids.size() << " ids, position "
                          << worst_position;
  return worst;
}

float largest_difference(std::span<const float> got, std::span<const float> want, size_t width) {
  EXPECT_EQ(got.size(), want.size());
  EXPECT_FALSE(want.empty());
  if (got.size() != want.size() || want.empty()) {
    return INFINITY;
  }
  float worst = 0;
  for (size_t row = 0; row < want.size(); row += width) {
    float largest = 0;
    float apart = 0;
    for (size_t i = row; i < row + width; ++i) {
      if (!std::isfinite(got[i])) {
        ADD_FAILURE() << "value " << i << " is " << got[i];
        return INFINITY;
      }
      largest = std::max(largest, std::fabs(want[i]));
      apart = std::max(apart, std::fabs(got[i] - want[i]));
    }
    worst = std::max(worst, apart / largest);
  }
  return worst;
}

void expect_same_bits(std::span<const float> got, std::span<const float> want,
                      const std::string& what) {
  ASSERT_FALSE(want.empty()) << what;
  ASSERT_EQ(got.size(), want.size()) << what;
  if (std::memcmp(got.data(), want.data(), want.size_bytes()) == 0) {
    return;
  }
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(float)) != 0) {
      FAIL() << what << ": value " << i << " of " << want.size() << " is " << got[i]
             << ", want the bits of " << want[i];
    }
  }
}

void expect_greedy(LoadedModel* loaded, std::span<const RecordedContinuation> continuations) {
  GenerationConfig config;
  config.do_sample = false;
  config.eos_token_id = std::vector<TokenId>{};
  for (size_t i = 0; i < continuations.size(); ++i) {
    const RecordedContinuation& want = continuations[i];
    config.max_new_tokens = static_cast<int64_t>(want.ids.size());
    const PromptInput prompt{want.prompt};
    const auto got = generate(loaded->context(), loaded->model(), {&prompt, 1}, config, {});
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(got->first().ids, want.ids) << "prompt " << i;
    EXPECT_EQ(got->first().stop_reason, StopReason::kLength) << "prompt " << i;
  }
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (fs::temp_directory_path() / "logitlab_models_XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    ADD_FAILURE() << pattern << ": the folder cannot be made";
  }
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace logitlab::testing
