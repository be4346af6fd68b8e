// A study's results as pages: one self-contained HTML file, or Markdown.
#pragma once

#include <span>
#include <string>

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
[[nodiscard]] std::string to_html(const Report& report);
[[nodiscard]] std::string to_markdown(const Report& report);

}  // namespace logitlab
