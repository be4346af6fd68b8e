// Checks and times prefill.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -Isrc -Ibench/cuda
//     bench/cuda/prefill_check.cu src/backend/cuda/prefill*.cu -o prefill_check
//   prefill_check check [products|mamba|attention|mixtures|stack|small]
//   prefill_check products
//   prefill_check bench [--json FILE] [--kinds] [--rows 512,2048,8192] [--start N]
//
// check: products alone over all tiles and sinks, then tiny models of every kind of layer against
// prefill_reference.h, in several cuttings. Bounds: see kUnit. small, which is in none of the
// others: a product of each tile and one short stack, for tools that watch every access.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime.h>

#include "backend/cuda/prefill.h"
#include "backend/cuda/prefill_ops.h"
#include "full_model.h"
#include "prefill_reference.h"
#include "tiny_models.h"

namespace logitlab::cuda {
namespace {

using chunk::DeviceLimits;
using chunk::kProductTiles;
using chunk::multiply_rows;
using chunk::prefill_probed;
using chunk::PrefillProbe;
using chunk::Product;
using chunk::read_limits;
using chunk::Sink;

// The most that rounding to BF16 (8 bits of mantissa) changes a number, relative to it. A matrix
// of independent weights carries a relative error (in the 2-norm) from its input to its output with
// a factor near 1, as do norms, convolution, scan, SiLU and softmax averages; relu^2 doubles it,
// but errors of roundings are independent and on average half as large. A branch with R roundings
// in a row is off by at most R kUnit, and errors of layers add: the bound of "unrounded".
constexpr double kUnit = 1.0 / 256;

// Against the reference that rounds at the same places only those roundings remain that noise
// pushes to the other side. Noise of relative size v does that to a share v / kUnit of the values,
// which then are off by up to 2 kUnit: 2 sqrt(v kUnit) in the 2-norm. v = 2^-16 (sums of float32,
// and of split products, where parts of 2^-17 are left out) gives 4.9e-4 per rounding of a first
// layer. Later layers have that as their v, so that a stack keeps the bound of "unrounded". The
// weights of attention are not rounded by the reference: kUnit.
constexpr double kMoved = 4.9e-4;

int n_failures = 0;

void report(const std::string& name, double error, double bound) {
  const bool is_good = error <= bound;  // false for NaN
  n_failures += is_good ? 0 : 1;
  std::printf("%-58s %.2e  bound %.2e  %s\n", name.c_str(), error, bound, is_good ? "ok" : "BAD");
}

// ||a - b|| / ||b - base||.
double distance(const std::vector<double>& a, const std::vector<double>& b,
                const std::vector<double>* base = nullptr) {
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double whole = b[i] - (base != nullptr ? (*base)[i] : 0.0);
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += whole * whole;
  }
  return b.empty() ? 0 : std::sqrt(error / std::max(size, 1e-300));
}

template <typename T>
std::vector<double> widen(const std::vector<T>& values) {
  std::vector<double> wide;
  for (const T value : values) {
    wide.push_back(static_cast<double>(static_cast<float>(value)));
  }
  return wide;
}

// What a run of prefill leaves.
struct Outcome {
  std::vector<float> residual;
  std::vector<float> conv;
  std::vector<float> ssm;
  std::vector<double> keys;  // of all attention layers, as reference::State has them
  std::vector<double> values;
};

bool operator==(const Outcome& a, const Outcome& b) {
  const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  };
  return same(a.residual, b.residual) && same(a.conv, b.conv) && same(a.ssm, b.ssm) &&
         a.keys == b.keys && a.values == b.values;
}

void read_pages(const ModelView& model, const DeviceSequence& s, int n, Outcome* outcome) {
  const KvPool& kv = model.kv;
  const auto pages = download(s.pages, s.n_pages * kv.page_elements());
  for (int layer = 0; layer < kv.n_layers; ++layer) {
    for (int i = 0; i < n * kv.n_kv_heads * kv.head_dim; ++i) {
      const int position = i / (kv.n_kv_heads * kv.head_dim);
      const int head = i / kv.head_dim % kv.n_kv_heads;
      for (int value = 0; value < 2; ++value) {
        const int64_t at = kv.at(s.table[position / kPagePositions], layer, value, head) -
                           kv.pages + position % kPagePositions * kv.head_dim + i % kv.head_dim;
        (value == 0 ? outcome->keys : outcome->values)
            .push_back(static_cast<double>(__bfloat162float(pages[at])));
      }
    }
  }
}

// Runs the ids in chunks; work space, residual and pages hold NaN before.
Outcome run_chunks(ModelView* model, const std::vector<int>& ids, const std::vector<int>& chunks) {
  const int n = static_cast<int>(ids.size());
  DeviceSequence s(model, n);
  DeviceArrays arrays;
  const int* const device_ids = arrays.upload(ids);
  const int64_t d = model->hidden_size;
  auto* const residual = arrays.make<float>(n * d);
  require(cudaMemset(residual, 0xff, n * d * sizeof(float)), "memset");
  const size_t bytes =
      prefill_workspace_bytes(*model, *std::max_element(chunks.begin(), chunks.end()));
  auto* const workspace = arrays.make<char>(static_cast<int64_t>(bytes));
  for (const int rows : chunks) {
    require(cudaMemset(workspace, 0xff, bytes), "memset");
    const int at = s.sequence.length;
    require(
        prefill(*model, s.sequence, device_ids + at, rows, workspace, residual + at * d, nullptr),
        "prefill");
    s.sequence.length += rows;
  }
  require(cudaDeviceSynchronize(), "prefill");
  Outcome outcome;
  outcome.residual = download(residual, n * d);
  outcome.conv = download(s.sequence.conv, s.sizes.conv);
  outcome.ssm = download(s.sequence.ssm, s.sizes.ssm);
  read_pages(*model, s, n, &outcome);
  return outcome;
}

struct Bounds {
  double unrounded = 0;
  double rounded = 0;
};

// See kUnit and kMoved.
Bounds bounds_of(const ModelView& model) {
  Bounds bounds;
  for (const Layer& layer : model.layers) {
    const bool is_attention = layer.kind == LayerKind::kAttention;
    const bool has_latent = layer.kind == LayerKind::kMoe && layer.moe.has_latent;
    // Input of the layer and of its last matrix; queries, keys and values; latent input and sum.
    const int roundings = is_attention ? 3 : has_latent ? 4 : 2;
    const int weights = is_attention ? 1 : 0;
    bounds.unrounded += (roundings + weights) * kUnit;
    bounds.rounded += roundings * kMoved + weights * kUnit;
  }
  if (model.layers.size() > 1) {
    bounds.rounded = bounds.unrounded;
  }
  return bounds;
}

// The rows of all ids cut into chunks of at most `size`, after first ones of `head` rows.
std::vector<int> cut(int n, std::vector<int> head, int size) {
  for (const int rows : head) {
    n -= rows;
  }
  for (; n > 0; n -= size) {
    head.push_back(std::min(n, size));
  }
  return head;
}

std::vector<double> flatten(const std::vector<std::vector<double>>& parts) {
  std::vector<double> all;
  for (const auto& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

void check_model(const std::string& name, TinyModels* tiny, int n) {
  ModelView& model = tiny->model;
  std::vector<int> ids(static_cast<size_t>(n));
  for (int& id : ids) {
    id = static_cast<int>(tiny->uniform(0, 0.999F) * static_cast<float>(model.vocab_size));
  }
  const StateSizes sizes(model);
  const Bounds bounds = bounds_of(model);
  std::vector<double> embedded;
  reference::State state;
  std::vector<double> exact;
  std::vector<double> wanted;
  for (const bool rounds : {false, true}) {
    state.conv.assign(static_cast<size_t>(sizes.conv), 0);
    state.ssm.assign(static_cast<size_t>(sizes.ssm), 0);
    state.keys.assign(static_cast<size_t>(model.kv.n_layers), {});
    state.values = state.keys;
    (rounds ? wanted : exact) =
        reference::Reference(model, tiny->mirror, rounds).run(ids, &state, &embedded);
  }
  const std::vector<std::vector<int>> cuttings = {
      {n}, cut(n, {1, 2, 1}, 64), cut(n, {}, 37), cut(n, {n / 2 + 1}, 128)};
  for (size_t i = 0; i < cuttings.size(); ++i) {
    const Outcome outcome = run_chunks(&model, ids, cuttings[i]);
    const std::string label = name + ", " + std::to_string(cuttings[i].size()) + " chunks";
    report(label, distance(widen(outcome.residual), wanted, &embedded), bounds.rounded);
    report(label + ", unrounded", distance(widen(outcome.residual), exact, &embedded),
           bounds.unrounded);
    const double states = std::max(distance(widen(outcome.conv), state.conv),
                                   distance(widen(outcome.ssm), state.ssm));
    const double pages = std::max(distance(outcome.keys, flatten(state.keys)),
                                  distance(outcome.values, flatten(state.values)));
    report(label + ", states and pages", states + pages, bounds.rounded);
    if (i == 0) {
      // Not promised: scan and attention cut the positions themselves at multiples of 32 and 64.
      const bool is_same = run_chunks(&model, ids, cut(n, {}, 64)) == outcome;
      std::printf("%s: %s in chunks of 64\n", name.c_str(), is_same ? "same bits" : "other bits");
    }
    if (i == 1) {
      report(label + ", repeated", run_chunks(&model, ids, cuttings[i]) == outcome ? 0 : 1, 0);
    }
  }
}

void check_mamba() {
  const auto check = [](const char* name, int d, int n, auto... options) {
    TinyModels tiny(11);
    tiny.begin(d, 50);
    tiny.add_mamba(options...);
    check_model(name, &tiny, n);
  };
  check("mamba 4x16, state 16", 64, 150, 4, 16, 16, 2, 4, false, 0.0F, INFINITY);
  check("mamba 8x64, state 128, biases, clamp", 128, 300, 8, 64, 128, 2, 4, true, 0.02F, 0.2F);
  check("mamba 6x20, state 24, 3 taps", 72, 77, 6, 20, 24, 3, 3, true, 0.0F, INFINITY);
  check("mamba 8x40, state 9, 1 tap", 64, 70, 8, 40, 9, 4, 1, true, 0.0F, INFINITY);
  check("mamba 2x96, state 256, 2 taps", 64, 70, 2, 96, 256, 1, 2, false, 0.0F, INFINITY);
}

void check_attention() {
  const auto check = [](const char* name, int n, int rotary, bool interleaved, auto... options) {
    TinyModels tiny(12);
    tiny.begin(96, 60);
    if (rotary > 0) {
      tiny.set_rope(rotary, interleaved, 1.1F);
    }
    tiny.add_attention(options...);
    check_model(name, &tiny, n);
  };
  check("attention 8/2x128", 333, 0, false, 8, 2, 128, 0, false, false, false);
  check("attention 4/4x64, rope, norms, biases, window", 300, 64, false, 4, 4, 64, 50, true, true,
        true);
  check("attention 6/2x32, interleaved rope of 16", 200, 16, true, 6, 2, 32, 0, true, false, true);
  check("attention 3/1x16, window 1", 70, 0, false, 3, 1, 16, 1, false, true, false);
  check("attention 2/1x256, rope of 64", 150, 64, false, 2, 1, 256, 100, true, true, false);
  check("attention 2/1x80", 150, 80, true, 2, 1, 80, 64, true, false, false);
}

void check_mixtures() {
  {
    TinyModels tiny(13);
    tiny.begin(64, 200);
    tiny.add_moe(8, 2, 1, 1, 48, 0, Gate::kRelu2, true, false);
    check_model("moe 8 by 2", &tiny, 300);
  }
  {
    TinyModels tiny(14);
    tiny.begin(128, 200);
    tiny.add_moe(128, 6, 1, 1, 40, 0, Gate::kRelu2, true, false);
    tiny.share(136, Gate::kRelu2, false);
    check_model("moe 128 by 6, shared", &tiny, 500);
  }
  {
    TinyModels tiny(15);
    tiny.begin(72, 200);
    tiny.add_moe(16, 3, 4, 2, 56, 32, Gate::kSilu, false, false);
    tiny.share(88, Gate::kSiluMul, true);
    check_model("moe 16 by 3, 4 groups keep 2, latent, shared", &tiny, 200);
  }
  {
    TinyModels tiny(16);
    tiny.begin(64, 200);
    tiny.add_moe(5, 5, 1, 1, 24, 0, Gate::kSilu, true, false);
    check_model("moe 5 by 5", &tiny, 90);
  }
  for (const Gate gate : {Gate::kRelu2, Gate::kSilu, Gate::kSiluMul}) {
    TinyModels tiny(17);
    tiny.begin(80, 100);
    tiny.add_mlp(152, gate, gate != Gate::kSilu);
    check_model("mlp, gate " + std::to_string(static_cast<int>(gate)), &tiny, 210);
  }
}

void check_stack() {
  TinyModels tiny(18);
  tiny.begin(128, 300);
  tiny.add_mamba(8, 32, 64, 2, 4, true, 0.0F, INFINITY);
  tiny.add_moe(16, 3, 1, 1, 64, 0, Gate::kRelu2, true, true);
  tiny.share(72, Gate::kRelu2, false);
  tiny.add_attention(4, 2, 32, 0, false, false, false);
  tiny.add_mlp(192, Gate::kSiluMul, false);
  tiny.add_mamba(8, 32, 64, 2, 4, true, 0.0F, INFINITY);
  tiny.add_attention(4, 2, 32, 0, false, false, false);
  check_model("stack M E * - M *", &tiny, 400);
}

// One product with device arrays and the double-precision sums of its parts.
struct ProductCase {
  int m, n, k;
  bool has_low, is_grouped;
};

// Values of a sink in double from sums [m, width].
double through(Sink sink, double left, double right) {
  switch (sink) {
    case Sink::kRelu2:
      return std::max(left, 0.0) * std::max(left, 0.0);
    case Sink::kSilu:
      return reference::silu(left);
    case Sink::kSiluMul:
      return reference::silu(left) * right;
    default:
      return left;
  }
}

// The device arrays of a case.
struct ProductArrays {
  Product product;
  std::vector<int> sources;  // row of a of each row of the product
  std::vector<int> offsets;  // rows of each group of b
  std::vector<float> old;    // what `out` holds before
};

ProductArrays make_product(const ProductCase& c, Sink sink, TinyModels* tiny,
                           DeviceArrays* arrays) {
  ProductArrays data;
  const int width = sink == Sink::kSiluMul ? 2 * c.n : c.n;
  const int a_rows = c.is_grouped ? c.m / 2 + 1 : c.m;
  data.offsets = {0, 3, 3, c.m / 3, c.m / 3 + 64, c.m};
  std::vector<int> tiles[2] = {{0}, {0}};
  for (int r = 0; r < c.m; ++r) {
    data.sources.push_back(c.is_grouped ? r * 7 % a_rows : r);
  }
  for (int g = 0; g < 5; ++g) {
    const int rows = data.offsets[g + 1] - data.offsets[g];
    tiles[0].push_back(tiles[0].back() + (rows + 63) / 64);
    tiles[1].push_back(tiles[1].back() + (rows + 127) / 128);
  }
  Product& p = data.product;
  p.ldo = (c.n + 7) / 8 * 8;
  data.old.assign(static_cast<size_t>(c.m) * p.ldo, 0.5F);
  p.a = tiny->weights(int64_t{a_rows} * c.k, 1);
  p.a_low = c.has_low ? tiny->weights(int64_t{a_rows} * c.k, 0.004F) : nullptr;
  p.lda = c.k;
  p.b = tiny->weights(int64_t{c.is_grouped ? 5 : 1} * width * c.k, 1);
  p.b_stride = int64_t{width} * c.k;
  p.out = arrays->upload(data.old);
  p.m = c.m;
  p.n = c.n;
  p.k = c.k;
  p.sink = sink;
  if (c.is_grouped) {
    p.a_rows = arrays->upload(data.sources);
    p.groups = {arrays->upload(data.offsets), arrays->upload(tiles[0]), arrays->upload(tiles[1]),
                5};
  } else {
    p.bias = tiny->floats(width, -1, 1);
  }
  return data;
}

// A sum and the sum of its terms' sizes.
struct Sum {
  double value = 0;
  double size = 0;
};

Sum sum_of(const ProductArrays& data, const reference::Mirror& mirror, int row, int64_t b_row,
           int bias_index) {
  const Product& p = data.product;
  const auto* const a = mirror.host(p.a) + int64_t{data.sources[row]} * p.k;
  const auto* const low =
      p.a_low == nullptr ? nullptr : mirror.host(p.a_low) + int64_t{data.sources[row]} * p.k;
  const auto* const b = mirror.host(p.b) + b_row * p.k;
  Sum sum;
  sum.value = p.bias != nullptr ? mirror.host(p.bias)[bias_index] : 0;
  sum.size = std::fabs(sum.value);
  for (int i = 0; i < p.k; ++i) {
    double x = __bfloat162float(a[i]);
    x += low != nullptr ? double{__bfloat162float(low[i])} : 0.0;
    const double term = x * double{__bfloat162float(b[i])};
    sum.value += term;
    sum.size += std::fabs(term);
  }
  return sum;
}

// Compares element by element. A sum of K products in float32 is off by at most K 2^-23 times the
// sum of their sizes, whatever its order; the sink's slope (2 s for relu^2, under 1.1 for SiLU,
// times the other factor) carries that on, and a BF16 result is rounded once more.
void check_product(const DeviceLimits& limits, const ProductCase& c, Sink sink, int tile) {
  TinyModels tiny(100 + static_cast<uint64_t>(sink));
  DeviceArrays arrays;
  const ProductArrays data = make_product(c, sink, &tiny, &arrays);
  const Product& p = data.product;
  require(multiply_rows(limits, p, nullptr, tile), "product");
  require(cudaDeviceSynchronize(), "product");
  const auto floats = download(static_cast<const float*>(p.out), data.old.size());
  const auto* const halves = reinterpret_cast<const __nv_bfloat16*>(floats.data());
  const bool is_float = sink == Sink::kFloat || sink == Sink::kAdd;
  const int width = sink == Sink::kSiluMul ? 2 * c.n : c.n;
  const double noise = (c.k + 8) * std::ldexp(1.0, -23);
  double worst = 0;  // of error over bound
  for (int r = 0; r < c.m; ++r) {
    int group = 0;
    while (c.is_grouped && data.offsets[group + 1] <= r) {
      ++group;
    }
    for (int o = 0; o < c.n; ++o) {
      const int64_t b_row = int64_t{group} * width + o;
      const Sum left = sum_of(data, tiny.mirror, r, b_row, o);
      Sum right;
      double slope = sink == Sink::kRelu2 ? 2 * std::fabs(left.value) + 1 : 1.1;
      if (sink == Sink::kSiluMul) {
        right = sum_of(data, tiny.mirror, r, b_row + c.n, o + c.n);
        slope = 1.1 * std::fabs(right.value) + 1;
      }
      const double wanted =
          through(sink, left.value, right.value) + (sink == Sink::kAdd ? 0.5 : 0.0);
      const double bound = 1e-6 + noise * (left.size * slope + right.size * std::fabs(left.value)) +
                           (is_float ? 1e-7 : kUnit * 1.01) * std::fabs(wanted);
      const size_t at = static_cast<size_t>(r) * p.ldo + o;
      const double got = is_float ? double{floats[at]} : double{__bfloat162float(halves[at])};
      const double error = std::fabs(got - wanted) / bound;
      worst = error <= worst ? worst : error;
    }
  }
  report("product " + std::to_string(c.m) + "x" + std::to_string(c.n) + "x" + std::to_string(c.k) +
             (c.is_grouped ? " grouped" : "") + (c.has_low ? " low" : "") + ", sink " +
             std::to_string(static_cast<int>(sink)) + ", tile " + std::to_string(tile),
         worst, 1);
}

void check_products() {
  DeviceLimits limits;
  require(read_limits(&limits), "device");
  limits.n_processors = 3;  // blocks that walk over several tiles
  for (int tile = 0; tile < kProductTiles; ++tile) {
    for (const Sink sink :
         {Sink::kFloat, Sink::kAdd, Sink::kBf16, Sink::kRelu2, Sink::kSilu, Sink::kSiluMul}) {
      check_product(limits, {301, 331, 200, sink == Sink::kFloat, false}, sink, tile);
      check_product(limits, {290, 272, 72, false, true}, sink, tile);
    }
    check_product(limits, {5, 3, 8, false, false}, Sink::kFloat, tile);
    check_product(limits, {2300, 520, 136, true, false}, Sink::kFloat, tile);
  }
}

void check_small() {
  DeviceLimits limits;
  require(read_limits(&limits), "device");
  limits.n_processors = 3;
  for (int tile = 0; tile < kProductTiles; ++tile) {
    check_product(limits, {150, 72, 72, false, true}, Sink::kAdd, tile);
    check_product(limits, {70, 72, 72, true, false}, Sink::kFloat, tile);
  }
  TinyModels tiny(28);
  tiny.begin(64, 100);
  tiny.add_mamba(4, 32, 64, 2, 4, true, 0.02F, 0.2F);
  tiny.add_moe(16, 3, 4, 2, 56, 32, Gate::kSilu, false, false);
  tiny.share(72, Gate::kSiluMul, false);
  tiny.add_attention(4, 2, 64, 50, false, true, true);
  tiny.add_mlp(96, Gate::kRelu2, false);
  check_model("stack M E * -", &tiny, 100);
}

// Sums of times between kinds of work, by events.
class EventProbe final : public PrefillProbe {
 public:
  EventProbe() { queued("", nullptr); }
  ~EventProbe() override {
    for (const auto& [kind, event] : marks_) {
      cudaEventDestroy(event);
    }
  }

  void queued(const char* kind, cudaStream_t stream) override {
    cudaEvent_t event = nullptr;
    require(cudaEventCreate(&event), "event");
    require(cudaEventRecord(event, stream), "event");
    marks_.emplace_back(kind, event);
  }

  std::map<std::string, double> milliseconds() const {
    std::map<std::string, double> sums;
    for (size_t i = 1; i < marks_.size(); ++i) {
      float time = 0;
      require(cudaEventElapsedTime(&time, marks_[i - 1].second, marks_[i].second), "event");
      sums[marks_[i].first] += time;
    }
    return sums;
  }

 private:
  std::vector<std::pair<std::string, cudaEvent_t>> marks_;
};

struct BenchOptions {
  std::vector<int> rows = {512, 2048, 8192};
  int start = 0;
  bool shows_kinds = false;
  std::string json;
};

// Multiplications and additions of one chunk's matrices and attention.
double operations(const ModelView& model, double rows, double start) {
  double sum = 0;
  const auto dense = [&](const Matrix& m) { sum += 2.0 * rows * m.rows * m.columns; };
  for (const Layer& layer : model.layers) {
    switch (layer.kind) {
      case LayerKind::kMamba:
        dense(layer.mamba.in_proj);
        dense(layer.mamba.out_proj);
        break;
      case LayerKind::kAttention:
        dense(layer.attention.qkv);
        dense(layer.attention.o);
        sum += 4.0 * layer.attention.n_heads * layer.attention.head_dim * rows *
               (start + (rows + 1) / 2);
        break;
      case LayerKind::kMoe:
        dense(layer.moe.router);
        dense(layer.moe.shared.up);
        dense(layer.moe.shared.down);
        sum += 4.0 * rows * layer.moe.n_chosen * layer.moe.f * layer.moe.w;
        break;
      case LayerKind::kMlp:
        break;
    }
  }
  return sum;
}

// Milliseconds of what `queue` queues.
template <typename Queue>
double time_of(const Queue& queue) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  require(cudaEventCreate(&begin), "event");
  require(cudaEventCreate(&end), "event");
  require(cudaEventRecord(begin), "event");
  queue();
  require(cudaEventRecord(end), "event");
  require(cudaEventSynchronize(end), "run");
  float time = 0;
  require(cudaEventElapsedTime(&time, begin, end), "event");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return time;
}

// The target model with a sequence and its buffers.
class Bench {
 public:
  explicit Bench(const BenchOptions& options)
      : options_(options),
        most_(*std::max_element(options.rows.begin(), options.rows.end())),
        sequence_(&full_.model, options.start + most_) {
    const ModelView& model = full_.model;
    fill_kernel<<<2048, 256>>>(sequence_.pages, sequence_.n_pages * model.kv.page_elements(), -1.0F,
                               1.0F, 3);
    sequence_.sequence.length = options.start;
    std::vector<int> ids(static_cast<size_t>(most_));
    for (int i = 0; i < most_; ++i) {
      ids[i] = static_cast<int>((i * 7919LL + 13) % model.vocab_size);
    }
    ids_ = arrays_.upload(ids);
    residual_ = arrays_.make<float>(int64_t{most_} * model.hidden_size);
    workspace_ = arrays_.make<char>(static_cast<int64_t>(prefill_workspace_bytes(model, most_)));
  }

  void run_chunk(int rows, PrefillProbe* probe) {
    require(prefill_probed(full_.model, sequence_.sequence, ids_, rows, workspace_, residual_,
                           nullptr, probe),
            "prefill");
  }

  // A JSON object; also prints it for people.
  std::string measure(int rows) {
    std::vector<double> times;
    for (int i = 0; i < 7; ++i) {
      times.push_back(time_of([&] { run_chunk(rows, nullptr); }));
    }
    std::sort(times.begin() + 2, times.end());  // the first two are warm-up
    const double ms = times[4];
    const double rate = operations(full_.model, rows, options_.start) / ms / 1e9;
    std::printf("rows %5d start %d: %8.3f ms (%.3f to %.3f)  %8.0f tokens/s  %6.1f TFLOP/s\n", rows,
                options_.start, ms, times[2], times.back(), rows / ms * 1e3, rate);
    char line[256];
    std::snprintf(line, sizeof(line),
                  "{\"rows\": %d, \"start\": %d, \"ms\": %.4f, \"tokens_per_s\": %.1f, "
                  "\"tflop_per_s\": %.2f, \"kinds_ms\": {",
                  rows, options_.start, ms, rows / ms * 1e3, rate);
    return std::string(line) + (options_.shows_kinds ? measure_kinds(rows) : "") + "}}";
  }

  bool is_finite() const {
    const auto values =
        download(residual_, int64_t{options_.rows.back()} * full_.model.hidden_size);
    std::printf("residual: first %.6g last %.6g\n", values.front(), values.back());
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
  }

 private:
  std::string measure_kinds(int rows) {
    EventProbe probe;
    run_chunk(rows, &probe);
    require(cudaDeviceSynchronize(), "prefill");
    std::string json;
    for (const auto& [kind, time] : probe.milliseconds()) {
      std::printf("  %-18s %8.3f ms\n", kind.c_str(), time);
      json += (json.empty() ? "\"" : ", \"") + kind + "\": " + std::to_string(time);
    }
    return json;
  }

  const BenchOptions& options_;
  int most_;
  FullModel full_;
  DeviceSequence sequence_;
  DeviceArrays arrays_;
  const int* ids_ = nullptr;
  float* residual_ = nullptr;
  char* workspace_ = nullptr;
};

int run_bench(const BenchOptions& options) {
  Bench bench(options);
  std::string json;
  for (const int rows : options.rows) {
    json += (json.empty() ? "" : ", ") + bench.measure(rows);
  }
  if (!options.json.empty()) {
    std::FILE* const file = std::fopen(options.json.c_str(), "w");
    if (file == nullptr) {
      return 2;
    }
    std::fputs(("{\"runs\": [" + json + "]}\n").c_str(), file);
    std::fclose(file);
  }
  const bool is_finite = bench.is_finite();
  std::printf("residual is %s\n", is_finite ? "finite" : "NOT FINITE");
  return is_finite ? 0 : 1;
}

// Times products of the target model's shapes with every tile.
int run_products() {
  DeviceLimits limits;
  require(read_limits(&limits), "device");
  struct Case {
    const char* name;
    int n, k;
    Sink sink;
  };
  DeviceArrays arrays;
  const int64_t most = int64_t{10304} * 4096;
  auto* const a = arrays.make<__nv_bfloat16>(most);
  auto* const b = arrays.make<__nv_bfloat16>(most);
  auto* const out = arrays.make<float>(int64_t{kMaxPrefillRows} * 10304);
  fill_kernel<<<2048, 256>>>(a, most, -1.0F, 1.0F, 1);
  fill_kernel<<<2048, 256>>>(b, most, -0.03F, 0.03F, 2);
  for (const Case& c :
       {Case{"mamba in", 10304, 2688, Sink::kFloat}, Case{"mamba out", 2688, 4096, Sink::kAdd},
        Case{"shared up", 3712, 2688, Sink::kRelu2}, Case{"shared down", 2688, 3712, Sink::kAdd},
        Case{"router", 128, 2688, Sink::kFloat}}) {
    for (const int rows : {512, 2048, 8192}) {
      std::printf("%-12s %5d rows:", c.name, rows);
      for (int tile = 0; tile < kProductTiles; ++tile) {
        Product p;
        p.a = a;
        p.lda = c.k;
        p.b = b;
        p.out = out;
        p.ldo = c.n;
        p.m = rows;
        p.n = c.n;
        p.k = c.k;
        p.sink = c.sink;
        const auto queue = [&] { require(multiply_rows(limits, p, nullptr, tile), "product"); };
        queue();
        const double time = time_of([&] {
          for (int i = 0; i < 5; ++i) {
            queue();
          }
        });
        std::printf("  %d: %7.1f us %4.0f TF", tile, time * 200,
                    2.0 * rows * c.n * c.k * 5 / time / 1e9);
      }
      std::printf("\n");
    }
  }
  return 0;
}

// part: one of the names below, or empty: all of them.
int run_check(const std::string& part) {
  if (part == "small") {
    check_small();
    std::printf("%d failures\n", n_failures);
    return n_failures == 0 ? 0 : 1;
  }
  const std::pair<const char*, void (*)()> parts[] = {{"products", check_products},
                                                      {"mamba", check_mamba},
                                                      {"attention", check_attention},
                                                      {"mixtures", check_mixtures},
                                                      {"stack", check_stack}};
  for (const auto& [name, check] : parts) {
    if (part.empty() || part == name) {
      check();
    }
  }
  std::printf("%d failures\n", n_failures);
  return n_failures == 0 ? 0 : 1;
}

int run(int argc, char** argv) {
  BenchOptions options;
  for (int i = 2; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--kinds") {
      options.shows_kinds = true;
    } else if (flag == "--json" && i + 1 < argc) {
      options.json = argv[++i];
    } else if (flag == "--start" && i + 1 < argc) {
      options.start = std::atoi(argv[++i]);
    } else if (flag == "--rows" && i + 1 < argc) {
      options.rows.clear();
      for (const char* at = argv[++i]; at != nullptr; at = std::strchr(at, ',')) {
        at += *at == ',' ? 1 : 0;
        options.rows.push_back(std::atoi(at));
      }
    }
  }
  const std::string mode = argc > 1 ? argv[1] : "check";
  const std::string part = argc > 2 ? argv[2] : "";
  return mode == "bench"      ? run_bench(options)
         : mode == "products" ? run_products()
                              : run_check(part);
}

}  // namespace
}  // namespace logitlab::cuda

int main(int argc, char** argv) {
  return logitlab::cuda::run(argc, argv);
}
