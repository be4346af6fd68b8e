#include "text_layout.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/utf8.h"

namespace logitlab {
namespace {

constexpr size_t kGap = 2;            // columns between two cells
constexpr size_t kNarrowestCell = 8;  // a wrapped column is not made narrower

size_t code_point_bytes(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return std::min(n, text.size() - at);
}

// Where a quoted token with a leading space begins: ' the'.
bool opens_quote(std::string_view line, size_t space) {
  return space > 0 && line[space - 1] == '\'' &&
         (space == 1 || line[space - 2] == ' ' || line[space - 2] == '(');
}

// The last gap that a line may be broken at.
size_t last_gap(std::string_view line, std::string_view gap) {
  size_t at = line.rfind(gap);
  while (at != std::string_view::npos && at > 0 && opens_quote(line, at)) {
    at = line.rfind(gap, at - 1);
  }
  return at;
}

void wrap_line(std::string_view line, size_t width, std::vector<std::string>* out) {
  const size_t indent = std::min(line.find_first_not_of(' '), line.size());
  const std::string margin(indent < width / 2 ? indent : 0, ' ');
  std::string_view prefix;
  for (;;) {
    const size_t room = width - prefix.size();
    if (display_width(line) <= room) {
      out->push_back(std::string(prefix) + std::string(line));
      return;
    }
    size_t cut = std::max(prefix_of_width(line, room), code_point_bytes(line, 0));
    size_t next = cut;
    // Two spaces separate the items of a list: the better place. A space right after the cut is as
    // good as one before it.
    for (const std::string_view gap : {std::string_view("  "), std::string_view(" ")}) {
      const size_t space = last_gap(line.substr(0, cut + gap.size()), gap);
      if (space != std::string_view::npos && space > indent && space > 0) {
        cut = space;
        next = space + gap.size();
        break;
      }
    }
    out->push_back(std::string(prefix) + std::string(line.substr(0, cut)));
    line.remove_prefix(next);
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    if (line.empty()) {
      return;
    }
    prefix = margin;
  }
}

std::string padded(const Terminal& terminal, const std::string& text, Style style, size_t width,
                   Align align, bool is_last) {
  const size_t used = display_width(text);
  const std::string space(width > used ? width - used : 0, ' ');
  const std::string painted = terminal.paint(style, text);
  if (align == Align::kRight) {
    return space + painted;
  }
  return is_last ? painted : painted + space;
}

}  // namespace

size_t prefix_of_width(std::string_view text, size_t width) {
  size_t used = 0;
  size_t at = 0;
  while (at < text.size()) {
    const size_t n = code_point_bytes(text, at);
    used += display_width(text.substr(at, n));
    if (used > width) {
      return at;
    }
    at += n;
  }
  return at;
}

std::vector<std::string> wrap(std::string_view text, size_t width) {
  std::vector<std::string> lines;
  width = std::max<size_t>(width, 2);
  for (;;) {
    const size_t end = text.find('\n');
    wrap_line(text.substr(0, end), width, &lines);
    if (end == std::string_view::npos) {
      return lines;
    }
    text.remove_prefix(end + 1);
  }
}

std::string wrap_with_prefix(std::string_view text, size_t width, std::string_view first,
                             std::string_view rest) {
  const size_t margin = std::max(display_width(first), display_width(rest));
  std::string out;
  bool is_first = true;
  for (const std::string& line : wrap(text, width > margin + 2 ? width - margin : 2)) {
    if (!line.empty() || is_first) {
      out += is_first ? first : rest;
    }
    out += line;
    out += '\n';
    is_first = false;
  }
  return out;
}

void Table::add_row(std::vector<Cell> cells) {
  CHECK(cells.size() == columns_.size()) << cells.size() << " cells, want " << columns_.size();
  for (Cell& cell : cells) {
    cell.text = printable(cell.text);
  }
  rows_.push_back(std::move(cells));
}

// Takes columns away from the widest ones until all fit; empty when that is not possible.
std::vector<size_t> Table::fitted_widths(size_t available) const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) {
    widths.push_back(display_width(column.header));
  }
  std::vector<size_t> smallest = widths;
  for (const std::vector<Cell>& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(row[i].text));
    }
  }
  for (size_t i = 0; i < widths.size(); ++i) {
    // Numbers are not broken.
    smallest[i] = columns_[i].align == Align::kRight
                      ? widths[i]
                      : std::min(widths[i], std::max(smallest[i], kNarrowestCell));
  }
  size_t total = std::accumulate(widths.begin(), widths.end(), kGap * (widths.size() - 1));
  while (total > available) {
    size_t widest = widths.size();
    for (size_t i = 0; i < widths.size(); ++i) {
      if (widths[i] > smallest[i] && (widest == widths.size() || widths[i] > widths[widest])) {
        widest = i;
      }
    }
    if (widest == widths.size()) {
      return {};
    }
    --widths[widest];
    --total;
  }
  return widths;
}

std::string Table::render_records(const Terminal& terminal, size_t indent) const {
  const auto width = static_cast<size_t>(terminal.columns());
  const std::string margin(indent, ' ');
  std::string out;
  for (const std::vector<Cell>& row : rows_) {
    if (!out.empty() && row.size() > 2) {
      out += '\n';
    }
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i].text.empty()) {
        continue;
      }
      const std::string& header = columns_[i].header;
      const std::string label = header.empty() ? "" : header + ": ";
      const bool hangs = header.empty() && i > 0;
      const std::string first = margin + (hangs ? "  " : "");
      bool is_first = true;
      for (const std::string& line : wrap(label + row[i].text, width - first.size() - 2)) {
        out += is_first ? first : first + "  ";
        out += terminal.paint(row[i].style, line);
        out += '\n';
        is_first = false;
      }
    }
  }
  return out;
}

bool Table::leave_one_out() {
  const auto rank = [](const Column& column) {
    return column.leaves > 0 ? column.leaves : std::numeric_limits<int>::max();
  };
  const auto first = std::ranges::min_element(columns_, {}, rank);
  if (first == columns_.end() || first->leaves == 0) {
    return false;
  }
  const auto at = first - columns_.begin();
  columns_.erase(first);
  for (std::vector<Cell>& row : rows_) {
    row.erase(row.begin() + at);
  }
  return true;
}

std::string Table::render(const Terminal& terminal, size_t indent) const {
  if (rows_.empty()) {
    return "";
  }
  const auto columns = static_cast<size_t>(terminal.columns());
  const size_t available = columns - std::min(columns, indent);
  Table shown = *this;
  std::vector<size_t> widths = shown.fitted_widths(available);
  while (widths.empty() && shown.leave_one_out()) {
    widths = shown.fitted_widths(available);
  }
  return widths.empty() ? render_records(terminal, indent)
                        : shown.render_columns(terminal, indent, widths);
}

std::string Table::render_columns(const Terminal& terminal, size_t indent,
                                  const std::vector<size_t>& widths) const {
  const std::string margin(indent, ' ');
  std::string out;
  const auto add_line = [&](const std::vector<Cell>& cells) {
    std::vector<std::vector<std::string>> parts;
    size_t height = 1;
    for (size_t i = 0; i < cells.size(); ++i) {
      parts.push_back(wrap(cells[i].text, widths[i]));
      height = std::max(height, parts.back().size());
    }
    for (size_t y = 0; y < height; ++y) {
      std::string line = margin;
      for (size_t i = 0; i < cells.size(); ++i) {
        const bool is_last = i + 1 == cells.size();
        line += padded(terminal, y < parts[i].size() ? parts[i][y] : "", cells[i].style, widths[i],
                       columns_[i].align, is_last);
        line += is_last ? "" : std::string(kGap, ' ');
      }
      const size_t end = line.find_last_not_of(' ');
      out += line.substr(0, end == std::string::npos ? 0 : end + 1);
      out += '\n';
    }
  };
  std::vector<Cell> headers;
  bool has_headers = false;
  for (const Column& column : columns_) {
    headers.emplace_back(column.header, Style::kDim);
    has_headers = has_headers || !column.header.empty();
  }
  if (has_headers) {
    add_line(headers);
  }
  for (const std::vector<Cell>& row : rows_) {
    add_line(row);
  }
  return out;
}

}  // namespace logitlab
