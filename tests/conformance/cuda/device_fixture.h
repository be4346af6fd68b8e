// What the tests of a GPU share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "backend/backend.h"
#include "backend/device_model.h"
#include "base/thread_pool.h"
#include "small_model.h"

namespace logitlab {

// Skips with the reason where there is no GPU that this build can use.
class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto gpu = make_backend("cuda:0");
    if (!gpu) {
      GTEST_SKIP() << gpu.error().message;
    }
    gpu_ = std::move(*gpu);
    host_ = make_reference_backend();
    context_ = std::make_unique<ExecContext>(ExecContext{*host_, threads_});
  }

  [[nodiscard]] std::unique_ptr<DeviceModel> on_device(const SmallModel& model,
                                                       size_t kv_bytes = size_t{64} << 20) {
    DeviceLoadOptions options;
    options.kv_bytes = kv_bytes;
    auto device = gpu_->make_device_model(model.spec(), options);
    EXPECT_TRUE(device.has_value()) << device.error().message;
    return device ? std::move(*device) : nullptr;
  }

  // Logits of every id; `piece` ids go through the model at once.
  static std::vector<float> run(const DeviceModel& device, DeviceState* state,
                                std::span<const TokenId> ids, int64_t vocab_size, size_t piece) {
    std::vector<float> logits(ids.size() * static_cast<size_t>(vocab_size));
    for (size_t at = 0; at < ids.size(); at += piece) {
      const size_t n = std::min(piece, ids.size() - at);
      const Status reserved = state->reserve(static_cast<int64_t>(n));
      EXPECT_TRUE(reserved.has_value()) << reserved.error().message;
      const DeviceChunk chunk{state, ids.subspan(at, n), /*last_only=*/false};
      const Status done =
          device.forward({&chunk, 1}, logits.data() + at * static_cast<size_t>(vocab_size));
      EXPECT_TRUE(done.has_value()) << done.error().message;
      if (!reserved || !done) {
        break;
      }
    }
    return logits;
  }

  std::unique_ptr<Backend> gpu_;
  std::unique_ptr<Backend> host_;
  ThreadPool threads_{2};
  std::unique_ptr<ExecContext> context_;
};

[[nodiscard]] inline std::vector<TokenId> some_ids(size_t n, int64_t vocab_size, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> ids(n);
  for (TokenId& id : ids) {
    id = static_cast<TokenId>(random() % static_cast<uint64_t>(vocab_size));
  }
  return ids;
}

}  // namespace logitlab
