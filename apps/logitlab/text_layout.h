// Lines and tables that fit the width of a terminal. Widths are columns as base/utf8.h counts them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "terminal.h"

namespace logitlab {

// Bytes of the longest prefix of whole code points (with their combining marks) of at most `width`
// columns.
[[nodiscard]] size_t prefix_of_width(std::string_view text, size_t width);

// Breaks at spaces (not behind the quote of a token that begins with one), or inside a word that is
// longer than a line; `text` may hold line breaks. At least one line.
[[nodiscard]] std::vector<std::string> wrap(std::string_view text, size_t width);

// wrap() joined again, `first` before the first line and `rest` before the others.
[[nodiscard]] std::string wrap_with_prefix(std::string_view text, size_t width,
                                           std::string_view first, std::string_view rest);

enum class Align { kLeft, kRight };

struct Cell {
  Cell(std::string content,
       Style cell_style = Style::kPlain)  // NOLINT(google-explicit-constructor)
      : text(std::move(content)), style(cell_style) {}
  std::string text;
  Style style = Style::kPlain;
};

// Columns side by side; where they do not fit the widest ones are wrapped, then columns that may
// leave do, and where even that leaves no room every row becomes a group of `header: value` lines.
// Cell texts may be untrusted: they are made printable.
class Table {
 public:
  struct Column {
    std::string header;
    Align align = Align::kLeft;
    int leaves = 0;  // 1 leaves first where there is no room; 0 stays
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as columns (CHECK).
  void add_row(std::vector<Cell> cells);
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  // Ends with a line break; empty when there are no rows. `indent` columns on the left.
  [[nodiscard]] std::string render(const Terminal& terminal, size_t indent = 0) const;

 private:
  bool leave_one_out();  // false: no column may leave
  [[nodiscard]] std::string render_columns(const Terminal& terminal, size_t indent,
                                           const std::vector<size_t>& widths) const;
  [[nodiscard]] std::vector<size_t> fitted_widths(size_t available) const;
  [[nodiscard]] std::string render_records(const Terminal& terminal, size_t indent) const;

  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace logitlab
