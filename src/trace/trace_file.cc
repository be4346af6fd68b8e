#include "trace/trace_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/check.h"
#include "trace/record_writer.h"

namespace logitlab {
namespace {

// What is written at once; steps of usual size never make the buffer grow beyond twice this.
constexpr size_t kChunk = size_t{256} << 10;

std::string errno_text(int code) {
  return std::strerror(code);
}

}  // namespace

struct TraceFileWriter::Impl {
  std::string path;               // as the caller named it
  std::filesystem::path target;   // behind links
  std::filesystem::path partial;  // empty: written straight
  int fd = -1;
  bool has_ended = false;
  int error = 0;  // errno of the first write that did not work
  size_t bytes = 0;
  fmt::memory_buffer buffer;

  ~Impl() {
    if (fd >= 0) {
      ::close(fd);
    }
    if (!partial.empty()) {
      ::unlink(partial.c_str());
    }
  }
  void flush();
  template <typename Record>
  void write(const Record& record);
};

void TraceFileWriter::Impl::flush() {
  size_t done = 0;
  while (done < buffer.size() && error == 0) {
    const ssize_t n = ::write(fd, buffer.data() + done, buffer.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  buffer.clear();
}

template <typename Record>
void TraceFileWriter::Impl::write(const Record& record) {
  CHECK(!has_ended) << path << ": a record after the end";
  const size_t before = buffer.size();
  append_line(record, &buffer);
  bytes += buffer.size() - before;
  if (buffer.size() >= kChunk) {
    flush();
  }
}

TraceFileWriter::TraceFileWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TraceFileWriter::~TraceFileWriter() = default;

Result<std::unique_ptr<TraceFileWriter>> TraceFileWriter::create(const std::string& path) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->target = path;
  struct stat status {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  int flags = O_WRONLY | O_CLOEXEC;
  std::filesystem::path opened = impl->target;
  if (exists && S_ISDIR(status.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "{}: found a folder, want a file for the trace", path);
  }
  if (!exists || S_ISREG(status.st_mode)) {
    std::error_code error;
    if (auto target = std::filesystem::canonical(path, error); !error) {
      impl->target = std::move(target);
    }
    opened = impl->target.string() + fmt::format(".{}.partial", ::getpid());
    flags |= O_CREAT | O_TRUNC;
  }
  impl->fd = ::open(opened.c_str(), flags, 0644);
  if (impl->fd < 0) {
    const int code = errno;
    const bool is_absent = code == ENOENT || code == ENOTDIR;
    return fail(is_absent ? ErrorCode::kNotFound : ErrorCode::kInvalidArgument,
                "{}: no trace can be written there: {}", path, errno_text(code));
  }
  if ((flags & O_CREAT) != 0) {
    impl->partial = std::move(opened);
  }
  impl->buffer.reserve(2 * kChunk);
  return std::unique_ptr<TraceFileWriter>(new TraceFileWriter(std::move(impl)));
}

void TraceFileWriter::begin(const RunTrace& run) {
  impl_->write(run);
}

void TraceFileWriter::step(const TracedStep& step) {
  impl_->write(step);
}

void TraceFileWriter::beam_step(const TracedBeamStep& step) {
  impl_->write(step);
}

void TraceFileWriter::end(const RunEnd& end) {
  impl_->write(end);
  impl_->flush();
  impl_->has_ended = true;
}

Status TraceFileWriter::close() {
  Impl& impl = *impl_;
  CHECK(impl.fd >= 0) << impl.path << ": closed twice";
  if (::close(std::exchange(impl.fd, -1)) != 0 && impl.error == 0) {
    impl.error = errno;
  }
  if (impl.error != 0) {
    return fail(ErrorCode::kResourceExhausted, "{}: the trace is not complete: {}", impl.path,
                errno_text(impl.error));
  }
  if (!impl.has_ended) {
    return fail(ErrorCode::kCancelled, "{}: no trace, since the run did not end", impl.path);
  }
  if (!impl.partial.empty()) {
    if (std::rename(impl.partial.c_str(), impl.target.c_str()) != 0) {
      const int code = errno;
      return fail(ErrorCode::kNotFound, "{}: the trace cannot be given its name: {}", impl.path,
                  errno_text(code));
    }
    impl.partial.clear();
  }
  return {};
}

size_t TraceFileWriter::bytes() const {
  return impl_->bytes;
}

}  // namespace logitlab
