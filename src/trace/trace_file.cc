#include "trace/trace_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <type_traits>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "base/utf8.h"
#include "trace/trace_fields.h"

namespace logitlab {
namespace {

// What is written at once; steps of usual size never make the buffer grow beyond twice this.
constexpr size_t kChunk = size_t{256} << 10;

using Buffer = fmt::memory_buffer;

void put(Buffer* out, std::string_view text) {
  out->append(text.data(), text.data() + text.size());
}

void put_string(Buffer* out, std::string_view text) {
  if (first_invalid_utf8(text) != text.size()) {
    put_string(out, replace_invalid_utf8(text));
    return;
  }
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      fmt::format_to(fmt::appender(*out), "\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

template <typename T>
void put_number(Buffer* out, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value)) {
      put(out, "null");
      return;
    }
    if (std::isinf(value)) {
      put(out, value > 0 ? "\"inf\"" : "\"-inf\"");
      return;
    }
  }
  // The shortest digits that read back as the same number.
  fmt::format_to(fmt::appender(*out), "{}", value);
}

// Writes an object's fields in the order of trace_fields.h.
class FieldWriter {
 public:
  explicit FieldWriter(Buffer* out) : out_(*out) {}

  template <typename T>
  void field(std::string_view name, const T& value) {
    out_.push_back(is_first_ ? '{' : ',');
    is_first_ = false;
    out_.push_back('"');
    put(&out_, name);
    put(&out_, "\":");
    write(value);
  }

  void close() { out_.push_back('}'); }

 private:
  void write(bool value) { put(&out_, value ? "true" : "false"); }
  void write(int32_t value) { put_number(&out_, value); }
  void write(int64_t value) { put_number(&out_, value); }
  void write(uint64_t value) { put_number(&out_, value); }
  void write(float value) { put_number(&out_, value); }
  void write(double value) { put_number(&out_, value); }
  void write(const std::string& value) { put_string(&out_, value); }
  void write(std::string_view value) { put_string(&out_, value); }
  void write(JsonText<const std::string> value) {
    if (value.text.empty()) {
      put(&out_, "null");
      return;
    }
    const auto json = parse_json(value.text, "config_json");
    CHECK(json.has_value()) << json.error().message;
    put(&out_, dump_json(*json));  // on one line, whatever it was before
  }
  void write(HexNumber<const uint64_t> value) {
    fmt::format_to(fmt::appender(out_), "\"{:016x}\"", value.value);
  }
  template <typename Pieces>
  void write(PieceList<Pieces> list) {
    out_.push_back('[');
    for (const auto& piece : list.pieces) {
      fmt::format_to(fmt::appender(out_), "{}[{},", &piece == list.pieces.data() ? "" : ",",
                     piece.first);
      put_string(&out_, piece.second);
      out_.push_back(']');
    }
    out_.push_back(']');
  }
  template <typename T>
  void write(const std::vector<T>& values) {
    out_.push_back('[');
    bool is_first = true;
    for (const auto& value : values) {
      if (!is_first) {
        out_.push_back(',');
      }
      is_first = false;
      if constexpr (std::is_same_v<T, bool>) {
        write(static_cast<bool>(value));
      } else {
        write(value);
      }
    }
    out_.push_back(']');
  }
  template <typename T>
  requires(std::is_class_v<T>) void write(const T& record) {
    FieldWriter fields(&out_);
    visit_fields(fields, record);
    fields.close();
  }

  Buffer& out_;
  bool is_first_ = true;
};

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
  Buffer buffer;

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
  void write(std::string_view kind, const Record& record);
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
void TraceFileWriter::Impl::write(std::string_view kind, const Record& record) {
  CHECK(!has_ended) << path << ": a record after the end";
  const size_t before = buffer.size();
  FieldWriter fields(&buffer);
  fields.field("record", kind);
  if constexpr (std::is_same_v<Record, RunTrace>) {
    fields.field("schema", kTraceSchema);
  }
  visit_fields(fields, record);
  fields.close();
  buffer.push_back('\n');
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
  impl_->write(kRunRecord, run);
}

void TraceFileWriter::step(const TracedStep& step) {
  impl_->write(kStepRecord, step);
}

void TraceFileWriter::beam_step(const TracedBeamStep& step) {
  impl_->write(kBeamStepRecord, step);
}

void TraceFileWriter::end(const RunEnd& end) {
  impl_->write(kEndRecord, end);
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
