#include "trace/trace_text.h"

#include <algorithm>
#include <utility>

#include <zstd.h>

#include "base/check.h"
#include "trace/record_writer.h"

namespace logitlab {
namespace {

constexpr size_t kPiece = size_t{16} << 10;
constexpr size_t kLargestText = size_t{2} << 30;
constexpr int kLevel = 3;

std::string_view view(const fmt::memory_buffer& buffer) {
  return {buffer.data(), buffer.size()};
}

}  // namespace

struct TraceCompressor::Impl {
  struct Free {
    void operator()(ZSTD_CCtx* owned) const { ZSTD_freeCCtx(owned); }
  };
  std::unique_ptr<ZSTD_CCtx, Free> context{ZSTD_createCCtx()};
  std::string frame;
};

TraceCompressor::TraceCompressor() : impl_(std::make_unique<Impl>()) {
  CHECK(impl_->context != nullptr) << "no memory for a zstd context";
  ZSTD_CCtx_setParameter(impl_->context.get(), ZSTD_c_compressionLevel, kLevel);
  ZSTD_CCtx_setParameter(impl_->context.get(), ZSTD_c_checksumFlag, 1);
}

TraceCompressor::~TraceCompressor() = default;

void TraceCompressor::append(std::string_view text, std::string* zstd) {
  if (text.empty()) {
    return;
  }
  std::string& frame = impl_->frame;
  frame.resize(std::max(frame.size(), ZSTD_compressBound(text.size())));
  const size_t written =
      ZSTD_compress2(impl_->context.get(), frame.data(), frame.size(), text.data(), text.size());
  CHECK(ZSTD_isError(written) == 0U) << ZSTD_getErrorName(written);
  // Growing a string in place would leave up to half of it empty, in each of many traces.
  std::string grown;
  grown.reserve(zstd->size() + written);
  grown.append(*zstd).append(frame, 0, written);
  *zstd = std::move(grown);
}

Result<size_t> decompressed_trace_bytes(std::string_view zstd, std::string_view where) {
  size_t total = 0;
  for (size_t offset = 0; offset < zstd.size();) {
    const std::string_view rest = zstd.substr(offset);
    const size_t frame = ZSTD_findFrameCompressedSize(rest.data(), rest.size());
    const unsigned long long text = ZSTD_getFrameContentSize(rest.data(), rest.size());
    if (ZSTD_isError(frame) != 0U || text == ZSTD_CONTENTSIZE_ERROR ||
        text == ZSTD_CONTENTSIZE_UNKNOWN) {
      return fail(ErrorCode::kDataLoss,
                  "{}: byte {} of {}: found no whole zstd frame with its length, want one; the "
                  "trace was cut off or altered",
                  where, offset, zstd.size());
    }
    if (text > kLargestText - total) {
      return fail(ErrorCode::kResourceExhausted, "{}: the trace has more than {} bytes, want less",
                  where, kLargestText);
    }
    total += static_cast<size_t>(text);
    offset += frame;
  }
  return total;
}

Result<std::string> decompress_trace(std::string_view zstd, std::string_view where) {
  ASSIGN_OR_RETURN(const size_t total, decompressed_trace_bytes(zstd, where));
  std::string out(total, '\0');
  const size_t written = ZSTD_decompress(out.data(), out.size(), zstd.data(), zstd.size());
  if (ZSTD_isError(written) != 0U || written != total) {
    return fail(ErrorCode::kDataLoss, "{}: the trace was altered: {}", where,
                ZSTD_isError(written) != 0U ? ZSTD_getErrorName(written) : "another length");
  }
  return out;
}

void TraceText::compress_pending() {
  compressor_.append(view(pending_), &zstd_);
  pending_ = fmt::memory_buffer();
}

template <typename Record>
void TraceText::write(const Record& record) {
  CHECK(!has_ended_) << "a record after the end of a trace";
  const size_t before = pending_.size();
  append_line(record, &pending_);
  bytes_ += pending_.size() - before;
  if (pending_.size() >= kPiece) {
    compress_pending();
  }
}

void TraceText::begin(const RunTrace& run) {
  write(run);
}

void TraceText::step(const TracedStep& step) {
  write(step);
}

void TraceText::beam_step(const TracedBeamStep& step) {
  write(step);
}

void TraceText::end(const RunEnd& end) {
  write(end);
  has_ended_ = true;
}

size_t TraceText::memory_bytes() const {
  return sizeof(*this) + zstd_.capacity() + pending_.capacity();
}

std::string TraceText::take() {
  auto text = decompress_trace(zstd_, "trace");
  CHECK(text.has_value()) << text.error().message;
  text->append(pending_.data(), pending_.size());
  zstd_ = {};
  pending_ = fmt::memory_buffer();
  bytes_ = 0;
  has_ended_ = false;
  return std::move(*text);
}

std::string TraceText::take_zstd() {
  compress_pending();
  bytes_ = 0;
  has_ended_ = false;
  return std::exchange(zstd_, {});
}

}  // namespace logitlab
