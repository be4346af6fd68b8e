// Matrix-vector products per type of weight in bytes of weights per second, to be held against the
// read bandwidth; prefill of one layer in operations per second; attention.
#include <benchmark/benchmark.h>

#include "backend/bandwidth.h"
#include "backend/testing.h"
#include "base/env.h"

namespace logitlab {
namespace {

constexpr int64_t kIn = 1536;
constexpr int64_t kPart = 1536;

// The last argument of every bench is the number of threads: with one, CPU time is the time of the
// kernel even on a busy machine.
ThreadPool threads_of(const benchmark::State& state, int index) {
  return ThreadPool(static_cast<int>(state.range(static_cast<size_t>(index))));
}

// All weights of a step are read once, so the matrices here are more than the last cache holds.
void gemv(benchmark::State& state, DType dtype) {
  const auto backend = std::move(make_backend("cpu")).value();
  ThreadPool threads = threads_of(state, 0);
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
  ThreadPool threads = threads_of(state, 0);
  double rate = 0;
  for (auto _ : state) {
    rate = measure_read_bandwidth(threads, size_t{512} << 20, 1.0).value_or(0);
  }
  state.counters["bytes_per_second"] =
      benchmark::Counter(rate, benchmark::Counter::kDefaults, benchmark::Counter::kIs1024);
}

void gemm(benchmark::State& state, DType dtype) {
  const auto backend = std::move(make_backend("cpu")).value();
  ThreadPool threads = threads_of(state, 3);
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
  ThreadPool threads = threads_of(state, 2);
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

}  // namespace

void register_all() {
  benchmark::RegisterBenchmark("read_bandwidth", read_bandwidth)
      ->Arg(1)
      ->Arg(2)
      ->Iterations(1)
      ->UseRealTime();
  for (const DType dtype : kWeightTypes) {
    benchmark::RegisterBenchmark(("gemv/" + std::string(name(dtype))).c_str(), gemv, dtype)
        ->Arg(1)
        ->Arg(2)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  for (const DType dtype : {DType::kBF16, DType::kQ4_1}) {
    benchmark::RegisterBenchmark(("gemm/" + std::string(name(dtype))).c_str(), gemm, dtype)
        ->ArgsProduct({{512, 8, 2}, {576}, {1536}, {1, 2}})
        ->ArgsProduct({{512}, {1536}, {576}, {1, 2}})
        ->ArgsProduct({{512}, {4096}, {4096}, {1}})
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::RegisterBenchmark("attention", attention)
      ->ArgsProduct({{1}, {512, 4096}, {1, 2}})
      ->ArgsProduct({{512}, {512}, {1, 2}})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace logitlab

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  logitlab::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
