// Drawing as SVG text: what every chart of a report is made of.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace logitlab {

// Text for element content and attribute values of HTML and XML: markup characters as entities,
// bytes that are not UTF-8 and control characters other than line breaks and tabs as U+FFFD.
[[nodiscard]] std::string escape_markup(std::string_view text);

// Three significant digits; "n/a" when it is no finite number.
[[nodiscard]] std::string short_number(double value);

// At most `n` code points; "..." stands for what was cut.
[[nodiscard]] std::string cut_text(std::string_view text, size_t n);

// One drawing. Coordinates are pixels from the top left; looks come from the page's style sheet by
// class. All texts are escaped here.
class Svg {
 public:
  Svg(std::string_view title, std::string_view description, double width, double height);

  // `tip` is shown on pointing; empty: none. `opacity` of the fill, 0 to 1.
  void rect(double x, double y, double width, double height, std::string_view css,
            std::string_view tip = "", double opacity = 1);
  void circle(double x, double y, double radius, std::string_view css, std::string_view tip = "");
  void line(double x1, double y1, double x2, double y2, std::string_view css);
  // `anchor`: start, middle, end.
  void text(double x, double y, std::string_view anchor, std::string_view css,
            std::string_view content);
  [[nodiscard]] std::string str() const;

 private:
  std::string out_;
};

struct Series {
  std::string name;
  std::vector<double> values;  // by step; a gap where it is no finite number
};
struct LineChart {
  std::string title;
  std::string description;
  std::string unit;     // of the values
  bool is_log = false;  // from 1 on
  std::vector<Series> series;
};
// Steps to the right, at most eight series told by colour, with a legend. Empty when no series has
// a finite value.
[[nodiscard]] std::string line_chart(const LineChart& chart);

}  // namespace logitlab
