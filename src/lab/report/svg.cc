#include "lab/report/svg.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/utf8.h"

namespace logitlab {
namespace {

constexpr size_t kSeries = 8;

std::string tip_element(std::string_view tip) {
  return tip.empty() ? "" : fmt::format("<title>{}</title>", escape_markup(tip));
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string out;
  for (const char c : replace_invalid_utf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\n':
      case '\t':
        out.push_back(c);
        break;
      default:
        if (byte < 0x20 || byte == 0x7f) {
          append_utf8(&out, 0xFFFD);
        } else {
          out.push_back(c);
        }
    }
  }
  // XML knows neither of these two code points.
  for (const std::string_view unknown : {"\xEF\xBF\xBE", "\xEF\xBF\xBF"}) {
    for (size_t at = out.find(unknown); at != std::string::npos; at = out.find(unknown, at)) {
      out.replace(at, unknown.size(), "\xEF\xBF\xBD");
    }
  }
  return out;
}

std::string short_number(double value) {
  return std::isfinite(value) ? fmt::format("{:.3g}", value) : "n/a";
}

std::string cut_text(std::string_view text, size_t n) {
  const std::string valid = replace_invalid_utf8(text);
  size_t points = 0;
  size_t cut = valid.size();
  for (size_t i = 0; i < valid.size(); ++i) {
    const bool is_start = (static_cast<unsigned char>(valid[i]) & 0xC0U) != 0x80U;
    if (is_start && n >= 3 && points == n - 3) {
      cut = i;
    }
    points += is_start ? 1 : 0;
  }
  return points <= n ? valid : valid.substr(0, cut) + "...";
}

Svg::Svg(std::string_view title, std::string_view description, double width, double height)
    : out_(fmt::format(
          "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{0:.0f}\" "
          "height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\"><title>{2}</title><desc>{3}</desc>",
          width, height, escape_markup(title), escape_markup(description))) {}

void Svg::rect(double x, double y, double width, double height, std::string_view css,
               std::string_view tip, double opacity) {
  out_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\" "
      "fill-opacity=\"{:.3f}\">{}</rect>",
      x, y, std::max(0.0, width), height, css, opacity, tip_element(tip));
}

void Svg::circle(double x, double y, double radius, std::string_view css, std::string_view tip) {
  out_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" class=\"{}\">{}</circle>",
                      x, y, radius, css, tip_element(tip));
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css) {
  out_ +=
      fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>",
                  x1, y1, x2, y2, css);
}

void Svg::text(double x, double y, std::string_view anchor, std::string_view css,
               std::string_view content) {
  out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\">{}</text>",
                      x, y, anchor, css, escape_markup(content));
}

std::string Svg::str() const {
  return out_ + "</svg>";
}

std::string line_chart(const LineChart& chart) {
  double top = chart.is_log ? 2 : 0;
  size_t steps = 0;
  bool has_value = false;
  for (const Series& one : chart.series) {
    steps = std::max(steps, one.values.size());
    for (const double value : one.values) {
      has_value = has_value || std::isfinite(value);
      top = std::isfinite(value) ? std::max(top, value) : top;
    }
  }
  if (!has_value) {
    return "";
  }
  top = top > 0 ? top : 1;
  const size_t shown = std::min(kSeries, chart.series.size());
  constexpr double kLeft = 64;
  constexpr double kWidth = 560;
  constexpr double kTop = 12;
  constexpr double kHeight = 180;
  Svg svg(chart.title, chart.description, kLeft + kWidth + 16,
          kTop + kHeight + 40 + 18 * static_cast<double>(shown));
  const auto y_of = [&](double value) {
    const double share =
        chart.is_log ? std::log(std::max(1.0, value)) / std::log(top) : value / top;
    return kTop + kHeight * (1 - std::clamp(share, 0.0, 1.0));
  };
  const auto x_of = [&](size_t step) {
    return kLeft +
           kWidth * (steps < 2 ? 0.5 : static_cast<double>(step) / static_cast<double>(steps - 1));
  };
  for (int tick = 0; tick <= 4; ++tick) {
    const double share = tick / 4.0;
    const double value = chart.is_log ? std::pow(top, share) : top * share;
    svg.line(kLeft, y_of(value), kLeft + kWidth, y_of(value), "grid");
    svg.text(kLeft - 6, y_of(value) + 4, "end", "label", short_number(value));
  }
  for (size_t tick = 0; tick <= 4 && steps > 1; ++tick) {
    const size_t step = (steps - 1) * tick / 4;
    svg.text(x_of(step), kTop + kHeight + 16, "middle", "label", fmt::format("{}", step));
  }
  svg.text(kLeft + kWidth, kTop + kHeight + 32, "end", "label", "step; " + chart.unit);
  for (size_t s = 0; s < shown; ++s) {
    const std::vector<double>& values = chart.series[s].values;
    const std::string css = fmt::format("line c{}", s);
    const std::string dot = fmt::format("c{}", s);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) {
        continue;
      }
      if (i > 0 && std::isfinite(values[i - 1])) {
        svg.line(x_of(i - 1), y_of(values[i - 1]), x_of(i), y_of(values[i]), css);
      }
      svg.circle(x_of(i), y_of(values[i]), 2, dot,
                 fmt::format("{}, step {}: {}", chart.series[s].name, i, short_number(values[i])));
    }
    const double y = kTop + kHeight + 48 + 18 * static_cast<double>(s);
    svg.rect(kLeft, y - 9, 12, 10, dot);
    svg.text(kLeft + 18, y, "start", "label", cut_text(chart.series[s].name, 80));
  }
  return svg.str();
}

}  // namespace logitlab
