#include "line_reader.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <unistd.h>
#include <utility>

#include "text_input.h"

namespace logitlab {

Result<LineReader::Read> LineReader::next() {
  std::array<char, 4096> chunk{};
  size_t searched = 0;
  for (;;) {
    const size_t end = pending_.find('\n', searched);
    if (end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      if (!line.empty() && line.back() == '\r') {
        line.pop_back();
      }
      return Read{End::kLine, std::move(line)};
    }
    if (at_end_) {
      if (pending_.empty()) {
        return Read{End::kEndOfInput, ""};
      }
      return Read{End::kLine, std::exchange(pending_, "")};
    }
    searched = pending_.size();
    const ssize_t n = ::read(STDIN_FILENO, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) {
      return Read{End::kInterrupted, ""};
    }
    if (n < 0) {
      return fail(ErrorCode::kInvalidArgument, "standard input: {}", std::strerror(errno));
    }
    at_end_ = n == 0;
    pending_.append(chunk.data(), static_cast<size_t>(n));
    if (pending_.size() > kMaxInputBytes) {
      return fail(ErrorCode::kResourceExhausted, "standard input: a line of more than {} bytes",
                  kMaxInputBytes);
    }
  }
}

}  // namespace logitlab
