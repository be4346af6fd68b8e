#include "lab/measures/divergence.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

// A run of a vocabulary of 10, made by hand: each step has candidates 0 to 3 with given logits.
struct MadeRun {
  RunTrace run;
  std::vector<TracedStep> steps;
  RunEnd end;
  std::string execution = "{}";

  explicit MadeRun(const std::string& config, uint64_t seed = 1) {
    run.model = "model";
    run.model_hash = "hash";
    run.device = "cpu";
    run.isa = "AVX2";
    run.build = "1";
    run.config_json = config;
    run.seed = seed;
    run.vocab_size = 10;
    run.n_candidates = 4;
    run.prompts = {{5, 6}};
    run.sequence_prompts = {0};
    end.pieces = {{0, " zero"}, {1, " one"}, {2, " two"}, {3, " three"}};
  }

  // `dropped`: the stage "top_k" removed these.
  MadeRun& step(TokenId id, std::vector<float> logits, std::vector<TokenId> dropped = {},
                double scale = 1) {
    TracedStep made;
    made.step = static_cast<int64_t>(steps.size());
    made.id = id;
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      TracedCandidate candidate;
      candidate.id = static_cast<TokenId>(i);
      candidate.logit = logits[i];
      candidate.score = static_cast<float>(logits[i] * scale);
      for (const TokenId gone : dropped) {
        if (gone == candidate.id) {
          candidate.dropped_by = 0;
          candidate.score = -std::numeric_limits<float>::infinity();
        }
      }
      candidate.probability = std::exp(static_cast<double>(candidate.score));
      sum += candidate.probability;
      made.candidates.push_back(candidate);
      made.logits_hash = made.logits_hash * 31 + static_cast<uint64_t>(logits[i] * 1000);
    }
    for (TracedCandidate& candidate : made.candidates) {
      candidate.probability /= sum;
    }
    made.stages.push_back({"top_k", static_cast<int64_t>(logits.size() - dropped.size()), 1.0});
    steps.push_back(std::move(made));
    return *this;
  }
  [[nodiscard]] DivergenceInput input() const { return {&run, &steps, &end, 0, execution}; }
};

Divergence between(const MadeRun& first, const MadeRun& second) {
  const auto found = find_divergence(first.input(), second.input());
  EXPECT_TRUE(found) << found.error().message;
  return found.value_or(Divergence{});
}

const std::string kSampled = R"({"do_sample":true,"top_k":2})";
const std::string kGreedy = R"({"do_sample":false})";
const std::vector<float> kRow = {2.0F, 1.0F, 0.5F, 0.0F};

TEST(Divergence, EqualRunsHaveNone) {
  const MadeRun run = MadeRun(kGreedy).step(0, kRow).step(1, kRow);
  const Divergence found = between(run, run);
  EXPECT_EQ(found.cause, DivergenceCause::kNone);
  EXPECT_EQ(found.common_tokens, 2);
  EXPECT_EQ(found.verdict, "All 2 tokens are the same.");
}

TEST(Divergence, OneMayBeTheBeginningOfTheOther) {
  const MadeRun shorter = MadeRun(kGreedy).step(0, kRow);
  const MadeRun longer = MadeRun(kGreedy).step(0, kRow).step(1, kRow);
  const Divergence found = between(shorter, longer);
  EXPECT_EQ(found.cause, DivergenceCause::kLength);
  EXPECT_EQ(found.step, 1);
  EXPECT_NE(found.verdict.find("the first run had ended"), std::string::npos);
  EXPECT_NE(between(longer, shorter).verdict.find("the second run had ended"), std::string::npos);
}

TEST(Divergence, PromptsComeFirst) {
  const MadeRun first = MadeRun(kGreedy).step(0, kRow);
  MadeRun second = MadeRun(kGreedy).step(1, kRow);
  second.run.prompts[0].push_back(7);
  EXPECT_EQ(between(first, second).cause, DivergenceCause::kPrompt);
}

TEST(Divergence, ATieIsDecidedByTheDraw) {
  const std::vector<float> tied = {1.5F, 1.5F, 0.5F, 0.0F};
  const std::string config = R"({"do_sample":true,"top_k":1,"logits_dtype":"bfloat16"})";
  const MadeRun first = MadeRun(config, 111).step(3, kRow).step(0, tied, {2, 3});
  const MadeRun second = MadeRun(config, 222).step(3, kRow).step(1, tied, {2, 3});
  const Divergence found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kTie);
  EXPECT_EQ(found.step, 1);
  EXPECT_EQ(found.gap, 0);
  EXPECT_EQ(found.gap_ulps, 0);
  EXPECT_EQ(found.survivors[0], 2);
  EXPECT_EQ(found.verdict,
            "Step 1: ' zero' and ' one' have exactly the same logit (bfloat16), both survive, and "
            "the draw decides: seed 111 took the first, seed 222 the second.");
  const MadeRun greedy =
      MadeRun(R"({"do_sample":false,"logits_dtype":"bfloat16"})").step(3, kRow).step(0, tied);
  const Divergence other = between(greedy, second);
  EXPECT_EQ(other.cause, DivergenceCause::kTie);
  EXPECT_NE(other.verdict.find("greedy decoding takes the lower id"), std::string::npos);
}

TEST(Divergence, ADrawDecidesWhereBothSurvive) {
  const MadeRun first = MadeRun(kSampled, 1).step(0, kRow, {2, 3});
  const MadeRun second = MadeRun(kSampled, 2).step(1, kRow, {2, 3});
  const Divergence found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kDraw);
  EXPECT_DOUBLE_EQ(found.gap, 1);
  // 2.0 has steps of 2^-22 in float32.
  EXPECT_DOUBLE_EQ(found.gap_ulps, std::ldexp(1.0, 22));
  EXPECT_TRUE(found.logits_equal);
  EXPECT_EQ(found.sides[0][1].rank, 2);
  EXPECT_TRUE(std::isfinite(found.key[0][0]));
  EXPECT_NE(found.verdict.find("the draw of seed 1 chose ' zero'"), std::string::npos)
      << found.verdict;
  const MadeRun greedy = MadeRun(kGreedy).step(0, kRow);
  const Divergence other = between(greedy, second);
  EXPECT_EQ(other.cause, DivergenceCause::kDraw);
  EXPECT_NE(other.verdict.find("the largest score chose ' zero'"), std::string::npos);
}

TEST(Divergence, AFilterMayHaveRemovedTheToken) {
  const MadeRun first = MadeRun(kSampled, 1).step(0, kRow, {2, 3});
  const MadeRun second = MadeRun(R"({"do_sample":true,"top_k":3})", 1).step(2, kRow, {3});
  const Divergence found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kFilter);
  EXPECT_EQ(found.sides[0][1].dropped_by, "top_k");
  EXPECT_NE(found.verdict.find("top_k removed ' two' in the first run"), std::string::npos);
  ASSERT_EQ(found.changed_settings.size(), 1U);
  EXPECT_EQ(found.changed_settings[0], "top_k: 2 -> 3");
  EXPECT_NE(between(second, first).verdict.find("removed ' two' in the second run"),
            std::string::npos);
}

TEST(Divergence, APenaltyOrATemperatureMovesScores) {
  const MadeRun first = MadeRun(R"({"do_sample":true,"temperature":1.0})", 3).step(0, kRow);
  const MadeRun second =
      MadeRun(R"({"do_sample":true,"temperature":2.0})", 3).step(1, kRow, {}, 0.5);
  const Divergence found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kPenalty);
  EXPECT_NE(found.verdict.find("temperature: 1.0 -> 2.0"), std::string::npos) << found.verdict;
}

TEST(Divergence, OtherLogitsAreNumericsUnlessTheExecutionDiffers) {
  const std::vector<float> other = {2.0F, 2.001F, 0.5F, 0.0F};
  MadeRun first = MadeRun(kGreedy).step(3, kRow).step(0, kRow);
  MadeRun second = MadeRun(kGreedy).step(3, other).step(1, other);
  Divergence found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kNumerics);
  EXPECT_EQ(found.first_hash_change, 0);
  EXPECT_FALSE(found.logits_equal);
  EXPECT_NE(found.verdict.find("from step 0 on"), std::string::npos);
  second.execution = R"({"neighbours":3})";
  EXPECT_EQ(between(first, second).cause, DivergenceCause::kBatch);
  second.execution = R"({"prefill_chunk":3})";
  EXPECT_EQ(between(first, second).cause, DivergenceCause::kCache);
  second.execution = "{}";
  second.run.model_hash = "another";
  found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kNumerics);
  EXPECT_NE(found.verdict.find("the models are not the same"), std::string::npos);
  second.run.model_hash = "hash";
  second.run.config_json = R"({"do_sample":false,"logits_dtype":"bfloat16"})";
  EXPECT_NE(between(first, second).verdict.find("rounded to different types"), std::string::npos);
}

TEST(Divergence, AFilterIsNamedByTheRankOfATokenOutsideTheTrace) {
  // The first run kept one token of the ten; the second took one that neither trace lists.
  const MadeRun first = MadeRun(R"({"do_sample":true,"top_k":1})", 1).step(0, kRow, {1, 2, 3});
  MadeRun second = MadeRun(R"({"do_sample":true,"top_k":0})", 1).step(0, kRow);
  second.steps[0].id = 9;
  second.steps[0].raw_rank = 7;
  const Divergence found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kFilter);
  EXPECT_EQ(found.sides[0][1].dropped_by, "top_k");
  // Where scores were moved a rank by logits says nothing.
  MadeRun moved = first;
  moved.steps[0].stages.insert(moved.steps[0].stages.begin(), {"repetition_penalty", 10, 1.0});
  moved.steps[0].stages.front().changed = 2;
  EXPECT_NE(between(moved, second).cause, DivergenceCause::kFilter);
}

TEST(Divergence, ATokenOutsideTheTraceIsUnknown) {
  const MadeRun first = MadeRun(kSampled, 1).step(0, kRow);
  MadeRun second = MadeRun(kSampled, 1).step(0, kRow);
  second.steps[0].id = 9;
  const Divergence found = between(first, second);
  EXPECT_EQ(found.cause, DivergenceCause::kUnknown);
  EXPECT_FALSE(found.sides[0][1].is_known);
  EXPECT_EQ(found.sides[1][1].piece, "#9");
}

TEST(Divergence, RefusesBeamsAndForeignSequences) {
  const MadeRun run = MadeRun(kGreedy).step(0, kRow);
  const MadeRun beams = MadeRun(R"({"num_beams":3})").step(0, kRow);
  DivergenceInput other = run.input();
  other.sequence = 1;
  for (const DivergenceInput& input : {beams.input(), other}) {
    const auto found = find_divergence(run.input(), input);
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::kInvalidArgument);
  }
  MadeRun broken = run;
  broken.run.config_json = "[]";
  EXPECT_FALSE(find_divergence(run.input(), broken.input()));
}

TEST(Divergence, CausesHaveNames) {
  EXPECT_EQ(name(DivergenceCause::kNone), "none");
  EXPECT_EQ(name(DivergenceCause::kNumerics), "numerics");
  EXPECT_EQ(name(DivergenceCause::kUnknown), "unknown");
}

}  // namespace
}  // namespace logitlab
