// What commands print with: a checked standard output, and colours where they are wanted.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace logitlab {

enum class ColorMode { kAuto, kAlways, kNever };

enum class Style { kPlain, kBold, kDim, kHeading, kAccent, kSpecial, kGood, kWarn, kBad };

// Results go to standard output, notes to standard error. One-thread. Errors of writing are kept
// until close(); after the first one the rest of the output is dropped.
class Terminal {
 public:
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // kAuto: colours on a terminal, unless $NO_COLOR is set or $TERM is "dumb".
  void set_color_mode(ColorMode mode);

  [[nodiscard]] int columns() const { return columns_; }
  [[nodiscard]] bool out_is_terminal() const { return out_is_terminal_; }
  [[nodiscard]] bool err_is_terminal() const { return err_is_terminal_; }

  // `text` in a style, for standard output (paint) or standard error (paint_note). Without colours:
  // `text` as it is.
  [[nodiscard]] std::string paint(Style style, std::string_view text) const;
  [[nodiscard]] std::string paint_note(Style style, std::string_view text) const;

  // Appends to standard output; written out by flush(), by note() and when much has gathered.
  void print(std::string_view text);
  // Text that a model wrote: as it is into a file or pipe; on a terminal control characters other
  // than line breaks and tabs become escapes, so that it cannot move the cursor.
  void print_untrusted(std::string_view text);
  void flush();
  // Writes to standard error, after what was printed before.
  void note(std::string_view text);

  // False once a write was refused: there is no use in going on.
  [[nodiscard]] bool is_writable() const { return write_errno_ == 0; }
  // The reader of the pipe has gone: it has what it wanted.
  [[nodiscard]] bool reader_has_gone() const;
  // Flushes. kResourceExhausted when anything was not written, but for a reader that has gone.
  [[nodiscard]] Status close();

 private:
  bool out_is_terminal_;
  bool err_is_terminal_;
  bool colors_out_ = false;
  bool colors_err_ = false;
  int columns_;
  int write_errno_ = 0;
  std::string pending_;
};

// Line breaks and tabs stay, other control characters become escapes (base/utf8.h: printable).
[[nodiscard]] std::string terminal_safe(std::string_view text);

// At most `width` columns of the printable text; "..." stands for what was cut.
[[nodiscard]] std::string shortened(std::string_view text, size_t width);

// 1234567 as "1,234,567"; bytes as "12.3 MiB"; both for people.
[[nodiscard]] std::string with_commas(int64_t value);
[[nodiscard]] std::string human_bytes(size_t bytes);

}  // namespace logitlab
