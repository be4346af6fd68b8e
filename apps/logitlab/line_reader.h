// Lines of standard input, for conversations.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"

namespace logitlab {

class LineReader {
 public:
  enum class End { kLine, kEndOfInput, kInterrupted };
  struct Read {
    End end = End::kLine;
    std::string line;  // without its line break; of kLine alone
  };
  // The next line; a last one without a line break counts. kInterrupted: a signal came while
  // waiting. kInvalidArgument: the input cannot be read; kResourceExhausted: a line of more than
  // kMaxInputBytes.
  [[nodiscard]] Result<Read> next();

 private:
  std::string pending_;
  bool at_end_ = false;
};

}  // namespace logitlab
