#include "models/weight_reader.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/env.h"
#include "tensor/tensor.h"

namespace logitlab {
namespace {

// Large enough that a request keeps a disk busy, small enough that what all threads have in the
// page cache at one time stays far below any model's size.
constexpr size_t kPieceBytes = size_t{8} << 20;

// A range of one tensor: bytes of the file, or rows when they are converted.
struct Piece {
  size_t target = 0;
  size_t begin = 0;  // offset in the file
  size_t end = 0;
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

// Counts what is done; thread 0, which is the caller's, tells the sink.
class Tally {
 public:
  Tally(std::string_view what, const Checkpoint& checkpoint, ProgressSink* progress)
      : what_(what), progress_(progress), open_pieces_(checkpoint.files().size()) {}

  void expect(int file_index, size_t bytes) {
    auto& open = open_pieces_[static_cast<size_t>(file_index)];
    n_files_ += open == 0 ? 1 : 0;
    ++open;
    total_ += bytes;
  }
  void start() { started_ = monotonic_seconds(); }
  // True when it was the last piece of its file.
  bool piece_is_done(int file_index, size_t bytes, int thread) {
    done_.fetch_add(bytes, std::memory_order_relaxed);
    const bool is_last = open_pieces_[static_cast<size_t>(file_index)].fetch_sub(1) == 1;
    files_done_.fetch_add(is_last ? 1 : 0, std::memory_order_relaxed);
    if (thread == 0) {
      report();
    }
    return is_last;
  }
  [[nodiscard]] WeightTraffic finish() {
    const WeightTraffic traffic{done_.load(), monotonic_seconds() - started_, n_files_};
    report();
    progress_->finish(what_);
    return traffic;
  }

 private:
  void report() {
    const double seconds = std::max(monotonic_seconds() - started_, 1e-6);
    const uint64_t done = done_.load(std::memory_order_relaxed);
    const double rate = static_cast<double>(done) / seconds / 1e9;
    const std::string shards =
        n_files_ > 1 ? fmt::format("{}/{} shards, ", files_done_.load(), n_files_) : std::string();
    progress_->update(what_, done, total_, "bytes", fmt::format("{}{:.1f} GB/s", shards, rate));
  }

  std::string_view what_;
  ProgressSink* progress_;
  std::vector<std::atomic<int64_t>> open_pieces_;  // by file
  int n_files_ = 0;
  size_t total_ = 0;
  double started_ = 0;
  std::atomic<uint64_t> done_{0};
  std::atomic<int> files_done_{0};
};

void append_pieces(const TensorEntry& entry, size_t target, bool converts,
                   std::vector<Piece>* pieces) {
  if (converts) {
    const Tensor view = entry.view();
    const size_t stride = view.row_stride_bytes();
    const int64_t step =
        std::max<int64_t>(1, static_cast<int64_t>(kPieceBytes / std::max<size_t>(stride, 1)));
    for (int64_t row = 0; row < view.rows(); row += step) {
      const int64_t n = std::min(step, view.rows() - row);
      const size_t begin = entry.offset + static_cast<size_t>(row) * stride;
      pieces->push_back({target, begin, begin + static_cast<size_t>(n) * stride, row, n});
    }
    return;
  }
  const size_t end = entry.offset + entry.bytes;
  for (size_t begin = entry.offset; begin < end;) {
    const size_t next = std::min(end, (begin / kPieceBytes + 1) * kPieceBytes);
    pieces->push_back({target, begin, next});
    begin = next;
  }
}

// In the order of the files, so that the threads go through a disk together.
void sort_by_place(std::vector<Piece>* pieces, const auto& file_of) {
  std::sort(pieces->begin(), pieces->end(), [&](const Piece& a, const Piece& b) {
    return std::make_tuple(file_of(a), a.begin) < std::make_tuple(file_of(b), b.begin);
  });
}

// Keeps the first error of many threads.
class FirstError {
 public:
  void keep(Status status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status_) {
      status_ = std::move(status);
    }
    is_set_.store(true, std::memory_order_release);
  }
  [[nodiscard]] bool is_set() const { return is_set_.load(std::memory_order_acquire); }
  [[nodiscard]] Status take() { return std::move(status_); }

 private:
  std::mutex mutex_;
  Status status_;
  std::atomic<bool> is_set_{false};
};

// A disk wants several requests at a time, whatever the number of processors.
constexpr int kFewestReaders = 4;
constexpr int kMostReaders = 16;

}  // namespace

Status read_rows(const Checkpoint& checkpoint, const TensorEntry& entry, int64_t first,
                 int64_t n_rows, DType dtype, std::byte* out, std::vector<std::byte>* scratch) {
  const Tensor view = entry.view();
  const size_t stride = view.row_stride_bytes();
  const int64_t columns = view.columns();
  const size_t offset = entry.offset + static_cast<size_t>(first) * stride;
  const size_t bytes = static_cast<size_t>(n_rows) * stride;
  if (dtype == entry.dtype) {
    return checkpoint.read_at(entry.file_index, offset, {out, bytes});
  }
  scratch->resize(bytes);
  RETURN_IF_ERROR(checkpoint.read_at(entry.file_index, offset, *scratch));
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t r = 0; r < n_rows; ++r) {
    row_to_float(entry.dtype, scratch->data() + static_cast<size_t>(r) * stride, row.data(),
                 columns);
    row_from_float(dtype, row.data(), out + static_cast<size_t>(r) * row_bytes(dtype, columns),
                   columns);
  }
  return {};
}

Result<WeightTraffic> read_weights(const Checkpoint& checkpoint,
                                   std::span<const WeightTarget> targets,
                                   const std::vector<bool>& releases, ThreadPool& threads,
                                   ProgressSink& progress) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < targets.size(); ++i) {
    append_pieces(*targets[i].entry, i, targets[i].dtype != targets[i].entry->dtype, &pieces);
  }
  const auto file_of = [&](const Piece& piece) { return targets[piece.target].entry->file_index; };
  sort_by_place(&pieces, file_of);
  Tally tally("reading weights", checkpoint, &progress);
  for (const Piece& piece : pieces) {
    tally.expect(file_of(piece), piece.end - piece.begin);
  }
  ThreadPool readers(std::clamp(threads.n_threads(), kFewestReaders, kMostReaders));
  std::vector<std::vector<std::byte>> scratch(static_cast<size_t>(readers.n_threads()));
  FirstError error;
  checkpoint.expect_sequential_reads(false);
  tally.start();
  readers.parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t index, int thread) {
    if (error.is_set()) {
      return;
    }
    const Piece& piece = pieces[static_cast<size_t>(index)];
    const WeightTarget& target = targets[piece.target];
    const TensorEntry& entry = *target.entry;
    const size_t bytes = piece.end - piece.begin;
    checkpoint.will_need(entry.file_index, piece.begin, bytes);
    Status status =
        piece.n_rows > 0
            ? read_rows(checkpoint, entry, piece.first_row, piece.n_rows, target.dtype,
                        target.out + static_cast<size_t>(piece.first_row) *
                                         row_bytes(target.dtype, entry.view().columns()),
                        &scratch[static_cast<size_t>(thread)])
            : checkpoint.read_at(entry.file_index, piece.begin,
                                 {target.out + (piece.begin - entry.offset), bytes});
    if (!status) {
      error.keep(std::move(status));
      return;
    }
    checkpoint.release_cached(entry.file_index, piece.begin, bytes);
    // What pieces share with their neighbours, the header, and what was read ahead of the readers.
    const auto file = static_cast<size_t>(entry.file_index);
    if (tally.piece_is_done(entry.file_index, bytes, thread) && releases[file]) {
      checkpoint.release_cached(entry.file_index, 0, checkpoint.files()[file].bytes);
    }
  });
  checkpoint.expect_sequential_reads(true);
  const WeightTraffic traffic = tally.finish();
  RETURN_IF_ERROR(error.take());
  for (size_t i = 0; i < checkpoint.files().size(); ++i) {
    if (releases[i]) {
      checkpoint.release_cached(static_cast<int>(i), 0, checkpoint.files()[i].bytes);
    }
  }
  return traffic;
}

WeightTraffic touch_weights(const Checkpoint& checkpoint,
                            std::span<const TensorEntry* const> entries, ThreadPool& threads,
                            ProgressSink& progress) {
  constexpr size_t kPage = 4096;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < entries.size(); ++i) {
    append_pieces(*entries[i], i, /*converts=*/false, &pieces);
  }
  const auto file_of = [&](const Piece& piece) { return entries[piece.target]->file_index; };
  sort_by_place(&pieces, file_of);
  Tally tally("reading weights", checkpoint, &progress);
  for (const Piece& piece : pieces) {
    tally.expect(file_of(piece), piece.end - piece.begin);
  }
  std::atomic<uint64_t> sum{0};
  tally.start();
  threads.parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t index, int thread) {
    const Piece& piece = pieces[static_cast<size_t>(index)];
    const TensorEntry& entry = *entries[piece.target];
    checkpoint.will_need(entry.file_index, piece.begin, piece.end - piece.begin);
    uint64_t local = 0;
    for (size_t at = piece.begin; at < piece.end; at += kPage) {
      local += static_cast<uint64_t>(entry.data[at - entry.offset]);
    }
    // The sum is only there so that the reads happen.
    sum.fetch_add(local, std::memory_order_relaxed);
    tally.piece_is_done(entry.file_index, piece.end - piece.begin, thread);
  });
  return tally.finish();
}

}  // namespace logitlab
