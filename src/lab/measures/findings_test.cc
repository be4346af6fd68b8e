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

TEST(Findings, SingleRunsAreComparedAcrossSettings) {
  EXPECT_EQ(headline({setting("a", 1, 1, "x"), setting("b", 1, 1, "y"), setting("c", 1, 1, "y")}),
            "3 settings gave 2 different texts, one run each.");
  EXPECT_EQ(headline({setting("a", 1, 1, "x")}), "One setting, one run.");
}

TEST(Findings, ManySettingsAreNotAllNamed) {
  std::vector<SettingFigures> many;
  for (int i = 0; i < 9; ++i) {
    many.push_back(setting("s" + std::to_string(i), 2, 2, "x"));
  }
  EXPECT_NE(headline(many).find("s3 (2 of 2) and 5 more."), std::string::npos);
}

TEST(Findings, TheCacheIsTheAnswerOfItsStudy) {
  StudyResults results = results_of({setting("a", 1, 1, "x")});
  results.extras.cache = CacheFigures{4, {0.1, 0.1}, {0.3, 0.5}, 2};
  add_findings(&results);
  EXPECT_EQ(results.headline,
            "Without the decode state 2 tokens took 4.0 times as long (0.80 s, with it 0.20 s).");
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
