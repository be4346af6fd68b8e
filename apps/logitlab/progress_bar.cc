#include "progress_bar.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/env.h"
#include "base/utf8.h"

namespace logitlab {
namespace {

constexpr double kDelaySeconds = 0.2;
constexpr double kRedrawSeconds = 0.08;

std::string amount(uint64_t value, std::string_view unit) {
  return unit == "bytes" ? human_bytes(value) : with_commas(static_cast<int64_t>(value));
}

}  // namespace

ProgressBar::ProgressBar(Terminal* terminal, bool enabled)
    : terminal_(terminal),
      enabled_(enabled && terminal->err_is_terminal() &&
               env_var("TERM").value_or("dumb") != "dumb") {}

ProgressBar::~ProgressBar() {
  erase();
}

void ProgressBar::update(std::string_view what, uint64_t done, uint64_t total,
                         std::string_view unit, std::string_view detail) {
  if (!enabled_) {
    return;
  }
  const double now = monotonic_seconds();
  if (started_ < 0 || what != what_) {
    started_ = now;
    what_ = what;
  }
  if (now - started_ < kDelaySeconds || now - drawn_at_ < kRedrawSeconds) {
    return;
  }
  drawn_at_ = now;
  std::string line = printable(what);
  std::string counts =
      total == 0 ? fmt::format(" {}", amount(done, unit))
                 : fmt::format(" {:3.0f}%  {} of {}{}",
                               100.0 * static_cast<double>(done) / static_cast<double>(total),
                               amount(done, unit), amount(total, unit),
                               unit == "bytes" ? "" : fmt::format(" {}", unit));
  const auto columns = static_cast<size_t>(terminal_->columns());
  if (!detail.empty()) {
    const std::string aside = fmt::format(", {}", printable(detail));
    // Without room for all, the detail says more than the amounts.
    const size_t all = display_width(line) + counts.size() + display_width(aside);
    if (total > 0 && all >= columns) {
      counts =
          fmt::format(" {:3.0f}%", 100.0 * static_cast<double>(done) / static_cast<double>(total));
    }
    counts += aside;
  }
  const size_t used = display_width(line) + counts.size() + 4;
  if (total > 0 && columns > used + 8) {
    const size_t width = std::min<size_t>(columns - used, 40);
    const auto filled = std::min<size_t>(
        width, static_cast<size_t>(static_cast<double>(width) * static_cast<double>(done) /
                                   static_cast<double>(total)));
    line += fmt::format(" [{}{}]", std::string(filled, '#'), std::string(width - filled, '.'));
  }
  line += counts;
  // One column stays free: a full last column makes some terminals wrap.
  terminal_->note(
      fmt::format("\r\x1b[K{}", terminal_->paint_note(Style::kDim, shortened(line, columns - 1))));
  is_drawn_ = true;
}

void ProgressBar::finish(std::string_view /*what*/) {
  erase();
  started_ = -1;
}

void ProgressBar::erase() {
  if (is_drawn_) {
    terminal_->note("\r\x1b[K");
    is_drawn_ = false;
  }
}

}  // namespace logitlab
