// A tie of a real model run: rounded to bfloat16 the two best logits are the same number.
#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "../models/recordings.h"
#include "generate/generator.h"
#include "generate/toy_model.h"
#include "sampling/effective_config.h"

namespace logitlab::testing {
namespace {

// The first step after this prompt: in float32 token 30 leads token 79 by 0.011 of 7.34.
constexpr TokenId kPrompt = 16;
constexpr TokenId kBest = 30;
constexpr TokenId kSecond = 79;
// Seeds that are tried: a fair coin shows one side alone once in 2^31.
constexpr uint64_t kSeeds = 32;

class RealTie : public ::testing::Test {
 protected:
  RealTie() : loaded_(model_path("llama_mha"), "cpu", 1) {}

  // One sampled token with top_k=1; its trace is in trace_.
  TokenId draw(LogitsDtype dtype, Semantics semantics, uint64_t seed) {
    GenerationConfig config;
    config.do_sample = true;
    config.top_k = 1;
    config.seed = seed;
    config.max_new_tokens = 1;
    config.logits_dtype = dtype;
    config.semantics = semantics;
    trace_ = {};
    GenerateOptions options;
    options.trace.sink = &trace_;
    const std::vector<TokenId> ids = {kPrompt};
    const PromptInput prompt{ids, nullptr};
    const auto result = generate(loaded_.context(), loaded_.model(), {&prompt, 1},
                                 merge_generation_config(config, {}).config, options);
    EXPECT_TRUE(result) << result.error().message;
    return result ? result->first().ids.front() : -1;
  }

  std::set<TokenId> drawn(LogitsDtype dtype, Semantics semantics) {
    std::set<TokenId> ids;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      ids.insert(draw(dtype, semantics, seed));
    }
    return ids;
  }

  // The stage of the last run that cut at k.
  TracedStage top_k_stage() {
    if (trace_.steps.size() != 1) {
      ADD_FAILURE() << trace_.steps.size() << " steps traced";
      return {};
    }
    for (const TracedStage& stage : trace_.steps[0].stages) {
      if (stage.name == "top_k") {
        return stage;
      }
    }
    ADD_FAILURE() << "no stage named top_k";
    return {};
  }

  LoadedModel loaded_;
  CollectedTrace trace_;
};

TEST_F(RealTie, TransformersKeepsBoth) {
  ASSERT_TRUE(loaded_.ok());
  EXPECT_EQ(drawn(LogitsDtype::kBfloat16, Semantics::kTransformers),
            (std::set<TokenId>{kBest, kSecond}));
  const TracedStage stage = top_k_stage();
  EXPECT_EQ(stage.survivors, 2);
  EXPECT_EQ(stage.tied_kept, 2);
  EXPECT_EQ(stage.tied_dropped, 0);
  EXPECT_EQ(trace_.steps[0].n_tied_at_max, 2);
  EXPECT_EQ(trace_.steps[0].tied_at_max, (std::vector<TokenId>{kBest, kSecond}));
  EXPECT_NEAR(trace_.steps[0].probability, 0.5, 1e-9);
}

TEST_F(RealTie, VllmKeepsOne) {
  ASSERT_TRUE(loaded_.ok());
  EXPECT_EQ(drawn(LogitsDtype::kBfloat16, Semantics::kVllm).size(), 1U);
  const TracedStage stage = top_k_stage();
  EXPECT_EQ(stage.survivors, 1);
  EXPECT_EQ(stage.tied_kept, 1);
  EXPECT_EQ(stage.tied_dropped, 1);
  EXPECT_EQ(trace_.steps[0].n_tied_at_max, 2) << "the tie itself is still shown";
}

TEST_F(RealTie, IsGoneInFloat32) {
  ASSERT_TRUE(loaded_.ok());
  EXPECT_EQ(drawn(LogitsDtype::kFloat32, Semantics::kTransformers), (std::set<TokenId>{kBest}));
  const TracedStage stage = top_k_stage();
  EXPECT_EQ(stage.survivors, 1);
  EXPECT_EQ(stage.tied_kept, 1);
  EXPECT_EQ(trace_.steps[0].n_tied_at_max, 1);
}

}  // namespace
}  // namespace logitlab::testing
