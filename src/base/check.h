// CHECK(cond) << values: aborts with file, line and message when `cond` is false; always on.
// DCHECK(cond): the same when LOGITLAB_DCHECK is defined (presets dev and asan); else compiled
// away. For bugs only. If a file or a request can reach it, it should have been an Error.
#pragma once

#include <sstream>

namespace logitlab {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;
  [[noreturn]] ~CheckFailure();

  template <typename T>
  CheckFailure& operator<<(const T& value) {
    message_ << value;
    return *this;
  }

 private:
  std::ostringstream message_;
};

// Gives both branches of the ?: in CHECK the type void.
class CheckVoidify {
 public:
  void operator&(const CheckFailure& /*failure*/) {}
};

}  // namespace logitlab

#define CHECK(cond) \
  (cond) ? (void)0  \
         : ::logitlab::CheckVoidify() & ::logitlab::CheckFailure(__FILE__, __LINE__, #cond)

#ifdef LOGITLAB_DCHECK
#define DCHECK(cond) CHECK(cond)
#else
#define DCHECK(cond) CHECK(true || (cond))
#endif
