#include "interrupt.h"

#include <csignal>

namespace logitlab {
namespace {

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t g_interrupted = 0;  // NOLINT(*-avoid-non-const-global-variables)

void on_signal(int /*signal*/) {
  g_interrupted = 1;
}

void install() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  // The second signal finds the default action. No SA_RESTART: a read that waits for a line
  // returns.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  rearm();
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool InterruptGuard::was_interrupted() {
  return g_interrupted != 0;
}

void InterruptGuard::rearm() {
  g_interrupted = 0;
  install();
}

}  // namespace logitlab
