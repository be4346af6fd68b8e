// A model on a device chooses by itself what the host would choose, and leaves the same state.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "backend/device_model.h"
#include "generate/toy_model.h"
#include "models/device_spec.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

using Ids = std::vector<TokenId>;

constexpr int64_t kVocab = 50;

// Logits that depend on all ids.
std::vector<float> row_after(const Ids& ids) {
  uint32_t hash = 17;
  for (const TokenId id : ids) {
    hash = (hash ^ static_cast<uint32_t>(id + 1)) * 0x9E3779B1U;
  }
  std::vector<float> row;
  for (int64_t i = 0; i < kVocab; ++i) {
    hash = hash * 1664525U + 1013904223U;
    row.push_back(static_cast<float>(hash >> 8) / 8388608.0F);
  }
  return row;
}

struct Log {
  int64_t device_steps = 0;  // of all sequences
  int64_t host_rows = 0;
  int64_t room = 1000000;      // positions of a state
  size_t bad_after = 1000000;  // ids after which all logits are NaN
  bool truncates = false;
};

class FakeState final : public DeviceState {
 public:
  explicit FakeState(const Log* log) : log_(log) {}
  [[nodiscard]] int64_t length() const override { return static_cast<int64_t>(ids.size()); }
  [[nodiscard]] Status reserve(int64_t n) override {
    if (length() + n > log_->room) {
      return fail(ErrorCode::kResourceExhausted, "no room for {} positions", n);
    }
    reserved = length() + n;
    return {};
  }
  [[nodiscard]] bool can_truncate() const override { return log_->truncates; }
  void truncate(int64_t length) override {
    EXPECT_TRUE(log_->truncates);
    ids.resize(static_cast<size_t>(length));
  }
  [[nodiscard]] std::unique_ptr<DeviceState> fork() const override {
    return std::make_unique<FakeState>(*this);
  }
  [[nodiscard]] size_t bytes() const override { return 0; }

  void append(TokenId id) {
    ids.push_back(id);
    EXPECT_LE(length(), reserved);
  }

  Ids ids;
  int64_t reserved = 0;

 private:
  const Log* log_;
};

class FakeDevice final : public DeviceModel {
 public:
  explicit FakeDevice(Log* log) : log_(log) {}
  [[nodiscard]] std::unique_ptr<DeviceState> make_state() const override {
    return std::make_unique<FakeState>(log_);
  }
  [[nodiscard]] size_t state_bytes(int64_t /*n*/) const override { return 0; }
  [[nodiscard]] int64_t max_chunk() const override { return 4; }
  [[nodiscard]] Status forward(std::span<const DeviceChunk> chunks, float* logits) const override {
    for (const DeviceChunk& chunk : chunks) {
      auto* state = static_cast<FakeState*>(chunk.state);
      for (const TokenId id : chunk.ids) {
        state->append(id);
      }
      if (!chunk.no_logits) {
        const std::vector<float> row = row_of(*state);
        logits = std::copy(row.begin(), row.end(), logits);
        ++log_->host_rows;
      }
    }
    return {};
  }
  [[nodiscard]] Status decode_steps(std::span<DeviceState* const> states,
                                    std::span<const TokenId> first,
                                    std::span<const DeviceDraw> draws, int64_t n_steps,
                                    TokenId* out) const override {
    EXPECT_LE(states.size(), kMostDeviceSequences);
    for (size_t i = 0; i < states.size(); ++i) {
      auto* state = static_cast<FakeState*>(states[i]);
      TokenId id = first[i];
      for (int64_t step = 0; step < n_steps; ++step) {
        state->append(id);
        out[static_cast<int64_t>(i) * n_steps + step] = choice(*state, draws[i], step);
        id = std::max(0, out[static_cast<int64_t>(i) * n_steps + step]);
        ++log_->device_steps;
      }
    }
    return {};
  }
  [[nodiscard]] Result<std::vector<DevicePhase>> profile(
      std::span<DeviceState* const> /*states*/) const override {
    return std::vector<DevicePhase>{};
  }
  [[nodiscard]] Result<double> measure_read_rate() const override { return 1; }
  [[nodiscard]] DeviceMemory memory() const override { return {}; }

 private:
  [[nodiscard]] std::vector<float> row_of(const FakeState& state) const {
    std::vector<float> row = row_after(state.ids);
    if (state.ids.size() > log_->bad_after) {
      std::fill(row.begin(), row.end(), std::numeric_limits<float>::quiet_NaN());
    }
    return row;
  }
  [[nodiscard]] TokenId choice(const FakeState& state, const DeviceDraw& draw, int64_t step) const {
    std::vector<float> row = row_of(state);
    if (!draw.samples) {
      return arg_max(row);
    }
    for (float& score : row) {
      score /= draw.temperature;
    }
    const auto id = sample(
        row, {draw.seed, draw.sequence_index, draw.first_step + static_cast<uint32_t>(step)});
    return id ? *id : kNoDeviceChoice;
  }

  Log* log_;
};

class FakeDeviceModel final : public WeightlessModel {
 public:
  explicit FakeDeviceModel(Log* log) : WeightlessModel(kVocab), device_(log) {}
  [[nodiscard]] DecodeState make_state() const override {
    return DecodeState(device_.make_state());
  }
  [[nodiscard]] const DeviceModel* device_model() const override { return &device_; }
  [[nodiscard]] Result<Logits> forward(ExecContext& /*context*/,
                                       std::span<const SequenceChunk> batch) const override {
    return forward_on_device(device_, kVocab, batch);
  }

 private:
  FakeDevice device_;
};

GenerationConfig draws(int64_t max_new_tokens, int64_t top_k) {
  GenerationConfig config;
  config.max_new_tokens = max_new_tokens;
  config.do_sample = true;
  config.temperature = 0.7;
  config.top_k = top_k;
  return config;
}

struct Outcome {
  GenerationResult result;
  Ids held;                // by the state afterwards
  std::vector<Ids> steps;  // {sequence, step, id} as on_step was told
  std::string error;
};

class DeviceChoice : public ::testing::Test {
 protected:
  // The same call twice: rows asked for, which keeps the choice on the host, and not. `stop_after`:
  // calls of on_step after which it says stop.
  Outcome run(bool needs_rows, const std::vector<Ids>& prompts, const GenerationConfig& config,
              size_t stop_after = 1000000) {
    const int64_t steps_before = log_.device_steps;
    const FakeDeviceModel model(&log_);
    DecodeState state = model.make_state();
    Outcome outcome;
    GenerateOptions options;
    options.sequence_index = 3;
    options.on_step_needs_rows = needs_rows;
    options.on_step = [&](const StepEvent& event) {
      EXPECT_TRUE(!needs_rows || event.logits.size() == static_cast<size_t>(kVocab));
      outcome.steps.push_back(
          {static_cast<TokenId>(event.sequence), static_cast<TokenId>(event.step), event.id});
      return outcome.steps.size() < stop_after;
    };
    std::vector<PromptInput> inputs;
    for (const Ids& prompt : prompts) {
      inputs.push_back({prompt, prompts.size() == 1 ? &state : nullptr});
    }
    auto result =
        generate(context_, model, inputs, merge_generation_config(config, {}).config, options);
    if (result) {
      outcome.result = std::move(*result);
    } else {
      outcome.error = result.error().message;
    }
    outcome.held = static_cast<const FakeState*>(state.device())->ids;
    EXPECT_TRUE(!needs_rows || log_.device_steps == steps_before);
    return outcome;
  }

  void expect_same(const std::vector<Ids>& prompts, const GenerationConfig& config,
                   size_t stop_after = 1000000, bool uses_device = true) {
    for (const bool truncates : {false, true}) {
      log_ = {.room = log_.room, .truncates = truncates};
      const Outcome host = run(true, prompts, config, stop_after);
      const Outcome device = run(false, prompts, config, stop_after);
      EXPECT_EQ(log_.device_steps > 0, uses_device);
      ASSERT_EQ(device.error, host.error);
      EXPECT_EQ(device.steps, host.steps);
      EXPECT_EQ(device.held, host.held) << "truncates " << truncates;
      ASSERT_EQ(device.result.sequences.size(), host.result.sequences.size());
      for (size_t i = 0; i < host.result.sequences.size(); ++i) {
        EXPECT_EQ(device.result.sequences[i].ids, host.result.sequences[i].ids);
        EXPECT_EQ(device.result.sequences[i].stop_reason, host.result.sequences[i].stop_reason);
      }
    }
  }

  Log log_;
  std::unique_ptr<Backend> backend_ = make_reference_backend();
  ThreadPool threads_{1};
  ExecContext context_{*backend_, threads_};
};

TEST_F(DeviceChoice, GreedyIdsAreThoseOfTheHost) {
  for (const int64_t n : {1, 2, 15, 16, 17, 40}) {
    expect_same({{1, 2, 3, 4, 5, 6}}, {.max_new_tokens = n}, 1000000, n > 1);
  }
}

TEST_F(DeviceChoice, MostStepsAreTheDevices) {
  (void)run(false, {{1, 2, 3}}, {.max_new_tokens = 64});
  EXPECT_EQ(log_.host_rows, 4) << "the prompt's, and one of 16 steps";
  EXPECT_EQ(log_.device_steps, 60);
}

TEST_F(DeviceChoice, DrawsAreThoseOfTheHost) {
  GenerationConfig config = draws(50, 0);
  config.seed = 5;
  expect_same({{1, 2, 3}}, config);
  config.num_return_sequences = 3;
  expect_same({{1, 2, 3}, {4, 5}}, config);
  config.temperature = 1.0;
  expect_same({{1, 2, 3}, {4, 5}}, config);
}

TEST_F(DeviceChoice, EveryPlaceOfAnEndTokenGivesTheSame) {
  const Ids all = run(true, {{7, 8}}, {.max_new_tokens = 35}).result.first().ids;
  for (const TokenId end : all) {
    expect_same({{7, 8}}, {.max_new_tokens = 35, .eos_token_id = Ids{end}}, 1000000, end != all[0]);
  }
  expect_same({{7, 8}, {9}, {1, 2, 3}}, {.max_new_tokens = 35, .eos_token_id = Ids{all[9]}});
}

TEST_F(DeviceChoice, ARunThatIsStoppedEndsAtTheSameToken) {
  for (size_t stop_after = 1; stop_after < 36; ++stop_after) {
    expect_same({{7, 8}}, {.max_new_tokens = 40}, stop_after, stop_after > 1);
  }
  expect_same({{7, 8}, {9}}, {.max_new_tokens = 40}, 21);
}

TEST_F(DeviceChoice, WithoutRoomForSeveralStepsTheHostGoesOn) {
  log_.room = 12;
  expect_same({{7, 8}}, {.max_new_tokens = 11}, 1000000, true);
  expect_same({{7, 8}}, {.max_new_tokens = 20}, 1000000, false);
}

TEST_F(DeviceChoice, OtherSettingsStayWithTheHost) {
  GenerationConfig config = draws(20, 5);
  expect_same({{1}}, config, 1000000, false);
  config = {.max_new_tokens = 20};
  config.repetition_penalty = 1.2;
  expect_same({{1}}, config, 1000000, false);
  config = {.max_new_tokens = 20};
  config.logits_dtype = LogitsDtype::kBfloat16;
  expect_same({{1}}, config, 1000000, false);
  expect_same(std::vector<Ids>(kMostDeviceSequences + 1, Ids{1}), {.max_new_tokens = 4}, 1000000,
              false);
  expect_same(std::vector<Ids>(kMostDeviceSequences, Ids{1}), {.max_new_tokens = 4});
}

TEST_F(DeviceChoice, ATraceKeepsTheChoiceOnTheHost) {
  CollectedTrace trace;
  const FakeDeviceModel model(&log_);
  GenerateOptions options;
  options.trace.sink = &trace;
  const Ids prompt = {1, 2};
  const PromptInput input{prompt, nullptr};
  const GenerationConfig config{.max_new_tokens = 20};
  ASSERT_TRUE(
      generate(context_, model, {&input, 1}, merge_generation_config(config, {}).config, options));
  EXPECT_EQ(trace.steps.size(), 20U);
  EXPECT_EQ(log_.device_steps, 0);
}

TEST_F(DeviceChoice, WhatCannotBeDrawnFromIsAnError) {
  GenerationConfig config = draws(30, 0);
  log_.bad_after = 10;
  const Outcome outcome = run(false, {{1, 2, 3}}, config);
  EXPECT_NE(outcome.error.find("step 8 of sequence 0 has no token"), std::string::npos)
      << outcome.error;
  EXPECT_EQ(outcome.steps.size(), 8U);
  EXPECT_EQ(outcome.held.size(), 11U) << "the prompt and all that was chosen, as on the host";
  EXPECT_EQ(run(true, {{1, 2, 3}}, config).held, outcome.held);
}

}  // namespace
}  // namespace logitlab
