#include "backend/bandwidth.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/kernels.h"
#include "base/check.h"
#include "base/env.h"
#include "base/file.h"

namespace logitlab {
namespace {

// A piece per task: large enough that handing it out costs nothing, small enough that threads end
// together.
constexpr int64_t kPieceFloats = 1 << 18;
constexpr size_t kLeastPasses = 3;
constexpr size_t kMostPasses = 1000;

}  // namespace

Result<double> measure_read_bandwidth(ThreadPool& threads, size_t bytes, double seconds) {
  CpuKernels kernels;
  CHECK(cpu_kernels_at(0, kernels)) << "a build has one instruction set at least";
  const int64_t n_pieces =
      std::max<int64_t>(1, static_cast<int64_t>(bytes / sizeof(float)) / kPieceFloats);
  const auto n_bytes = static_cast<size_t>(n_pieces * kPieceFloats) * sizeof(float);
  // Large pages, as the weights that are read into memory have: with small ones the translation of
  // addresses, not the memory, sets the pace on some machines.
  ASSIGN_OR_RETURN(PageMemory memory, PageMemory::allocate(n_bytes));
  auto* values = reinterpret_cast<float*>(memory.data());
  // Untouched pages all map to one page of zeros, which would stay in the cache.
  threads.parallel_for(n_pieces, [&](int64_t piece, int /*thread*/) {
    std::fill_n(values + piece * kPieceFloats, kPieceFloats, 1.0F);
  });

  std::vector<float> sums(static_cast<size_t>(n_pieces));
  std::vector<double> rates;
  const double end = monotonic_seconds() + seconds;
  while (rates.size() < kLeastPasses || (monotonic_seconds() < end && rates.size() < kMostPasses)) {
    const double begin = monotonic_seconds();
    threads.parallel_for(n_pieces, [&](int64_t piece, int /*thread*/) {
      sums[static_cast<size_t>(piece)] =
          kernels.step->read(values + piece * kPieceFloats, kPieceFloats);
    });
    const double taken = monotonic_seconds() - begin;
    rates.push_back(static_cast<double>(n_bytes) / std::max(taken, 1e-9));
    CHECK(sums[0] == static_cast<float>(kPieceFloats)) << sums[0];
  }
  std::nth_element(rates.begin(), rates.begin() + static_cast<int64_t>(rates.size() / 2),
                   rates.end());
  return rates[rates.size() / 2];
}

}  // namespace logitlab
