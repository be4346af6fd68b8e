// Matrix-vector products per type of weight in bytes of weights per second, to be held against the
// read bandwidth; prefill of one layer in operations per second; attention.
#include <cstdio>

#include <benchmark/benchmark.h>

#include "backend/bandwidth.h"
#include "backend/testing.h"
#include "base/env.h"

namespace logitlab {
namespace {

constexpr int64_t kIn = 1536;
constexpr int64_t kPart = 1536;
constexpr int kThreads = 2;

// All weights of a step are read once, so the matrices here are more than the last cache holds.
void gemv(benchmark::State& state, DType dtype) {
  const auto backend = std::move(make_backend("cpu")).value();
  ThreadPool threads(kThreads);
  ExecContext context{*backend, threads};
  const auto n_matrices =
      static_cast<int64_t>((size_t{256} << 20) / (row_bytes(dtype, kIn) * size_t{kPart}));
  const RandomWeight weight(dtype, n_matrices * kPart, kIn, 1);
  const std::vector<float> x = random_floats(kIn, 2);
  std::vector<float> out(kPart);
  for (auto _ : state) {
    for (int64_t i = 0; i < n_matrices; ++i) {
      LinearPart part;
      part.weight = Tensor{weight.tensor().row(i * kPart), dtype, {kPart, kIn}};
      part.out = out.data();
      backend->linear(context, x.data(), 1, {&part, 1});
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(weight.tensor().bytes()));
}

void read_bandwidth(benchmark::State& state) {
  ThreadPool threads(kThreads);
  double rate = 0;
  for (auto _ : state) {
    rate = measure_read_bandwidth(threads, size_t{512} << 20, 1.0).value_or(0);
  }
  state.counters["bytes_per_second"] =
      benchmark::Counter(rate, benchmark::Counter::kDefaults, benchmark::Counter::kIs1024);
}

void gemm(benchmark::State& state, DType dtype) {
  const auto backend = std::move(make_backend("cpu")).value();
  ThreadPool threads(kThreads);
  ExecContext context{*backend, threads};
  const int64_t rows = state.range(0);
  const int64_t in = state.range(1);
  const int64_t n_out = state.range(2);
  const RandomWeight weight(dtype, n_out, in, 1);
  const std::vector<float> x = random_floats(rows * in, 2);
  std::vector<float> out(static_cast<size_t>(rows * n_out));
  LinearPart part;
  part.weight = weight.tensor();
  part.out = out.data();
  for (auto _ : state) {
    backend->linear(context, x.data(), rows, {&part, 1});
  }
  state.counters["flops"] = benchmark::Counter(static_cast<double>(2 * rows * in * n_out),
                                               benchmark::Counter::kIsIterationInvariantRate);
}

void attention(benchmark::State& state) {
  const auto backend = std::move(make_backend("cpu")).value();
  ThreadPool threads(kThreads);
  ExecContext context{*backend, threads};
  const AttentionShape shape{9, 3, 64, 0.125F};
  const int64_t n_rows = state.range(0);
  const int64_t positions = state.range(1);
  const RandomKv kv(positions, 64, 3, 64, 1);
  std::vector<AttentionRow> rows;
  for (int64_t r = 0; r < n_rows; ++r) {
    rows.push_back({&kv.view(), 0, positions - n_rows + r});
  }
  const std::vector<float> q = random_floats(n_rows * 576, 2);
  std::vector<float> out(q.size());
  for (auto _ : state) {
    backend->attention(context, q.data(), rows, shape, out.data());
  }
}

const bool kRegistered = [] {
  benchmark::RegisterBenchmark("read_bandwidth", read_bandwidth)->Iterations(1)->UseRealTime();
  for (const DType dtype : kWeightTypes) {
    benchmark::RegisterBenchmark(("gemv/" + std::string(name(dtype))).c_str(), gemv, dtype)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  for (const DType dtype : {DType::kBF16, DType::kQ4_1, DType::kQ6_K}) {
    benchmark::RegisterBenchmark(("gemm/" + std::string(name(dtype))).c_str(), gemm, dtype)
        ->Args({512, 576, 1536})
        ->Args({512, 1536, 576})
        ->Args({512, 4096, 4096})
        ->Args({8, 576, 1536})
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::RegisterBenchmark("attention", attention)
      ->Args({1, 512})
      ->Args({1, 4096})
      ->Args({512, 512})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
  return true;
}();

}  // namespace
}  // namespace logitlab

BENCHMARK_MAIN();
