#include "backend/bandwidth.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "backend/cpu/kernels.h"
#include "base/check.h"
#include "base/env.h"

namespace logitlab {
namespace {

// A piece per task: large enough that handing it out costs nothing, small enough that threads end
// together.
constexpr int64_t kPieceFloats = 1 << 18;
constexpr size_t kLeastPasses = 3;
constexpr size_t kMostPasses = 1000;

}  // namespace

BandwidthProbe::BandwidthProbe(ThreadPool* threads, PageMemory memory, int64_t n_pieces)
    : threads_(threads), memory_(std::move(memory)), sums_(static_cast<size_t>(n_pieces)) {}

Result<BandwidthProbe> BandwidthProbe::make(ThreadPool* threads, size_t bytes) {
  const int64_t n_pieces =
      std::max<int64_t>(1, static_cast<int64_t>(bytes / sizeof(float)) / kPieceFloats);
  const auto n_bytes = static_cast<size_t>(n_pieces * kPieceFloats) * sizeof(float);
  // Large pages, as the weights that are read into memory have: with small ones the translation of
  // addresses, not the memory, sets the pace on some machines.
  ASSIGN_OR_RETURN(PageMemory memory, PageMemory::allocate(n_bytes));
  auto* values = reinterpret_cast<float*>(memory.data());
  // Untouched pages all map to one page of zeros, which would stay in the cache.
  threads->parallel_for(n_pieces, [&](int64_t piece, int /*thread*/) {
    std::fill_n(values + piece * kPieceFloats, kPieceFloats, 1.0F);
  });
  return BandwidthProbe(threads, std::move(memory), n_pieces);
}

size_t BandwidthProbe::bytes() const {
  return sums_.size() * static_cast<size_t>(kPieceFloats) * sizeof(float);
}

double BandwidthProbe::measure(double seconds) {
  CpuKernels kernels;
  CHECK(cpu_kernels_at(0, kernels)) << "a build has one instruction set at least";
  const auto* values = reinterpret_cast<const float*>(memory_.data());
  const auto n_pieces = static_cast<int64_t>(sums_.size());
  const double begin = monotonic_seconds();
  double taken = 0;
  size_t passes = 0;
  while (passes < kLeastPasses || (taken < seconds && passes < kMostPasses)) {
    threads_->parallel_for(n_pieces, [&](int64_t piece, int /*thread*/) {
      sums_[static_cast<size_t>(piece)] =
          kernels.step->read(values + piece * kPieceFloats, kPieceFloats);
    });
    CHECK(sums_[0] == static_cast<float>(kPieceFloats)) << sums_[0];
    taken = monotonic_seconds() - begin;
    ++passes;
  }
  return static_cast<double>(passes * bytes()) / std::max(taken, 1e-9);
}

Result<double> measure_read_bandwidth(ThreadPool& threads, size_t bytes, double seconds) {
  ASSIGN_OR_RETURN(BandwidthProbe probe, BandwidthProbe::make(&threads, bytes));
  return probe.measure(seconds);
}

double ProbedWork::total_seconds() const {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

double ProbedWork::bandwidth() const {
  CHECK(seconds.empty() || probes.size() == seconds.size() + 1) << probes.size();
  double bytes_given = 0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    bytes_given += seconds[i] * (probes[i] + probes[i + 1]) / 2;
  }
  const double total = total_seconds();
  return total > 0 ? bytes_given / total : 0;
}

double ProbedWork::share() const {
  const double given = bandwidth() * total_seconds();
  return given > 0 ? bytes / given : 0;
}

}  // namespace logitlab
