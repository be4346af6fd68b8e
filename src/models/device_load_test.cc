// Models of both families on a device that only looks at what it is given.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "backend/device_model.h"
#include "base/check.h"
#include "formats/model_source.h"
#include "models/model.h"
#include "models/weight_store.h"

namespace logitlab {
namespace {

// What a device saw of a load.
struct Seen {
  DeviceModelSpec spec;
  size_t bytes_read = 0;
  size_t bytes_released = 0;
  bool was_prepared = false;
};

class IdleModel final : public DeviceModel {
 public:
  [[nodiscard]] std::unique_ptr<DeviceState> make_state() const override { return nullptr; }
  [[nodiscard]] size_t state_bytes(int64_t n_positions) const override {
    return static_cast<size_t>(n_positions);
  }
  [[nodiscard]] int64_t max_chunk() const override { return 8192; }
  [[nodiscard]] Status forward(std::span<const DeviceChunk> /*chunks*/,
                               float* /*logits*/) const override {
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

// Takes whole BF16 models, or refuses them for want of memory.
class WholeModels final : public Backend {
 public:
  explicit WholeModels(Seen* seen, bool has_room = true) : seen_(seen), has_room_(has_room) {}

  [[nodiscard]] std::string_view name() const override { return "whole"; }
  [[nodiscard]] std::string_view isa() const override { return "none"; }
  [[nodiscard]] bool supports(Op /*op*/, DType weight) const override {
    return weight == DType::kBF16;
  }
  [[nodiscard]] bool runs_whole_models() const override { return true; }
  [[nodiscard]] Result<std::unique_ptr<DeviceModel>> make_device_model(
      const DeviceModelSpec& spec, const DeviceLoadOptions& options) const override {
    if (!has_room_) {
      return fail(ErrorCode::kResourceExhausted, "no room");
    }
    RETURN_IF_ERROR(options.prepare());
    seen_->was_prepared = true;
    seen_->spec = spec;
    for (const DeviceLayer& layer : spec.layers) {
      if (const auto* mamba = std::get_if<DeviceMamba>(&layer.mixer)) {
        read(mamba->in_proj.weights[0], options);
      }
      if (const auto* attention = std::get_if<DeviceAttention>(&layer.mixer)) {
        read(attention->o.weights[0], options);
      }
    }
    return std::make_unique<IdleModel>();
  }

  void embed(ExecContext& /*c*/, const Tensor& /*t*/, std::span<const TokenId> /*ids*/,
             float* /*out*/) const override {
    CHECK(false);
  }
  void linear(ExecContext& /*c*/, const float* /*x*/, int64_t /*rows*/,
              std::span<const LinearPart> /*parts*/) const override {
    CHECK(false);
  }
  void rms_norm(ExecContext& /*c*/, const float* /*x*/, const float* /*w*/, float /*eps*/,
                int64_t /*rows*/, int64_t /*d*/, float* /*out*/) const override {
    CHECK(false);
  }
  void rope(ExecContext& /*c*/, float* /*x*/, const float* /*cosine*/, const float* /*sine*/,
            int64_t /*rows*/, int64_t /*n_heads*/, int64_t /*head_dim*/, int64_t /*rotary_dim*/,
            RopeLayout /*layout*/) const override {
    CHECK(false);
  }
  void attention(ExecContext& /*c*/, const float* /*q*/, std::span<const AttentionRow> /*rows*/,
                 const AttentionShape& /*shape*/, float* /*out*/) const override {
    CHECK(false);
  }
  void silu_mul(ExecContext& /*c*/, const float* /*gate*/, const float* /*up*/, int64_t /*n*/,
                float* /*out*/) const override {
    CHECK(false);
  }
  void grouped_linear(ExecContext& /*c*/, std::span<const GroupedPart> /*parts*/) const override {
    CHECK(false);
  }
  void activate(ExecContext& /*c*/, Activation /*a*/, float* /*x*/, int64_t /*n*/) const override {
    CHECK(false);
  }
  void mamba2(ExecContext& /*c*/, const Mamba2Weights& /*w*/, const Mamba2Shape& /*shape*/,
              std::span<const Mamba2Span> /*spans*/, float* /*projected*/,
              float* /*out*/) const override {
    CHECK(false);
  }

 private:
  // Counts bytes that are there and not all zero.
  void read(const Tensor& tensor, const DeviceLoadOptions& options) const {
    if (tensor.data == nullptr) {
      return;
    }
    options.will_need(tensor.data, tensor.bytes());
    const bool has_values = std::any_of(tensor.data, tensor.data + tensor.bytes(),
                                        [](std::byte byte) { return byte != std::byte{0}; });
    seen_->bytes_read += has_values ? tensor.bytes() : 0;
    options.release(tensor.data, tensor.bytes());
    seen_->bytes_released += tensor.bytes();
  }

  Seen* seen_;
  bool has_room_;
};

class DeviceLoad : public ::testing::Test {
 protected:
  Result<std::shared_ptr<const Model>> load(const std::string& name, const Backend& backend,
                                            const LoadOptions& options) {
    const auto source =
        resolve_model(std::string(LOGITLAB_SOURCE_DIR "/tests/data/models/") + name);
    CHECK(source.has_value()) << source.error().message;
    ExecContext context{backend, threads_};
    return load_model(*source, options, context);
  }

  ThreadPool threads_{2};
  Seen seen_;
  WholeModels backend_{&seen_};
};

TEST_F(DeviceLoad, ADecoderLayerIsTwoLayersOfADevice) {
  const auto model = load("llama_gqa_tied", backend_, {});
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(seen_.spec.layers.size(), 2U * (*model)->config().layer_kinds.size());
  EXPECT_TRUE(std::holds_alternative<DeviceAttention>(seen_.spec.layers[0].mixer));
  EXPECT_TRUE(std::holds_alternative<DeviceMlp>(seen_.spec.layers[1].mixer));
  EXPECT_TRUE(seen_.spec.is_tied);
  EXPECT_EQ(static_cast<int64_t>(seen_.spec.inv_freq.size()), (*model)->config().head_dim / 2);
  EXPECT_GT(seen_.bytes_read, 0U);
  EXPECT_EQ(seen_.bytes_read, seen_.bytes_released);
  ASSERT_NE((*model)->device_model(), nullptr);
  EXPECT_EQ((*model)->prefill_chunk(), 8192);
  EXPECT_EQ((*model)->state_bytes(7), 7U);
  for (const WeightEntry& entry : (*model)->weights()) {
    EXPECT_TRUE(entry.is_on_device && !entry.is_mapped) << entry.name;
  }
}

TEST_F(DeviceLoad, AHybridKeepsItsKindsOfLayers) {
  const auto model = load("nemotron_h_bf16", backend_, {});
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const std::vector<LayerKind>& kinds = (*model)->config().layer_kinds;
  ASSERT_EQ(seen_.spec.layers.size(), kinds.size());
  for (size_t i = 0; i < kinds.size(); ++i) {
    const size_t want = kinds[i] == LayerKind::kMamba       ? 0
                        : kinds[i] == LayerKind::kAttention ? 1
                        : kinds[i] == LayerKind::kMoe       ? 2
                                                            : 3;
    EXPECT_EQ(seen_.spec.layers[i].mixer.index(), want) << "layer " << i;
  }
  EXPECT_TRUE(seen_.spec.inv_freq.empty());
}

TEST_F(DeviceLoad, OtherTypesAreRefusedWithTheWayOutAndConvertedWhenAsked) {
  const auto refused = load("nemotron_h", backend_, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(refused.error().message.find("F32 weights; dtype bfloat16 converts them"),
            std::string::npos)
      << refused.error().message;
  EXPECT_FALSE(seen_.was_prepared);
  const auto model = load("nemotron_h", backend_, {.dtype = "bfloat16"});
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_GT(seen_.bytes_read, 0U) << "converted values are there when the device reads them";
}

TEST_F(DeviceLoad, RandomWeightsAreNotRead) {
  const auto model = load("nemotron_h_bf16", backend_, {.random_weights = true});
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(seen_.bytes_read, 0U);
  EXPECT_EQ(seen_.spec.embedding.data, nullptr);
  EXPECT_NE(seen_.spec.final_norm, nullptr) << "vectors come from the file";
  const auto host = load("nemotron_h_bf16", *make_reference_backend(), {.random_weights = true});
  ASSERT_FALSE(host.has_value());
  EXPECT_EQ(host.error().code, ErrorCode::kUnsupported);
}

TEST_F(DeviceLoad, ADeviceWithoutRoomRefusesBeforeAnythingIsRead) {
  const WholeModels small(&seen_, /*has_room=*/false);
  const auto refused = load("nemotron_h", small, {.dtype = "bfloat16"});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_FALSE(seen_.was_prepared);
}

}  // namespace
}  // namespace logitlab
