// The filters by probability, surprise and entropy; what all filters report of their cut.
#include <gtest/gtest.h>

#include "sampling/processors/cutoffs.h"
#include "sampling/processors/guidance.h"
#include "sampling/processors/min_p.h"
#include "sampling/processors/renormalize.h"
#include "sampling/processors/top_h.h"
#include "sampling/processors/top_k.h"
#include "sampling/processors/top_p.h"
#include "sampling/processors/typical_p.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

Row halves() {  // probabilities 1/2, 1/4, 1/8, 1/8
  return {std::log(0.5F), std::log(0.25F), std::log(0.125F), std::log(0.125F)};
}

TEST(EpsilonCutoff, DropsBelowButNeverTheBest) {
  EXPECT_EQ(survivors(EpsilonCutoff(0.05, 1), row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(EpsilonCutoff(0.9, 1), row_a()), (Ids{0}));
  EXPECT_EQ(survivors(EpsilonCutoff(0.9, 1), {1, 1, 0}), (Ids{0, 1}));
  EXPECT_EQ(survivors(EpsilonCutoff(0.9, 3), row_a()), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(EpsilonCutoff(0.9, 99), row_a()), (Ids{0, 1, 2, 3}));
}

TEST(EtaCutoff, TakesTheRootOfEpsilonAlone) {
  EXPECT_EQ(survivors(EtaCutoff(0.3, 1), row_a()), (Ids{0, 1}));
  EXPECT_EQ(survivors(EtaCutoff(0.01, 1), row_a()), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(survivors(EtaCutoff(0.5, 1), row_a()), (Ids{0}));
  EXPECT_EQ(survivors(EtaCutoff(0.5, 2), row_a()), (Ids{0, 1}));
}

TEST(TypicalP, MayDropTheBest) {
  EXPECT_EQ(survivors(TypicalP(0.2, 1), halves()), (Ids{1}));
  EXPECT_EQ(survivors(TypicalP(0.3, 1), halves()), (Ids{0, 1}));
  EXPECT_EQ(survivors(TypicalP(0.8, 1), halves()), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(survivors(TypicalP(0.2, 2), halves()), (Ids{0, 1}));
  EXPECT_EQ(survivors(TypicalP(0.2, 9), halves()), (Ids{0, 1, 2, 3}));
}

TEST(TypicalP, KeepsAllThatAreAsNear) {
  EXPECT_EQ(survivors(TypicalP(0.01, 1), Row(40, 1.0F)).size(), 40U);
}

TEST(TopH, LooksAtAHundred) {
  EXPECT_EQ(survivors(TopH(1.0), Row(128)).size(), 100U);
  EXPECT_EQ(survivors(TopH(1.0), Row(128)).back(), 99);
  EXPECT_EQ(survivors(TopH(0.7), row_a()), (Ids{0, 1}));
  EXPECT_EQ(survivors(TopH(0.1), row_a()), (Ids{0}));
  EXPECT_EQ(survivors(TopH(0.5), {3}), (Ids{0}));
  EXPECT_EQ(survivors(TopH(1.0), {0, kMinusInfinity, 0}), (Ids{0, 2}));
}

TEST(Filters, LeaveRowsWithoutASoftmax) {
  for (const Row& row : {Row{1, kPlusInfinity, 0}, Row{kMinusInfinity, kMinusInfinity}}) {
    EXPECT_EQ(processed(EpsilonCutoff(0.5, 1), row), row);
    EXPECT_EQ(processed(EtaCutoff(0.5, 1), row), row);
    EXPECT_EQ(processed(TypicalP(0.5, 1), row), row);
    EXPECT_EQ(processed(TopH(0.5), row), row);
  }
  const Row row = {1, kNan, 0};
  EXPECT_EQ(kept_ids(processed(EpsilonCutoff(0.5, 1), row)), (Ids{0, 1, 2}));
  EXPECT_EQ(kept_ids(processed(EtaCutoff(0.5, 1), row)), (Ids{0, 1, 2}));
  EXPECT_EQ(kept_ids(processed(TypicalP(0.5, 1), row)), (Ids{0, 1, 2}));
  EXPECT_EQ(kept_ids(processed(TopH(0.5), row)), (Ids{0, 1, 2}));
}

TEST(Filters, AreStableOnASingleToken) {
  for (const float score : {5.0F, -5.0F, 0.0F}) {
    EXPECT_EQ(processed(EpsilonCutoff(0.5, 1), {score}), (Row{score}));
    EXPECT_EQ(processed(EtaCutoff(0.5, 1), {score}), (Row{score}));
    EXPECT_EQ(processed(TypicalP(0.5, 1), {score}), (Row{score}));
    EXPECT_EQ(processed(TopH(0.5), {score}), (Row{score}));
  }
}

TEST(Filters, SurviveOneTokenAmongBans) {  // W25
  const Row row = {5, kMinusInfinity, kMinusInfinity};
  EXPECT_EQ(processed(TypicalP(0.9, 1), row), row);
  EXPECT_EQ(processed(TopH(0.5), row), row);
  EXPECT_EQ(processed(EtaCutoff(0.1, 1), row), row);
  EXPECT_EQ(processed(EpsilonCutoff(0.1, 1), row), row);
}

template <typename Processor>
Cut cut_of(Processor processor, Row row) {
  const Ids ids = {0};
  EXPECT_EQ(processor.kind(), ProcessorKind::kFilter) << processor.name();
  EXPECT_EQ(processor.cut().measure, CutMeasure::kNone);
  processor.apply(row, SequenceView{.ids = ids, .prompt_length = 1});
  const Cut cut = processor.cut();
  // A row without a cut forgets that of the row before.
  Row banned = {kMinusInfinity};
  processor.apply(banned, SequenceView{.ids = ids, .prompt_length = 1});
  EXPECT_EQ(processor.cut().measure, CutMeasure::kNone) << processor.name();
  return cut;
}

TEST(Filters, ReportTheirCut) {
  Cut cut = cut_of(TopK(2, 1), row_a());
  EXPECT_EQ(cut.measure, CutMeasure::kScore);
  EXPECT_EQ(cut.threshold, 1.0);
  cut = cut_of(TopP(0.6, 1), halves());
  EXPECT_EQ(cut.measure, CutMeasure::kMass);
  EXPECT_NEAR(cut.threshold, 0.75, 1e-6);  // the mass of what stayed
  cut = cut_of(MinP(0.5, 1), halves());
  EXPECT_EQ(cut.measure, CutMeasure::kProbability);
  EXPECT_NEAR(cut.threshold, 0.25, 1e-6);
  cut = cut_of(EpsilonCutoff(0.2, 1), halves());
  EXPECT_EQ(cut.measure, CutMeasure::kProbability);
  EXPECT_NEAR(cut.threshold, 0.2, 1e-6);
  cut = cut_of(EtaCutoff(0.3, 1), row_a());
  EXPECT_EQ(cut.measure, CutMeasure::kProbability);
  EXPECT_NEAR(cut.threshold, 0.2124, 1e-4);
  cut = cut_of(TypicalP(0.2, 1), halves());
  EXPECT_EQ(cut.measure, CutMeasure::kSurprise);
  EXPECT_NEAR(cut.threshold, 0.25 * std::log(2.0), 1e-6);  // |2 - 1.75| ln 2
  cut = cut_of(TopH(0.5), row_a());
  EXPECT_EQ(cut.measure, CutMeasure::kEntropy);
  EXPECT_NEAR(cut.threshold, 0.5 * 0.9475, 1e-4);
}

TEST(TopK, CutsTiesWhenAskedTo) {
  EXPECT_EQ(survivors(TopK(1, 1, TopKTies::kCut), {3, 3, 1}), (Ids{0}));
  EXPECT_EQ(survivors(TopK(2, 1, TopKTies::kCut), {3, 1, 1, 1, 0}), (Ids{0, 1}));
  EXPECT_EQ(survivors(TopK(3, 1, TopKTies::kCut), {1, 1, 3, 1, 0}), (Ids{0, 1, 2}));
  EXPECT_EQ(survivors(TopK(1, 2, TopKTies::kCut), {3, 3, 3}), (Ids{0, 1}));
}

TEST(Renormalize, GivesLogProbabilities) {
  const Row row = processed(Renormalize(), row_a());
  const Row expected = {-0.44019F, -1.44019F, -2.44019F, -3.44019F};
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_NEAR(row[i], expected[i], 1e-5F);
  }
  EXPECT_EQ(processed(Renormalize(), {1e30F, kMinusInfinity}), (Row{0, kMinusInfinity}));
  for (const float score : processed(Renormalize(), {kMinusInfinity, kMinusInfinity})) {
    EXPECT_TRUE(std::isnan(score));
  }
  for (const float score : processed(Renormalize(), {1, kNan})) {
    EXPECT_TRUE(std::isnan(score));
  }
}

class FixedGuidance final : public GuidanceSource {
 public:
  explicit FixedGuidance(Row row) : row_(std::move(row)) {}
  std::span<const float> unguided_logits(const SequenceView& sequence) override {
    seen_length = sequence.length();
    return row_;
  }
  int64_t seen_length = 0;

 private:
  Row row_;
};

TEST(Guidance, PushesAwayFromTheUnguidedScores) {  // P17
  FixedGuidance source({0, 0});
  const Row row = processed(Guidance(2, &source), {2, 0});
  EXPECT_NEAR(row[0], 0.43929F, 1e-5F);
  EXPECT_NEAR(row[1], -3.56071F, 1e-5F);
  EXPECT_EQ(source.seen_length, 1);
  // 0 gives the unguided log-probabilities.
  EXPECT_NEAR(processed(Guidance(0, &source), {2, 0})[0], -0.69315F, 1e-5F);
}

TEST(Guidance, WithoutLogitsTheScoresStay) {
  FixedGuidance source({});
  EXPECT_EQ(processed(Guidance(2, &source), {2, 0}), (Row{2, 0}));
}

}  // namespace
}  // namespace logitlab
