// A study's results as pages: one self-contained HTML file, or Markdown.
#pragma once

#include <string>
#include <vector>

#include "lab/measures/study_results.h"

namespace logitlab {

struct ReportText {
  // Piece of every id of the first run of a setting, for token-coloured texts: (text, final
  // probability, entropy) per token.
  struct Token {
    std::string text;
    double probability = 0;
    double entropy = 0;
    bool is_divergence = false;
  };
  std::string label;  // "temperature=0.7 #1"
  std::vector<Token> tokens;
};

// No network, no scripts that are needed to read it; charts as inline SVG; dark and light; readable
// on a phone; printable. More than one result: a course, with contents.
struct Report {
  std::string title;
  Study course;  // of several studies: their question, what was expected and read; else empty
  std::vector<StudyResults> studies;
  std::vector<std::vector<ReportText>> texts;  // per study
};
// Of a study or a course of the store, whose results are given, with the first run of every setting
// of a study, of at most kReportTexts of them. Errors as Store::run and parse_trace.
inline constexpr size_t kReportTexts = 24;
[[nodiscard]] Result<Report> make_report(Store* store, int64_t study,
                                         std::vector<StudyResults> studies);
// "24,744 tokens asked for, 9,763 computed (0.39 of them), 61.2 s", of all studies together.
[[nodiscard]] std::string cost_text(const Report& report);
[[nodiscard]] std::string to_html(const Report& report);
[[nodiscard]] std::string to_markdown(const Report& report);

}  // namespace logitlab
