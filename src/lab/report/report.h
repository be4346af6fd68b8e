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
// on a phone; printable. `title`: of the page. More than one result: a course, with contents.
struct Report {
  std::string title;
  std::vector<StudyResults> studies;
  std::vector<std::vector<ReportText>> texts;  // per study
};
// With the first run of every setting of a study, of at most kReportTexts of them. Errors as
// Store::run and parse_trace.
inline constexpr size_t kReportTexts = 24;
[[nodiscard]] Result<Report> make_report(Store* store, const std::string& title,
                                         std::vector<StudyResults> studies);
[[nodiscard]] std::string to_html(const Report& report);
[[nodiscard]] std::string to_markdown(const Report& report);

}  // namespace logitlab
