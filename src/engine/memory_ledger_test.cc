#include "engine/memory_ledger.h"

#include <gtest/gtest.h>

namespace logitlab {
namespace {

ModelPlan small_plan() {
  ModelPlan plan;
  plan.config.vocab_size = 100;
  plan.config.hidden_size = 8;
  plan.weights = {
      {"embed", Shape{100, 8}, DType::kBF16, DType::kBF16, 1600, true},
      {"up", Shape{32, 8}, DType::kBF16, DType::kF32, 1024, false},
      {"norm", Shape{8}, DType::kF32, DType::kF32, 32, false},
  };
  plan.weight_bytes = 1600 + 1024 + 32;
  plan.state = {5000, 64};
  return plan;
}

MemoryReading with_available(size_t bytes) {
  MemoryReading reading;
  reading.available_bytes = bytes;
  reading.total_bytes = 2 * bytes;
  return reading;
}

TEST(MemoryLedger, PlansOneSequenceInWholePages) {
  const MemoryLedger ledger =
      plan_memory(small_plan(), {.weights = "map"}, 33, with_available(1 << 20));
  EXPECT_EQ(ledger.weights.mapped, 1600U);
  EXPECT_EQ(ledger.weights.converted, 1024U);
  EXPECT_EQ(ledger.weights.own, 32U);
  EXPECT_EQ(ledger.state_bytes, 5000U);
  EXPECT_EQ(ledger.kv_bytes, 64U * 64U);  // two pages of 32
  // 33 rows of three residual streams and two inner rows of 32, and one row of logits.
  EXPECT_EQ(ledger.scratch_bytes, (33U * (3 * 8 + 2 * 32) + 100) * sizeof(float));
  EXPECT_EQ(ledger.needed_bytes(), 1600U + 1024 + 32 + 5000 + 4096 + ledger.scratch_bytes);
  EXPECT_TRUE(ledger.fits());
  EXPECT_EQ(ledger.placement_name(), "mapped");
  EXPECT_TRUE(ledger.file_cache_stays());
}

TEST(MemoryLedger, WhatIsReadIsNotMapped) {
  const MemoryLedger ledger =
      plan_memory(small_plan(), {.weights = "read"}, 1, with_available(1 << 20));
  EXPECT_EQ(ledger.weights.mapped, 0U);
  EXPECT_EQ(ledger.weights.own, 1632U);
  EXPECT_EQ(ledger.placement_name(), "read");
  EXPECT_FALSE(ledger.file_cache_stays());
}

TEST(MemoryLedger, SaysWhatDoesNotFit) {
  const MemoryLedger refused = plan_memory(small_plan(), {}, 1, with_available(2000));
  EXPECT_EQ(refused.placement_name(), "refused");
  EXPECT_EQ(refused.placement.missing, 656U);
  EXPECT_FALSE(refused.fits());
  const MemoryLedger offloaded =
      plan_memory(small_plan(), {.offload = true}, 1, with_available(2000));
  EXPECT_EQ(offloaded.placement_name(), "offloaded");
  EXPECT_EQ(offloaded.weights.mapped, 1600U);
  EXPECT_FALSE(offloaded.file_cache_stays());
  // The weights fit, one sequence beside them does not.
  const MemoryLedger tight = plan_memory(small_plan(), {}, 1, with_available(3000));
  EXPECT_EQ(tight.placement_name(), "mapped");
  EXPECT_FALSE(tight.fits());
}

}  // namespace
}  // namespace logitlab
