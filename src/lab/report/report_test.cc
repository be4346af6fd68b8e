#include "lab/report/report.h"

#include <string>

#include <gtest/gtest.h>

#include "lab/report/charts.h"
#include "lab/report/svg.h"

namespace logitlab {
namespace {

size_t count(const std::string& text, std::string_view wanted) {
  size_t n = 0;
  for (size_t at = text.find(wanted); at != std::string::npos; at = text.find(wanted, at + 1)) {
    ++n;
  }
  return n;
}

SettingFigures setting(const std::string& name) {
  SettingFigures out;
  out.prompt_name = "p";
  out.name = name;
  out.runs = 3;
  out.unique_ids = 2;
  out.unique_texts = 2;
  out.stop_reasons = {{"length", 3}};
  out.entropy_by_step = {1.5, kNoNumber, 0.25};
  StageSurvivors stage;
  stage.name = "top_k";
  stage.by_step = {5, 4, 1};
  stage.mean_mass = 0.5;
  out.stages = {stage};
  out.next_tokens = {{7, "<script>alert(1)</script>", 0.5, kNoNumber}};
  return out;
}

Report report_of(size_t settings, size_t studies = 1) {
  Report report;
  report.title = "A & B";
  for (size_t s = 0; s < studies; ++s) {
    StudyResults results;
    results.plan.name = "study";
    results.plan.question = "Is 1 < 2?";
    results.plan.prompts.resize(1);
    results.plan.measures = {MeasureKind::kTexts, MeasureKind::kNextToken};
    results.headline = "Yes | no.";
    for (size_t i = 0; i < settings; ++i) {
      results.settings.push_back(setting("a|b <script>" + std::to_string(i)));
    }
    results.similarity.n = settings;
    results.similarity.values.assign(settings * settings, 0.5);
    if (settings > 1) {
      results.similarity.values[1] = kNoNumber;
    }
    report.studies.push_back(std::move(results));
    report.texts.push_back({{"first",
                             {{"<script>alert(1)</script>", 0.05, 2.0, true},
                              {"\xC3\xA9\xFF", kNoNumber, 0, false}}}});
  }
  return report;
}

void expect_self_contained(const std::string& html) {
  EXPECT_EQ(count(html, "http://"), count(html, "xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_EQ(count(html, "https://"), 0U);
  EXPECT_EQ(count(html, "<script"), 0U);
  EXPECT_EQ(count(html, "<svg "), count(html, "</svg>"));
  EXPECT_EQ(count(html, "<div"), count(html, "</div>"));
  EXPECT_EQ(count(html, "<table"), count(html, "</table>"));
  EXPECT_EQ(count(html, "nan"), 0U);
}

TEST(Report, HtmlOfAnyNumberOfSettingsIsSelfContained) {
  for (const size_t settings : {0U, 1U, 2U, 40U, 100U}) {
    SCOPED_TRACE(settings);
    const std::string html = to_html(report_of(settings));
    expect_self_contained(html);
    EXPECT_NE(html.find("A &amp; B"), std::string::npos);
    EXPECT_NE(html.find("Is 1 &lt; 2?"), std::string::npos);
    EXPECT_NE(html.find("&lt;script&gt;alert(1)&lt;/script&gt;"), std::string::npos);
    EXPECT_NE(html.find("\xC3\xA9\xEF\xBF\xBD"), std::string::npos);
  }
}

TEST(Report, ACourseBeginsWithItsQuestionsAndAnswers) {
  const std::string html = to_html(report_of(2, 3));
  expect_self_contained(html);
  EXPECT_EQ(count(html, "href=\"#study-"), 3U);
  EXPECT_EQ(count(html, "id=\"study-"), 3U);
  EXPECT_LT(html.find("Yes | no."), html.find("<h2"));
  EXPECT_EQ(count(to_html(report_of(2)), "href=\"#study-"), 0U);
}

TEST(Report, EmptyReportsArePages) {
  expect_self_contained(to_html(Report{}));
  EXPECT_EQ(to_markdown(Report{}), "# \n");
}

TEST(Report, MarkdownCellsCannotBreakTheirTable) {
  const std::string text = to_markdown(report_of(2));
  EXPECT_NE(text.find("| a\\|b &lt;script>0 |"), std::string::npos);
  EXPECT_EQ(text.find("a|b"), std::string::npos);
}

TEST(Report, MarkdownFencesAreLongerThanWhatTheyHold) {
  Report report = report_of(1);
  report.texts[0][0].tokens = {{"````\n# not a heading", 1, 0, false}};
  EXPECT_NE(to_markdown(report).find("`````\n````\n# not a heading\n`````\n"), std::string::npos);
}

TEST(Svg, TextsAreEscapedAndCut) {
  EXPECT_EQ(escape_markup("<a b=\"'\">&\n\x01"),
            "&lt;a b=&quot;&#39;&quot;&gt;&amp;\n\xEF\xBF\xBD");
  EXPECT_EQ(escape_markup("\xEF\xBF\xBF"), "\xEF\xBF\xBD");
  EXPECT_EQ(cut_text("abcdef", 6), "abcdef");
  EXPECT_EQ(cut_text("abcdefg", 6), "abc...");
  EXPECT_EQ(cut_text("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9", 4), "\xC3\xA9...");
  EXPECT_EQ(short_number(kNoNumber), "n/a");
  EXPECT_EQ(short_number(0.123456), "0.123");
}

TEST(Charts, AreLeftOutWhereThereIsNothingToDraw) {
  const StudyResults none;
  EXPECT_EQ(similarity_chart(none), "");
  EXPECT_EQ(uniqueness_chart(none), "");
  EXPECT_TRUE(survivor_charts(none).empty());
  EXPECT_EQ(entropy_chart(none), "");
  EXPECT_EQ(divergence_chart(none), "");
  EXPECT_EQ(beam_chart({}, ""), "");
  EXPECT_EQ(line_chart({"", "", "", false, {{"a", {kNoNumber}}}}), "");
}

TEST(Charts, AStepWithoutAValueIsAGap) {
  // Three steps, the middle one unknown: two dots and no line between them.
  const std::string chart = line_chart({"t", "d", "u", false, {{"a", {1, kNoNumber, 2}}}});
  EXPECT_EQ(count(chart, "<circle"), 2U);
  EXPECT_EQ(count(chart, "class=\"line c0\""), 0U);
}

TEST(Charts, BeamsLeadToTheirParents) {
  BeamFigures beams;
  beams.steps.resize(2);
  beams.steps[0].running = {{1, 0, -0.5}, {2, 0, -1.0}};
  beams.steps[1].running = {{3, 1, -0.75}, {4, 0, -1.5}};
  const std::string chart = beam_chart(beams, "b");
  EXPECT_EQ(count(chart, "<circle"), 4U);
  EXPECT_NE(chart.find("x1=\"40.0\" y1=\"50.0\" x2=\"70.0\" y2=\"20.0\""), std::string::npos);
}

}  // namespace
}  // namespace logitlab
