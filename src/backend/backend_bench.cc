// Matrix-vector products per type of weight in bytes of weights per second, to be held against the
// read bandwidth; prefill of one layer in operations per second; attention; a Mamba-2 mixer and the
// experts of a mixture at the size of a 30 G model.
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

// Bytes per second, and what share of the read bandwidth that is.
void count_bytes(benchmark::State& state, ThreadPool& threads, size_t bytes) {
  const double rate = measure_read_bandwidth(threads, size_t{512} << 20, 0.5).value_or(1);
  state.counters["bytes_per_second"] =
      benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate,
                         benchmark::Counter::kIs1024);
  state.counters["of_bandwidth"] = benchmark::Counter(
      static_cast<double>(bytes) / rate, benchmark::Counter::kIsIterationInvariantRate);
}

// One decode step of the experts of some layers: six of [1856, 2688], up and down.
void experts(benchmark::State& state) {
  constexpr int64_t kLayers = 3;
  constexpr int64_t kExperts = 6;
  constexpr int64_t kHidden = 2688;
  constexpr int64_t kWide = 1856;
  const auto backend = std::move(make_backend("cpu")).value();
  ThreadPool threads = threads_of(state, 0);
  ExecContext context{*backend, threads};
  const RandomWeight up(DType::kBF16, kLayers * kExperts * kWide, kHidden, 1);
  const RandomWeight down(DType::kBF16, kLayers * kExperts * kHidden, kWide, 2);
  const std::vector<float> x = random_floats(kHidden, 3);
  std::vector<float> wide(kExperts * kWide);
  std::vector<float> out(kExperts * kHidden);
  for (auto _ : state) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      std::vector<GroupedPart> ups;
      std::vector<GroupedPart> downs;
      for (int64_t e = 0; e < kExperts; ++e) {
        const int64_t index = layer * kExperts + e;
        ups.push_back({Tensor{up.tensor().row(index * kWide), DType::kBF16, {kWide, kHidden}},
                       nullptr, x.data(), 1, wide.data() + e * kWide});
        downs.push_back({Tensor{down.tensor().row(index * kHidden), DType::kBF16, {kHidden, kWide}},
                         nullptr, wide.data() + e * kWide, 1, out.data() + e * kHidden});
      }
      backend->grouped_linear(context, ups);
      backend->activate(context, Activation::kRelu2, wide.data(), kExperts * kWide);
      backend->grouped_linear(context, downs);
    }
  }
  count_bytes(state, threads, up.tensor().bytes() + down.tensor().bytes());
}

// One call a layer with spans of range(0) rows each, range(1) spans. States of all layers together
// are more than the last cache holds, as in a model.
void mamba2(benchmark::State& state) {
  const Mamba2Shape shape = {64, 64, 128, 8, 4};
  const int64_t n_rows = state.range(0);
  const int64_t n_spans = state.range(1);
  const int64_t n_layers = n_rows == 1 ? 23 : 2;
  const auto backend = std::move(make_backend("cpu")).value();
  ThreadPool threads = threads_of(state, 2);
  ExecContext context{*backend, threads};
  const std::vector<float> values = random_floats(shape.conv_size() * 5, 1);
  const std::vector<float> a(static_cast<size_t>(shape.n_heads), -1.0F);
  Mamba2Weights weights;
  weights.conv_weight = values.data();
  weights.conv_bias = values.data() + shape.conv_size() * 4;
  weights.dt_bias = values.data();
  weights.a = a.data();
  weights.d = values.data() + 100;
  weights.norm_weight = values.data() + 200;
  weights.norm_eps = 1e-5F;
  const int64_t conv = (shape.conv_kernel - 1) * shape.conv_size();
  const int64_t ssm = shape.inner_size() * shape.state_size;
  std::vector<float> states(static_cast<size_t>(n_layers * n_spans * (conv + ssm)));
  const std::vector<float> input = random_floats(n_spans * n_rows * shape.projected_size(), 2);
  std::vector<float> projected = input;
  std::vector<float> out(static_cast<size_t>(n_spans * n_rows * shape.inner_size()));
  for (auto _ : state) {
    for (int64_t layer = 0; layer < n_layers; ++layer) {
      std::vector<Mamba2Span> spans;
      for (int64_t i = 0; i < n_spans; ++i) {
        float* own = states.data() + (layer * n_spans + i) * (conv + ssm);
        spans.push_back({i * n_rows, n_rows, own, own + conv});
      }
      state.PauseTiming();
      projected = input;
      state.ResumeTiming();
      backend->mamba2(context, weights, shape, spans, projected.data(), out.data());
    }
  }
  if (n_rows == 1) {
    // Read and written.
    count_bytes(state, threads, 2 * states.size() * sizeof(float));
  }
  state.counters["rows"] = benchmark::Counter(static_cast<double>(n_layers * n_spans * n_rows),
                                              benchmark::Counter::kIsIterationInvariantRate);
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
  benchmark::RegisterBenchmark("experts", experts)
      ->Arg(1)
      ->Arg(2)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
  // Fewer rows than make a chunk go through the recurrence.
  benchmark::RegisterBenchmark("mamba2", mamba2)
      ->ArgsProduct({{1}, {1, 8}, {1, 2}})
      ->ArgsProduct({{4, 8, 12, 15, 16, 24, 32, 64, 512}, {1}, {1}})
      ->ArgsProduct({{512}, {1}, {2}})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
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
