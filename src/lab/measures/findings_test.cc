#include "lab/measures/findings.h"

#include <string>

#include <gtest/gtest.h>

namespace logitlab {
namespace {

SettingFigures setting(const std::string& name, int64_t runs, int64_t unique,
                       const std::string& text) {
  SettingFigures figures;
  figures.prompt_name = "prompt";
  figures.name = name;
  figures.runs = runs;
  figures.unique_ids = unique;
  figures.sample_text = text;
  return figures;
}

StudyResults results_of(std::vector<SettingFigures> settings) {
  StudyResults results;
  results.plan.prompts.resize(1);
  results.settings = std::move(settings);
  return results;
}

std::string headline(std::vector<SettingFigures> settings) {
  StudyResults results = results_of(std::move(settings));
  add_findings(&results);
  return results.headline;
}

TEST(Findings, TheHeadlineSaysWhereRunsDiffer) {
  EXPECT_EQ(headline({setting("a", 3, 1, "x"), setting("b", 3, 2, "y")}),
            "Always the same tokens: a. Several texts: b (2 of 3).");
  EXPECT_EQ(headline({setting("a", 3, 2, "x"), setting("b", 3, 3, "y")}),
            "In every setting runs differed: a (2 of 3), b (3 of 3).");
  EXPECT_EQ(headline({setting("a", 2, 1, "x"), setting("b", 2, 1, "x")}),
            "In every setting all runs gave the same tokens (4 runs); the 2 settings gave one and "
            "the same text.");
}

TEST(Findings, OneSettingNeedsNoName) {
  EXPECT_EQ(headline({setting("a", 5, 1, "x")}), "All 5 runs gave the same tokens.");
  SettingFigures several = setting("a", 5, 3, "x");
  several.within = SampleSummary{};
  several.within->n = 10;
  several.within->mean = 0.25;
  EXPECT_EQ(headline({several}),
            "5 runs gave 3 different texts. Of the texts, two share 0.25 of their words.");
}

TEST(Findings, SingleRunsAreComparedAcrossSettings) {
  EXPECT_EQ(headline({setting("a", 1, 1, "x"), setting("b", 1, 1, "y"), setting("c", 1, 1, "y")}),
            "3 settings gave 2 different texts, one run each.");
  EXPECT_EQ(headline({setting("a", 1, 1, "x"), setting("b", 1, 1, "y  z")}),
            "a: \"x\"; b: \"y z\".");
  EXPECT_EQ(headline({}), "No runs yet.");
}

TEST(Findings, ManySettingsAreNotAllNamed) {
  std::vector<SettingFigures> many;
  for (int i = 0; i < 9; ++i) {
    many.push_back(setting("s" + std::to_string(i), 2, 2, "x"));
  }
  EXPECT_NE(headline(many).find("s5 (2 of 2) and 3 more."), std::string::npos);
}

TEST(Findings, TheCacheIsTheAnswerOfItsStudy) {
  StudyResults results = results_of({setting("a", 1, 1, "x")});
  results.extras.cache = CacheFigures{4, {0.1, 0.1}, {0.3, 0.5}, 2};
  results.plan.measures = {MeasureKind::kCache};
  add_findings(&results);
  EXPECT_EQ(results.headline,
            "Without the decode state 2 tokens took 4.0 times as long (0.80 s, with it 0.20 s).");
}

SampleSummary likeness(double mean) {
  SampleSummary summary;
  summary.n = 3;
  summary.mean = mean;
  return summary;
}

TEST(Findings, ASweepIsSaidToFallOnlyWhereItFalls) {
  const auto sweep = [](std::vector<double> means) {
    std::vector<SettingFigures> settings;
    for (size_t i = 0; i < means.size(); ++i) {
      settings.push_back(setting("t" + std::to_string(i), 3, 3, "x"));
      settings.back().swept = {{"temperature", std::to_string(i)}};
      settings.back().within = likeness(means[i]);
    }
    return headline(settings);
  };
  // The published figures of the lesson, corrected: temperature falls, top_k has no order.
  EXPECT_NE(sweep({0.4149, 0.2407, 0.2170, 0.1876, 0.1246})
                .find("falls with every step of temperature: 0.41 at 0, 0.24 at 1"),
            std::string::npos);
  EXPECT_NE(sweep({0.6752, 0.2148, 0.2582, 0.2466, 0.2871}).find("follows no order in"),
            std::string::npos);
  EXPECT_NE(sweep({0.1, 0.2, 0.2, 0.4}).find("never falls along"), std::string::npos);
  // The published top_p, corrected.
  EXPECT_NE(sweep({1.0, 1.0, 1.0, 0.7188, 0.5280}).find("never rises along"), std::string::npos);
  EXPECT_NE(sweep({0.1, 0.2, 0.3}).find("rises with every step of"), std::string::npos);
  EXPECT_NE(sweep({0.3, 0.3, 0.3}).find("follows no order in"), std::string::npos);
}

TEST(Findings, TheFirstMeasureIsTheAnswer) {
  StudyResults results =
      results_of({setting("the end tokens", 2, 1, "x"), setting("b", 2, 2, "y")});
  results.plan.measures = {MeasureKind::kStops, MeasureKind::kTexts, MeasureKind::kThinking};
  results.settings[0].stop_reasons = {{"eos_token", 2}};
  results.settings[0].stop_ids = {{2, "<end>", "given", 2}, {7, "", "model", 0}};
  results.settings[1].stop_reasons = {{"length", 2}};
  results.settings[0].lengths.mean = 3.5;
  results.settings[1].lengths.mean = 50;
  results.settings[0].idle_settings = {"temperature=0.2: nothing is drawn"};
  add_findings(&results);
  EXPECT_EQ(results.headline,
            "Ended: the end tokens after 3.5 tokens by end token '<end>' (2 of 2); b after 50 "
            "tokens by the "
            "limit (2 of 2). Always the same tokens: the end tokens. Several texts: b (2 of 2).");
  ASSERT_EQ(results.findings.size(), 2U);
  EXPECT_EQ(results.findings[0].substr(0, 24), "This model did not think");
  EXPECT_EQ(results.findings[1],
            "the end tokens: without effect: temperature=0.2: nothing is drawn.");
}

TEST(Findings, ThinkingIsCountedApart) {
  StudyResults results = results_of({setting("off", 1, 1, "x"), setting("on", 1, 1, "y")});
  results.plan.measures = {MeasureKind::kThinking};
  results.settings[0].answer_tokens.mean = 31;
  results.settings[1].thinking_tokens.mean = 60;
  results.settings[1].thinking_tokens.maximum = 60;
  results.settings[1].thinking_cut = 1;
  add_findings(&results);
  EXPECT_EQ(results.headline,
            "off: 0 thinking and 31 answer tokens; on: 60 thinking and 0 answer tokens, cut inside "
            "the thinking in 1 of 1 run.");
}

TEST(Findings, EqualHashesAreNamedAndOthersToo) {
  StudyResults results =
      results_of({setting("a", 2, 1, "x"), setting("b", 1, 1, "x"), setting("c", 2, 2, "y")});
  results.plan.measures = {MeasureKind::kHashes};
  results.settings[0].hashes = {5, 5};
  results.settings[1].hashes = {5};
  results.settings[2].hashes = {5, 6};
  add_findings(&results);
  EXPECT_EQ(results.headline,
            "The logits of every step are bit for bit the same: a; b. Logits differ between runs: "
            "c (2 of 2).");
}

TEST(Findings, BeamsAreComparedByTheWholeText) {
  StudyResults results = results_of({setting("greedy", 1, 1, "x"), setting("beams", 1, 1, "y")});
  results.plan.measures = {MeasureKind::kBeams};
  results.settings[0].log_probability = -6.5;
  results.settings[0].lengths.mean = 4;
  BeamFigures beams;
  beams.hypotheses = {
      {{1, 2, 3, 4}, "", -1.5, {}}, {{1, 2, 3, 5}, "", -1.6, {}}, {{1, 2, 6}, "", -1.7, {}}};
  results.settings[1].beams = beams;
  add_findings(&results);
  EXPECT_EQ(
      results.headline,
      "Log-probability of the whole text: greedy -6.5 (4 tokens); beams -6.0 (4 tokens; its 3 "
      "answers share the first 2).");
}

TEST(Findings, SamplesStandBesideTheTree) {
  StudyResults results = results_of({setting("a", 4, 2, "x"), setting("b", 4, 1, "y")});
  results.agreement = {{0, 4, 1, {0.006, 0.81}, 0.4}, {1, 4, 4, {0.4, 1}, 0.1}};
  add_findings(&results);
  ASSERT_EQ(results.findings.size(), 2U);
  EXPECT_NE(
      results.findings[0].find("1 of 4 runs gave it (95 % interval 0.01 to 0.81): they agree"),
      std::string::npos);
  EXPECT_NE(results.findings[1].find("they do not agree"), std::string::npos);
}

TEST(Findings, FewRunsAreWarnedOf) {
  StudyResults results = results_of({setting("a", 3, 3, "x"), setting("b", 3, 3, "y")});
  PairFigures pair;
  pair.second = 1;
  pair.test.relabelings = 20;
  pair.test.smallest_p = 0.1;
  pair.test.p_value = 0.1;
  results.pairs.push_back(pair);
  results.settings[0].truncated = 2;
  add_findings(&results);
  ASSERT_EQ(results.warnings.size(), 2U);
  EXPECT_EQ(results.warnings[0].substr(0, 22), "3 runs a setting settl");
  EXPECT_EQ(results.warnings[1].substr(0, 24), "2 of 6 runs ended at the");
  // A test that cannot reach 5 % is not quoted.
  EXPECT_TRUE(results.findings.empty());
}

TEST(Findings, ATestIsQuotedWithItsOutcome) {
  StudyResults results = results_of({setting("a", 5, 5, "x"), setting("b", 5, 5, "y")});
  PairFigures pair;
  pair.second = 1;
  pair.test = {.difference = 0.2, .p_value = 0.008, .relabelings = 252, .smallest_p = 0.008};
  results.pairs.push_back(pair);
  pair.test.p_value = 0.4;
  pair.runs_to_settle = 30;
  results.pairs.push_back(pair);
  add_findings(&results);
  ASSERT_EQ(results.findings.size(), 2U);
  EXPECT_NE(results.findings[0].find("by 0.200 (p = 0.008)"), std::string::npos);
  EXPECT_NE(results.findings[1].find("no difference can be told from chance (p = 0.40)"),
            std::string::npos);
  EXPECT_NE(results.findings[1].find("about 30 runs"), std::string::npos);
}

}  // namespace
}  // namespace logitlab
