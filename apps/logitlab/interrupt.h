// Ctrl-C as a wish that long work asks about.
#pragma once

namespace logitlab {

// While one lives, the first SIGINT or SIGTERM sets a flag and the second one ends the process as
// usual. At most one at a time; the default actions are back when it dies.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  [[nodiscard]] static bool was_interrupted();
  // Forgets the wish and waits for the next one.
  void rearm();
};

}  // namespace logitlab
