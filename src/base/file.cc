#include "base/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "base/open_regular.h"

namespace logitlab {
namespace {

std::string errno_text() {
  return std::strerror(errno);
}

// Closes the descriptor when the scope ends.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

// O_NONBLOCK so that a FIFO named as a model file is refused instead of waited for.
Result<size_t> open_regular(const std::filesystem::path& path, int* fd) {
  *fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0) {
    const ErrorCode code =
        (errno == ENOENT || errno == ENOTDIR) ? ErrorCode::kNotFound : ErrorCode::kInvalidArgument;
    return fail(code, "{}: {}", path.string(), errno_text());
  }
  struct stat status {};
  if (::fstat(*fd, &status) != 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: {}", path.string(), errno_text());
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "{}: found {}, want a regular file", path.string(),
                S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe");
  }
  return static_cast<size_t>(status.st_size);
}

Result<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  int raw_fd = -1;
  auto size = open_regular(path, &raw_fd);
  const FileDescriptor fd(raw_fd);
  if (!size) {
    return tl::unexpected<Error>(std::move(size).error());
  }
  if (*size > max_bytes) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} bytes, want at most {}", path.string(), *size,
                max_bytes);
  }
  std::string text(*size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return fail(ErrorCode::kDataLoss, "{}: {} at byte {}", path.string(), errno_text(), done);
    }
    if (n == 0) {
      break;
    }
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

namespace {

// Writes all of `content` to a file opened with `flags` and closes it.
Status write_whole(const std::filesystem::path& path, int flags, std::string_view content) {
  const int fd = ::open(path.c_str(), flags | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: cannot be written: {}", path.string(),
                errno_text());
  }
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = ::write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      const std::string reason = errno_text();
      ::close(fd);
      return fail(ErrorCode::kResourceExhausted, "{}: {} after {} of {} bytes", path.string(),
                  reason, done, content.size());
    }
    done += static_cast<size_t>(n);
  }
  if (::close(fd) != 0) {
    return fail(ErrorCode::kResourceExhausted, "{}: {} on closing", path.string(), errno_text());
  }
  return {};
}

}  // namespace

Status write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    // A device or a pipe must stay what it is; opening a folder for writing says what is wrong.
    return write_whole(path, 0, content);
  }
  // A link keeps leading to the file that it names.
  std::error_code error;
  std::filesystem::path target = std::filesystem::canonical(path, error);
  if (error) {
    target = path;
  }
  const std::filesystem::path partial = target.string() + fmt::format(".{}.partial", ::getpid());
  if (auto written = write_whole(partial, O_CREAT | O_TRUNC, content); !written) {
    ::unlink(partial.c_str());
    return written;
  }
  if (std::rename(partial.c_str(), target.c_str()) != 0) {
    const std::string reason = errno_text();
    ::unlink(partial.c_str());
    return fail(ErrorCode::kInvalidArgument, "{}: cannot be replaced: {}", path.string(), reason);
  }
  return {};
}

}  // namespace logitlab
