#include "base/check.h"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace logitlab {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  message_ << file << ':' << line << ": CHECK(" << condition << ") ";
}

CheckFailure::~CheckFailure() {
  const std::string text = message_.str();
  std::fprintf(stderr, "%s\nThis is a bug in logitlab; please report it with the command.\n",
               text.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace logitlab
