// Choosing on the device, generated weights, and what is said when something is not there.
#include <cmath>

#include "device_fixture.h"
#include "sampling/sampler.h"
#include "tensor/dtype.h"

namespace logitlab {
namespace {

constexpr int64_t kVocab = 1000;

std::unique_ptr<SmallModel> small_hybrid() {
  auto model = std::make_unique<SmallModel>(128, kVocab, 21);
  model->add_mamba(
      {.n_heads = 4, .head_dim = 64, .state_size = 64, .n_groups = 2, .conv_kernel = 4});
  model->add_attention({.head_dim = 64});
  model->add_mixture({.shared_width = 128});
  return model;
}

class CudaDevice : public DeviceTest {
 protected:
  // `n` tokens of each draw, chosen on the device after `first`.
  std::vector<TokenId> chosen(const DeviceModel& device, std::span<const TokenId> first,
                              std::span<const DeviceDraw> draws, int64_t n) {
    std::vector<std::unique_ptr<DeviceState>> states;
    std::vector<DeviceState*> pointers;
    for (size_t i = 0; i < first.size(); ++i) {
      states.push_back(device.make_state());
      const Status reserved = states.back()->reserve(n);
      EXPECT_TRUE(reserved.has_value()) << reserved.error().message;
      pointers.push_back(states.back().get());
    }
    std::vector<TokenId> out(first.size() * static_cast<size_t>(n));
    const Status done = device.decode_steps(pointers, first, draws, n, out.data());
    EXPECT_TRUE(done.has_value()) << done.error().message;
    EXPECT_EQ(states.front()->length(), n);
    return out;
  }
};

TEST_F(CudaDevice, ChoosesAsTheSamplerDoes) {
  const auto model = small_hybrid();
  const auto device = on_device(*model);
  ASSERT_NE(device, nullptr);
  constexpr int64_t kSteps = 300;
  const std::vector<DeviceDraw> draws = {
      {},
      {.samples = true, .temperature = 0.7F, .seed = 42, .sequence_index = 0, .first_step = 0},
      {.samples = true,
       .temperature = 1.3F,
       .seed = 0x123456789abcdefULL,
       .sequence_index = 5,
       .first_step = 17}};
  const std::vector<TokenId> first = {1, 2, 3};
  const std::vector<TokenId> got = chosen(*device, first, draws, kSteps);
  for (size_t i = 0; i < draws.size(); ++i) {
    const auto state = device->make_state();
    TokenId id = first[i];
    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<float> scores = run(*device, state.get(), {&id, 1}, kVocab, 1);
      if (draws[i].samples) {
        for (float& score : scores) {
          score /= draws[i].temperature;
        }
        const Draw draw{draws[i].seed, draws[i].sequence_index,
                        draws[i].first_step + static_cast<uint32_t>(step)};
        id = sample(scores, draw).value();
      } else {
        id = arg_max(scores);
      }
      ASSERT_EQ(got[i * kSteps + static_cast<size_t>(step)], id)
          << "draw " << i << ", step " << step;
    }
  }
}

TEST_F(CudaDevice, AThousandTokensRepeatBitForBit) {
  const auto model = small_hybrid();
  const auto device = on_device(*model);
  ASSERT_NE(device, nullptr);
  for (const size_t batch : {size_t{1}, size_t{16}}) {
    std::vector<TokenId> first;
    std::vector<DeviceDraw> draws;
    for (size_t i = 0; i < batch; ++i) {
      first.push_back(static_cast<TokenId>(i));
      draws.push_back({.samples = i % 2 == 1, .seed = i, .sequence_index = 1});
    }
    const std::vector<TokenId> once = chosen(*device, first, draws, 1000);
    EXPECT_EQ(chosen(*device, first, draws, 1000), once) << "batch " << batch;
    if (batch > 1) {
      const std::vector<TokenId> alone = chosen(*device, std::span(first).first(2).last(1),
                                                std::span(draws).first(2).last(1), 1000);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), once.begin() + 1000));
    }
  }
}

// The formula of DeviceModelSpec.
float generated(uint32_t number, uint32_t index) {
  const auto mix = [](uint32_t h) {
    h ^= h >> 16;
    h *= 0x85ebca6bU;
    h ^= h >> 13;
    h *= 0xc2b2ae35U;
    return h ^ (h >> 16);
  };
  const uint32_t x = mix(mix(index) ^ mix(number + 1));
  const float value = static_cast<float>(static_cast<int>(x >> 8) - (1 << 23)) * 0x1.1bc77ap-28F;
  return bf16_to_float(float_to_bf16(value));
}

TEST_F(CudaDevice, GeneratesWeightsByItsFormula) {
  constexpr int64_t d = 64;
  DeviceModelSpec spec;
  spec.hidden_size = d;
  spec.vocab_size = kVocab;
  spec.norm_eps = 1e-5F;
  spec.embedding = {nullptr, DType::kBF16, Shape{kVocab, d}};
  spec.head = spec.embedding;
  auto device = gpu_->make_device_model(spec, {.kv_bytes = 1 << 20});
  ASSERT_TRUE(device.has_value()) << device.error().message;
  const auto state = (*device)->make_state();
  const std::vector<TokenId> ids = {7};
  const std::vector<float> got = run(**device, state.get(), ids, kVocab, 1);
  double square = 0;
  for (uint32_t i = 0; i < d; ++i) {
    square += std::pow(generated(0, 7 * d + i), 2) / static_cast<double>(d);
  }
  for (uint32_t row = 0; row < kVocab; ++row) {
    double want = 0;
    for (uint32_t i = 0; i < d; ++i) {
      want += static_cast<double>(generated(0, 7 * d + i)) *
              generated(1, row * static_cast<uint32_t>(d) + i);
    }
    want /= std::sqrt(square + 1e-5);
    ASSERT_NEAR(got[row], want, 1e-5) << "row " << row;
  }
}

TEST_F(CudaDevice, ASequenceThatDoesNotFitIsRefusedAndNothingChanges) {
  const auto model = small_hybrid();
  // Keys and values of one layer, two heads of 64, two bytes: 32 KiB a page; room for 16.
  const auto device = on_device(*model, size_t{512} << 10);
  ASSERT_NE(device, nullptr);
  const auto state = device->make_state();
  const std::vector<TokenId> ids = some_ids(100, kVocab, 1);
  (void)run(*device, state.get(), ids, kVocab, ids.size());
  const auto fork = state->fork();
  const Status refused = state->reserve(10000);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("pages"), std::string::npos) << refused.error().message;
  const std::vector<TokenId> next = {3};
  EXPECT_EQ(run(*device, state.get(), next, kVocab, 1), run(*device, fork.get(), next, kVocab, 1));
}

TEST_F(CudaDevice, AModelThatDoesNotFitIsRefusedBeforeItIsRead) {
  DeviceModelSpec spec;
  spec.hidden_size = 8192;
  spec.vocab_size = 100'000'000;
  spec.embedding = {nullptr, DType::kBF16, Shape{spec.vocab_size, spec.hidden_size}};
  spec.is_tied = true;
  bool is_prepared = false;
  DeviceLoadOptions options;
  options.prepare = [&]() -> Status {
    is_prepared = true;
    return {};
  };
  const auto refused = gpu_->make_device_model(spec, options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  for (const char* words : {"weights", "are free", "are missing"}) {
    EXPECT_NE(refused.error().message.find(words), std::string::npos) << refused.error().message;
  }
  EXPECT_FALSE(is_prepared);
}

TEST_F(CudaDevice, WhatTheKernelsCannotDoIsRefusedByName) {
  SmallModel heads(64, kVocab, 1);
  heads.add_mlp(64, Activation::kRelu2);
  heads.add_attention({.head_dim = 48});
  SmallModel rows(60, kVocab, 1);
  rows.add_mlp(64, Activation::kRelu2);
  SmallModel plain(64, kVocab, 1);
  DeviceModelSpec half = plain.spec();
  half.head.dtype = DType::kF16;
  const std::vector<std::pair<DeviceModelSpec, const char*>> refusals = {
      {heads.spec(), "layer 1 (of 2): attention heads of 48"},
      {rows.spec(), "embedding: rows of 60 values"},
      {half, "head: F16 weights; the CUDA backend takes BF16: dtype bfloat16 converts them"}};
  for (const auto& [spec, words] : refusals) {
    const auto refused = gpu_->make_device_model(spec, {});
    ASSERT_FALSE(refused.has_value()) << words;
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(refused.error().message.find(words), std::string::npos) << refused.error().message;
  }
}

TEST_F(CudaDevice, ADeviceThatIsNotThereIsRefused) {
  const auto refused = make_backend("cuda:99");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(refused.error().message.find("this machine has"), std::string::npos)
      << refused.error().message;
}

TEST_F(CudaDevice, MeasuresItsReadRateAndItsPhases) {
  const auto model = small_hybrid();
  const auto device = on_device(*model);
  ASSERT_NE(device, nullptr);
  const auto rate = device->measure_read_rate();
  ASSERT_TRUE(rate.has_value()) << rate.error().message;
  EXPECT_GT(*rate, 0);
  const auto state = device->make_state();
  ASSERT_TRUE(state->reserve(1).has_value());
  DeviceState* const pointer = state.get();
  const auto phases = device->profile({&pointer, 1});
  ASSERT_TRUE(phases.has_value()) << phases.error().message;
  EXPECT_FALSE(phases->empty());
  for (const DevicePhase& phase : *phases) {
    EXPECT_GT(phase.count, 0) << phase.name;
    EXPECT_GT(phase.microseconds, 0) << phase.name;
  }
}

}  // namespace
}  // namespace logitlab
