#include "models/device_spec.h"

#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

Linear linear(int64_t rows, int64_t columns, const float* bias = nullptr) {
  return {Tensor{nullptr, DType::kBF16, Shape{rows, columns}}, bias};
}

TEST(DeviceSpec, JoinsTheProjectionsOfAttention) {
  const float bias = 1;
  const float norm = 2;
  Attention attention;
  attention.q = linear(8, 16, &bias);
  attention.k = linear(4, 16);
  attention.v = linear(4, 16);
  attention.o = linear(16, 8);
  attention.q_norm = {&norm, 4, 1e-6F};
  attention.shape = {2, 1, 4, 0.5F};
  attention.window = 7;
  const DeviceAttention device = device_attention(attention, true);
  ASSERT_EQ(device.qkv.weights.size(), 3U);
  EXPECT_EQ(device.qkv.weights[0].shape, (Shape{8, 16}));
  EXPECT_EQ(device.qkv.biases, (std::vector<const float*>{&bias, nullptr, nullptr}));
  EXPECT_EQ(device.o.weights.size(), 1U);
  EXPECT_EQ(device.q_norm, &norm);
  EXPECT_EQ(device.k_norm, nullptr);
  EXPECT_EQ(device.qk_norm_eps, 1e-6F);
  EXPECT_EQ(device.window, 7);
  EXPECT_TRUE(device.has_rope);
}

TEST(DeviceSpec, AnMlpHasAGateOrNone) {
  EXPECT_TRUE(
      device_mlp(Mlp{linear(8, 16), linear(16, 8), Activation::kSilu}).gate.weights.empty());
  const DeviceMlp gated = device_mlp(GatedMlp{linear(8, 16), linear(8, 16), linear(16, 8)});
  EXPECT_EQ(gated.gate.weights.size(), 1U);
}

TEST(DeviceSpec, AMixtureKeepsItsRouting) {
  MixtureOfExperts mixture;
  mixture.router = linear(4, 16);
  mixture.up = {linear(8, 16).weight, linear(8, 16).weight};
  mixture.down = mixture.up;
  mixture.routing = {4, 2, 2, 1, false, 2.5F};
  const DeviceMixture device = device_mixture(mixture);
  EXPECT_EQ(device.n_chosen, 2);
  EXPECT_EQ(device.n_groups, 2);
  EXPECT_EQ(device.kept_groups, 1);
  EXPECT_FALSE(device.normalises);
  EXPECT_EQ(device.scale, 2.5F);
  EXPECT_FALSE(device.has_shared);
  EXPECT_TRUE(device.latent_in.weights.empty());
}

TEST(DeviceSpec, KeysAndValuesTakeHalfOfWhatTheyDoOnTheHost) {
  const StateCost cost = device_state_cost({100, 64});
  EXPECT_EQ(cost.fixed_bytes, 100U);
  EXPECT_EQ(cost.position_bytes, 32U);
}

// A device that counts, and answers with the ids themselves.
class CountingState final : public DeviceState {
 public:
  [[nodiscard]] int64_t length() const override { return length_; }
  [[nodiscard]] Status reserve(int64_t n) override {
    if (length_ + n > 10) {
      return fail(ErrorCode::kResourceExhausted, "ten positions at most");
    }
    reserved_ = length_ + n;
    return {};
  }
  [[nodiscard]] bool can_truncate() const override { return true; }
  void truncate(int64_t length) override { length_ = length; }
  [[nodiscard]] std::unique_ptr<DeviceState> fork() const override {
    return std::make_unique<CountingState>(*this);
  }
  [[nodiscard]] size_t bytes() const override { return static_cast<size_t>(reserved_); }
  void advance(int64_t n) { length_ += n; }

 private:
  int64_t length_ = 0;
  int64_t reserved_ = 0;
};

class CountingModel final : public DeviceModel {
 public:
  [[nodiscard]] std::unique_ptr<DeviceState> make_state() const override {
    return std::make_unique<CountingState>();
  }
  [[nodiscard]] size_t state_bytes(int64_t n_positions) const override {
    return static_cast<size_t>(n_positions);
  }
  [[nodiscard]] int64_t max_chunk() const override { return 4; }
  [[nodiscard]] Status forward(std::span<const DeviceChunk> chunks, float* logits) const override {
    for (const DeviceChunk& chunk : chunks) {
      const size_t first = chunk.last_only ? chunk.ids.size() - 1 : 0;
      for (size_t i = first; i < chunk.ids.size() && !chunk.no_logits; ++i) {
        *logits++ = static_cast<float>(chunk.ids[i]);
        *logits++ = -1;
      }
      static_cast<CountingState*>(chunk.state)->advance(static_cast<int64_t>(chunk.ids.size()));
    }
    return {};
  }
  [[nodiscard]] Status decode_steps(std::span<DeviceState* const> /*states*/,
                                    std::span<const TokenId> /*first*/,
                                    std::span<const DeviceDraw> /*draws*/, int64_t /*n_steps*/,
                                    TokenId* /*out*/) const override {
    return {};
  }
  [[nodiscard]] Result<std::vector<DevicePhase>> profile(
      std::span<DeviceState* const> /*states*/) const override {
    return std::vector<DevicePhase>();
  }
  [[nodiscard]] Result<double> measure_read_rate() const override { return 1.0; }
  [[nodiscard]] DeviceMemory memory() const override { return {}; }
};

TEST(DeviceSpec, ForwardAsksForTheRowsThatAreWanted) {
  const CountingModel model;
  DecodeState one(model.make_state());
  DecodeState two(model.make_state());
  DecodeState three(model.make_state());
  const std::vector<TokenId> ids = {0, 1, 1};
  const std::vector<SequenceChunk> batch = {{&one, ids, LogitRows::kAll},
                                            {&two, ids, LogitRows::kNone},
                                            {&three, std::span(ids).first(2)}};
  const auto logits = forward_on_device(model, 2, batch);
  ASSERT_TRUE(logits.has_value()) << logits.error().message;
  EXPECT_EQ(logits->rows, 4);
  EXPECT_EQ(logits->values, (std::vector<float>{0, -1, 1, -1, 1, -1, 1, -1}));
  EXPECT_EQ(one.length(), 3);
  EXPECT_EQ(two.length(), 3);
  EXPECT_EQ(three.length(), 2);
}

TEST(DeviceSpec, ForwardRefusesWhatTheHostRefuses) {
  const CountingModel model;
  DecodeState state(model.make_state());
  const std::vector<TokenId> outside = {0, 2};
  const SequenceChunk wrong{&state, outside};
  EXPECT_EQ(forward_on_device(model, 2, {&wrong, 1}).error().code, ErrorCode::kInvalidArgument);
  const std::vector<TokenId> many(11, 0);
  const SequenceChunk large{&state, many};
  EXPECT_EQ(forward_on_device(model, 2, {&large, 1}).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(state.length(), 0);
}

TEST(DeviceSpec, AStateOnADeviceForksAndGoesBackThere) {
  const CountingModel model;
  DecodeState state(model.make_state());
  const std::vector<TokenId> ids = {0, 1};
  const SequenceChunk chunk{&state, ids};
  ASSERT_TRUE(forward_on_device(model, 2, {&chunk, 1}).has_value());
  const DecodeState snapshot = state.fork();
  state.truncate(1);
  EXPECT_EQ(state.length(), 1);
  EXPECT_EQ(snapshot.length(), 2);
  state.restore(snapshot);
  EXPECT_EQ(state.length(), 2);
  EXPECT_TRUE(state.can_truncate());
  EXPECT_EQ(state.bytes(), 2U);
  EXPECT_DEATH(state.advance(1), "a device counts its own positions");
}

}  // namespace
}  // namespace logitlab
