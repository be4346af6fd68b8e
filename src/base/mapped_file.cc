#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/open_regular.h"

namespace logitlab {
namespace {

size_t page_bytes() {
  static const auto kBytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return kBytes;
}

void* writable(const std::byte* data) {
  return const_cast<std::byte*>(data);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

// Linux 6.5 and newer count the cached pages of a file in time that grows with those pages alone.
// The number is the same on every architecture; older C libraries do not name it.
std::optional<size_t> count_with_cachestat(int fd) {
  constexpr long kCachestat = 451;
  struct Range {
    uint64_t offset;
    uint64_t length;  // 0: to the end
  };
  struct Counts {
    uint64_t cached;
    uint64_t dirty;
    uint64_t written_back;
    uint64_t evicted;
    uint64_t recently_evicted;
  };
  Range range{0, 0};
  Counts counts{};
  if (::syscall(kCachestat, fd, &range, &counts, 0) != 0) {
    return std::nullopt;
  }
  return static_cast<size_t>(counts.cached) * page_bytes();
}

// One byte a page; mincore() answers "resident" for all pages of files that are not ours, so it is
// asked for no other.
std::optional<size_t> count_with_mincore(int fd, const std::byte* data, size_t size) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || (status.st_uid != ::geteuid() && ::geteuid() != 0)) {
    return std::nullopt;
  }
  constexpr size_t kStepPages = size_t{1} << 16;
  std::vector<unsigned char> is_cached(kStepPages);
  const size_t step = kStepPages * page_bytes();
  size_t cached = 0;
  for (size_t at = 0; at < size; at += step) {
    const size_t length = std::min(step, size - at);
    if (::mincore(writable(data + at), length, is_cached.data()) != 0) {
      return std::nullopt;
    }
    const size_t n_pages = (length + page_bytes() - 1) / page_bytes();
    cached += static_cast<size_t>(
        std::count_if(is_cached.begin(), is_cached.begin() + static_cast<std::ptrdiff_t>(n_pages),
                      [](unsigned char bits) { return (bits & 1U) != 0; }));
  }
  return cached * page_bytes();
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  MappedFile file;
  ASSIGN_OR_RETURN(const size_t size, open_regular(path, &file.fd_));
  file.path_ = path;
  if (size == 0) {
    return file;
  }
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd_, 0);
  if (data == MAP_FAILED) {
    return fail(ErrorCode::kResourceExhausted, "{}: cannot map {} bytes: {}", path.string(), size,
                std::strerror(errno));
  }
  file.data_ = static_cast<const std::byte*>(data);
  file.size_ = size;
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      fd_(std::exchange(other.fd_, -1)),
      releases_on_close_(other.releases_on_close_),
      path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(fd_, other.fd_);
    std::swap(releases_on_close_, other.releases_on_close_);
    std::swap(path_, other.path_);
  }
  return *this;
}

MappedFile::~MappedFile() {
  if (releases_on_close_) {
    release_cached();
  }
  if (data_ != nullptr) {
    ::munmap(writable(data_), size_);
  }
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void MappedFile::will_need(size_t offset, size_t length) const {
  if (data_ == nullptr || offset >= size_) {
    return;
  }
  const size_t begin = offset / page_bytes() * page_bytes();
  const size_t end = length > size_ - offset ? size_ : offset + length;
  ::madvise(writable(data_ + begin), end - begin, MADV_WILLNEED);
}

void MappedFile::expect_sequential_reads(bool is_sequential) const {
  if (fd_ >= 0) {
    ::posix_fadvise(fd_, 0, 0, is_sequential ? POSIX_FADV_NORMAL : POSIX_FADV_RANDOM);
  }
}

Status MappedFile::read_at(size_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return fail(ErrorCode::kDataLoss, "{}: {} at byte {}, want {} bytes more", path_.string(),
                  n < 0 ? std::strerror(errno) : "found the end of the file", offset + done,
                  out.size() - done);
    }
    done += static_cast<size_t>(n);
  }
  return {};
}

void MappedFile::release_cached(size_t offset, size_t length) const {
  if (data_ == nullptr || offset >= size_) {
    return;
  }
  // A page that stands in somebody's page table is not dropped, so ours goes first. Pages that the
  // range holds in part may still be wanted by a neighbour; the end of the file counts as whole.
  const size_t last = length >= size_ - offset ? size_ : offset + length;
  const size_t begin = (offset + page_bytes() - 1) / page_bytes() * page_bytes();
  const size_t end = last == size_ ? size_ : last / page_bytes() * page_bytes();
  if (begin >= end) {
    return;
  }
  ::madvise(writable(data_ + begin), end - begin, MADV_DONTNEED);
  ::posix_fadvise(fd_, static_cast<off_t>(begin),
                  end == size_ ? 0 : static_cast<off_t>(end - begin), POSIX_FADV_DONTNEED);
}

std::optional<size_t> MappedFile::cached_bytes() const {
  if (data_ == nullptr) {
    return 0;
  }
  const auto counted = count_with_cachestat(fd_);
  return counted ? counted : count_with_mincore(fd_, data_, size_);
}

Result<PageMemory> PageMemory::allocate(size_t bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  PageMemory memory;
  if (bytes == 0) {
    return memory;
  }
  const size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* found = rounded < bytes || rounded + kHugePage < rounded
                    ? MAP_FAILED
                    : ::mmap(nullptr, rounded + kHugePage, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) {
    return fail(ErrorCode::kResourceExhausted, "cannot allocate {} bytes: {}", bytes,
                std::strerror(rounded < bytes ? EOVERFLOW : errno));
  }
  auto* start = static_cast<std::byte*>(found);
  const size_t skipped = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
  if (skipped > 0) {
    ::munmap(start, skipped);
  }
  if (skipped < kHugePage) {
    ::munmap(start + skipped + rounded, kHugePage - skipped);
  }
  memory.data_ = start + skipped;
  memory.size_ = rounded;
  ::madvise(memory.data_, rounded, MADV_HUGEPAGE);
  return memory;
}

PageMemory::PageMemory(PageMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

PageMemory& PageMemory::operator=(PageMemory&& other) noexcept {
  if (this != &other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  return *this;
}

PageMemory::~PageMemory() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

}  // namespace logitlab
