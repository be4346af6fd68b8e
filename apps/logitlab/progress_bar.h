// A bar on standard error for work that takes long enough to be noticed.
#pragma once

#include <string>

#include "base/progress.h"
#include "terminal.h"

namespace logitlab {

// Draws only when standard error is a terminal that can erase a line, and only after a moment;
// erased by finish() and by the destructor. One-thread. `terminal` outlives it.
class ProgressBar final : public ProgressSink {
 public:
  // Nothing is drawn when `enabled` is false.
  ProgressBar(Terminal* terminal, bool enabled);
  ~ProgressBar() override;
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  using ProgressSink::update;
  void update(std::string_view what, uint64_t done, uint64_t total, std::string_view unit,
              std::string_view detail) override;
  void finish(std::string_view what) override;

 private:
  void erase();

  Terminal* terminal_;
  bool enabled_;
  bool is_drawn_ = false;
  double started_ = -1;  // of the work in hand, monotonic seconds; -1: none
  double drawn_at_ = 0;
  std::string what_;
};

}  // namespace logitlab
