#include "terminal.h"

#include <cerrno>
#include <cstring>
#include <unistd.h>

#include <fmt/format.h>

#include "base/env.h"
#include "base/utf8.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kFlushBytes = size_t{64} << 10;

std::string_view code_of(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "\x1b[1m";
    case Style::kDim:
      return "\x1b[2m";
    case Style::kHeading:
      return "\x1b[1;36m";
    case Style::kAccent:
      return "\x1b[36m";
    case Style::kSpecial:
      return "\x1b[35m";
    case Style::kGood:
      return "\x1b[32m";
    case Style::kWarn:
      return "\x1b[33m";
    case Style::kBad:
      return "\x1b[31m";
  }
  return "";
}

std::string painted(bool colors, Style style, std::string_view text) {
  const std::string_view code = colors ? code_of(style) : std::string_view{};
  if (code.empty() || text.empty()) {
    return std::string(text);
  }
  return fmt::format("{}{}\x1b[0m", code, text);
}

// Writes all of `text`; 0 or errno.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno;
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

}  // namespace

Terminal::Terminal()
    : out_is_terminal_(stdout_is_terminal()),
      err_is_terminal_(stderr_is_terminal()),
      columns_(terminal_columns()) {
  set_color_mode(ColorMode::kAuto);
}

Terminal::~Terminal() {
  flush();
}

void Terminal::set_color_mode(ColorMode mode) {
  const bool wanted = !env_var("NO_COLOR") && env_var("TERM").value_or("dumb") != "dumb";
  colors_out_ =
      mode == ColorMode::kAlways || (mode == ColorMode::kAuto && wanted && out_is_terminal_);
  colors_err_ =
      mode == ColorMode::kAlways || (mode == ColorMode::kAuto && wanted && err_is_terminal_);
}

std::string Terminal::paint(Style style, std::string_view text) const {
  return painted(colors_out_, style, text);
}

std::string Terminal::paint_note(Style style, std::string_view text) const {
  return painted(colors_err_, style, text);
}

void Terminal::print(std::string_view text) {
  if (!is_writable()) {
    return;
  }
  pending_ += text;
  if (pending_.size() >= kFlushBytes) {
    flush();
  }
}

void Terminal::print_untrusted(std::string_view text) {
  print(out_is_terminal_ ? terminal_safe(text) : std::string(text));
}

void Terminal::flush() {
  if (is_writable() && !pending_.empty()) {
    write_errno_ = write_all(STDOUT_FILENO, pending_);
  }
  pending_.clear();
}

void Terminal::note(std::string_view text) {
  flush();
  // Nobody is left to tell when standard error does not take it.
  (void)write_all(STDERR_FILENO, text);
}

bool Terminal::reader_has_gone() const {
  return write_errno_ == EPIPE;
}

Status Terminal::close() {
  flush();
  if (is_writable() || reader_has_gone()) {
    return {};
  }
  return fail(ErrorCode::kResourceExhausted,
              "standard output: {}; what was printed is not complete", std::strerror(write_errno_));
}

std::string terminal_safe(std::string_view text) {
  std::string out;
  size_t start = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i == text.size() || text[i] == '\n' || text[i] == '\t') {
      out += printable(text.substr(start, i - start));
      if (i < text.size()) {
        out += text[i];
      }
      start = i + 1;
    }
  }
  return out;
}

std::string shortened(std::string_view text, size_t width) {
  const std::string line = printable(text);
  if (display_width(line) <= width) {
    return line;
  }
  constexpr std::string_view kCut = "...";
  if (width <= kCut.size()) {
    return std::string(kCut.substr(0, width));
  }
  return line.substr(0, prefix_of_width(line, width - kCut.size())) + std::string(kCut);
}

std::string with_commas(int64_t value) {
  std::string digits = std::to_string(value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string human_bytes(size_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace logitlab
