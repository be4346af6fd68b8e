#include "lab/measures/verification.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "trace/trace_text.h"

namespace logitlab {
namespace {

// Two steps of a vocabulary of ten; `hash` is that of the logits of the second one.
RunRecord made_run(TokenId second, uint64_t hash, const std::string& isa = "AVX2") {
  TraceCompressor compressor;
  TraceText text(&compressor);
  RunTrace run;
  run.model = "model";
  run.model_hash = "hash";
  run.device = "cpu";
  run.isa = isa;
  run.build = "1";
  run.config_json = R"({"do_sample":false})";
  run.vocab_size = 10;
  run.n_candidates = 2;
  run.prompts = {{5, 6}};
  run.sequence_prompts = {0};
  text.begin(run);
  for (const TokenId id : {TokenId{1}, second}) {
    TracedStep step;
    step.step = id == second ? 1 : 0;
    step.id = id;
    step.logits_hash = step.step == 1 ? hash : 7;
    step.rank = step.raw_rank = 1;
    for (const TokenId candidate : {TokenId{2}, TokenId{3}}) {
      TracedCandidate one;
      one.id = candidate;
      one.logit = one.score = candidate == 2 ? 2.0F : 1.0F;
      one.raw_probability = one.probability = 0.4;
      step.candidates.push_back(one);
    }
    if (id == 1) {
      TracedCandidate chosen;
      chosen.id = 1;
      step.candidates.push_back(chosen);
    }
    step.tied_at_max = {2};
    text.step(step);
  }
  RunEnd end;
  TracedSequence sequence;
  sequence.ids = {1, second};
  sequence.stop_reason = "length";
  end.sequences = {sequence};
  end.pieces = {{1, " one"}, {2, " two"}, {3, " three"}};
  text.end(end);

  RunRecord record;
  record.id = 12;
  record.ids = {1, second};
  record.hash = hash;
  record.execution_json = "{}";
  record.trace = text.take();
  return record;
}

Verification verified(const RunRecord& stored, const RunRecord& again) {
  const auto found = verify_run(stored, again);
  EXPECT_TRUE(found) << found.error().message;
  return found.value_or(Verification{});
}

TEST(Verification, TheSameRunIsEqual) {
  const Verification found = verified(made_run(2, 9), made_run(2, 9));
  EXPECT_TRUE(found.is_equal());
  EXPECT_EQ(found.verdict, "Equal tokens (2), equal logits hash (0000000000000009).");
  EXPECT_EQ(found.first_difference, -1);
}

TEST(Verification, AnotherTokenIsNamedWithItsStepAndCause) {
  const Verification found = verified(made_run(2, 9), made_run(3, 10, "SSE4"));
  EXPECT_FALSE(found.is_equal());
  EXPECT_EQ(found.first_difference, 1);
  ASSERT_TRUE(found.divergence);
  EXPECT_EQ(found.divergence->cause, DivergenceCause::kNumerics);
  EXPECT_NE(found.verdict.find("AVX2 and SSE4"), std::string::npos) << found.verdict;
}

TEST(Verification, OtherLogitsUnderTheSameTokensAreSeen) {
  const Verification found = verified(made_run(2, 9), made_run(2, 10, "SSE4"));
  EXPECT_FALSE(found.is_equal());
  EXPECT_TRUE(found.has_same_tokens);
  EXPECT_EQ(found.first_difference, 1);
  EXPECT_EQ(found.verdict,
            "Equal tokens (2), but other logits from step 1 on: instructions AVX2 then, SSE4 now.");
}

TEST(Verification, AStoreThatContradictsItselfIsToldApart) {
  RunRecord stored = made_run(2, 9);
  stored.ids = {1, 3};
  EXPECT_FALSE(verified(stored, made_run(2, 9)).is_equal());
  EXPECT_NE(verified(stored, made_run(2, 9)).verdict.find("run 12 has other tokens than its trace"),
            std::string::npos);
  stored = made_run(2, 9);
  stored.hash = 1;
  const Verification found = verified(stored, made_run(2, 9));
  EXPECT_FALSE(found.is_equal());
  EXPECT_NE(found.verdict.find("another logits hash than its trace"), std::string::npos);
}

TEST(Verification, WithoutATraceTokensAndHashAreCompared) {
  RunRecord stored = made_run(2, 9);
  stored.trace.clear();
  EXPECT_TRUE(verified(stored, made_run(2, 9)).is_equal());
  EXPECT_FALSE(verified(stored, made_run(2, 10)).is_equal());
  EXPECT_FALSE(verified(stored, made_run(3, 9)).is_equal());
}

TEST(Verification, ATraceThatCannotBeReadIsAnError) {
  RunRecord stored = made_run(2, 9);
  stored.trace = "{}\n";
  EXPECT_FALSE(verify_run(stored, made_run(2, 9)));
}

}  // namespace
}  // namespace logitlab
