// Checks and times the decode kernels alone.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -Isrc -Ibench/cuda
//     bench/cuda/decode_check.cu src/backend/cuda/decode*.cu src/backend/cuda/decode*.cc
//     -o decode_check
//   decode_check check [layers|stacks]
//   decode_check repeat [--json FILE]
//   decode_check bench [quick|1|64]
//
// check: tiny models of every kind of layer, token by token, against prefill_reference.h without
// its rounding; the same sequences alone and in batches, bit for bit; choices of the device against
// the host's. layers, stacks: as small as the paths of the code allow, for tools that watch every
// access. repeat: 1,000 tokens at batch 1 and 16 twice, bit for bit, and alone as in the batch.
// bench, repeat: Nemotron-3-Nano-30B-A3B at full size with random weights. 1, 64: that batch alone,
// batch 1 by phases; quick: batch 1 without them.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "backend/cuda/decode.h"
#include "backend/cuda/gemv.cuh"
#include "backend/cuda/launch.cuh"
#include "full_model.h"
#include "prefill_reference.h"
#include "tiny_models.h"

namespace logitlab::cuda {
namespace {

int n_failures = 0;

void report(const std::string& name, double error, double bound) {
  const bool is_good = error <= bound;  // false for NaN
  n_failures += is_good ? 0 : 1;
  std::printf("%-60s %.2e  bound %.2e  %s\n", name.c_str(), error, bound, is_good ? "ok" : "BAD");
  std::fflush(stdout);
}

// Many sequences of one model in one pool of pages.
class Batch {
 public:
  Batch(ModelView* model, int n, int n_positions) {
    const StateSizes sizes(*model);
    const int pages_each = (n_positions + kPagePositions - 1) / kPagePositions;
    const int64_t elements =
        std::max<int64_t>(1, int64_t{n} * pages_each * model->kv.page_elements());
    model->kv.pages = arrays_.make<__nv_bfloat16>(elements);
    require(cudaMemset(model->kv.pages, 0xff, elements * 2), "memset");
    kv_elements = elements;
    for (int i = 0; i < n; ++i) {
      Sequence s;
      s.conv = arrays_.make<float>(sizes.conv);
      s.ssm = arrays_.make<float>(sizes.ssm);
      require(cudaMemset(s.conv, 0, sizes.conv * 4), "memset");
      require(cudaMemset(s.ssm, 0, sizes.ssm * 4), "memset");
      std::vector<int> table(static_cast<size_t>(pages_each));
      for (int p = 0; p < pages_each; ++p) {
        table[p] = (p * n + i) % (n * pages_each);
      }
      s.page_table = arrays_.upload(table);
      sequences.push_back(s);
    }
  }

  std::vector<Sequence> sequences;
  int64_t kv_elements = 0;

 private:
  DeviceArrays arrays_;
};

std::unique_ptr<Decoder> make_decoder(const ModelView& model) {
  std::unique_ptr<Decoder> decoder;
  require(Decoder::make(model, &decoder), "decoder");
  return decoder;
}

// Logits of every step of sequences with these ids, all in one batch: [step][sequence, vocab].
std::vector<std::vector<float>> run_steps(ModelView* model,
                                          const std::vector<std::vector<int>>& ids,
                                          cudaStream_t stream) {
  const int n = static_cast<int>(ids.size());
  const int steps = static_cast<int>(ids[0].size());
  Batch batch(model, n, steps);
  const auto decoder = make_decoder(*model);
  std::vector<std::vector<float>> logits;
  for (int t = 0; t < steps; ++t) {
    std::vector<int> now;
    for (const auto& sequence : ids) {
      now.push_back(sequence[t]);
    }
    require(decoder->step(batch.sequences, now, stream), "step");
    require(cudaStreamSynchronize(stream), "step");
    logits.push_back(download(decoder->logits(), int64_t{n} * model->vocab_size));
    for (Sequence& s : batch.sequences) {
      ++s.length;
    }
  }
  return logits;
}

std::vector<double> reference_logits(TinyModels* tiny, const std::vector<int>& ids) {
  const ModelView& model = tiny->model;
  const StateSizes sizes(model);
  reference::State state;
  state.conv.assign(static_cast<size_t>(sizes.conv), 0);
  state.ssm.assign(static_cast<size_t>(sizes.ssm), 0);
  state.keys.assign(static_cast<size_t>(model.kv.n_layers), {});
  state.values = state.keys;
  std::vector<double> embedded;
  const std::vector<double> x =
      reference::Reference(model, tiny->mirror, false).run(ids, &state, &embedded);
  const int d = model.hidden_size;
  const auto* norm = tiny->mirror.host(model.final_norm);
  const auto* head = tiny->mirror.host(model.head.weight);
  std::vector<double> logits;
  for (size_t r = 0; r < ids.size(); ++r) {
    double squares = 0;
    for (int i = 0; i < d; ++i) {
      squares += x[r * d + i] * x[r * d + i];
    }
    const double scale = 1 / std::sqrt(squares / d + model.norm_eps);
    for (int v = 0; v < model.vocab_size; ++v) {
      double sum = 0;
      for (int i = 0; i < d; ++i) {
        sum += x[r * d + i] * scale * norm[i] * __bfloat162float(head[int64_t{v} * d + i]);
      }
      logits.push_back(sum);
    }
  }
  return logits;
}

// A split in two BF16 parts leaves 2^-17 of a number, as does a float32 sum of hundreds of terms at
// worst; a layer has at most six of these in a row (relu^2 and norms double), and errors of layers
// add: 8 * 2^-17 a layer and for the head. Keys and values are BF16 numbers: 2^-9 each.
double bound_of(const ModelView& model) {
  double bound = 8.0 / (1 << 17);
  for (const Layer& layer : model.layers) {
    bound += 8.0 / (1 << 17) + (layer.kind == LayerKind::kAttention ? 2.0 / 512 : 0);
  }
  return bound;
}

void check_choices(const std::string& name, ModelView* model, int n, int n_steps,
                   cudaStream_t stream) {
  std::vector<int> first;
  for (int i = 0; i < n; ++i) {
    first.push_back(i % model->vocab_size);
  }
  std::vector<int> wanted(static_cast<size_t>(n) * n_steps);
  {
    Batch batch(model, n, n_steps);
    const auto decoder = make_decoder(*model);
    std::vector<int> ids = first;
    for (int t = 0; t < n_steps; ++t) {
      require(decoder->step(batch.sequences, ids, stream), "step");
      require(cudaStreamSynchronize(stream), "step");
      const auto logits = download(decoder->logits(), int64_t{n} * model->vocab_size);
      for (int i = 0; i < n; ++i) {
        const auto row = logits.begin() + int64_t{i} * model->vocab_size;
        ids[i] = static_cast<int>(std::max_element(row, row + model->vocab_size) - row);
        wanted[i * n_steps + t] = ids[i];
        ++batch.sequences[i].length;
      }
    }
  }
  Batch batch(model, n, n_steps);
  const auto decoder = make_decoder(*model);
  std::vector<int> got(wanted.size());
  const std::vector<Draw> draws(static_cast<size_t>(n));
  require(decoder->steps(batch.sequences, first, draws, n_steps, got.data(), stream), "steps");
  report(name + ", ids chosen on the device, " + std::to_string(n), got == wanted ? 0 : 1, 0);
}

// Sizes of the batches in which a sequence is compared with itself alone.
const std::vector<int> kBatches = {4, 8, 9, 33, 64};
const std::vector<int> kFewBatches = {4, 9};
constexpr int kFewChoices = 3;

// choice_steps: chosen on the device at once; up to 7 a graph is one step, from 8 on eight steps.
void check_model(const std::string& name, TinyModels* tiny, int steps,
                 const std::vector<int>& batches = kBatches, int choice_steps = 21) {
  ModelView& model = tiny->model;
  model.final_norm = tiny->floats(model.hidden_size, 0.8F, 1.2F);
  model.head = tiny->matrix(model.vocab_size, model.hidden_size, false);
  cudaStream_t stream = nullptr;
  require(cudaStreamCreate(&stream), "stream");
  std::vector<std::vector<int>> ids(64, std::vector<int>(static_cast<size_t>(steps)));
  for (auto& sequence : ids) {
    for (int& id : sequence) {
      id = static_cast<int>(tiny->uniform(0, 0.999F) * static_cast<float>(model.vocab_size));
    }
  }
  const auto alone = run_steps(&model, {ids[3]}, stream);
  const std::vector<double> exact = reference_logits(tiny, ids[3]);
  double worst = 0;
  for (int t = 0; t < steps; ++t) {
    double error = 0;
    double size = 0;
    for (int v = 0; v < model.vocab_size; ++v) {
      const double want = exact[static_cast<size_t>(t) * model.vocab_size + v];
      error += (alone[t][v] - want) * (alone[t][v] - want);
      size += want * want;
    }
    const double relative = std::sqrt(error / size);
    worst = relative >= worst ? relative : (relative < worst ? worst : relative);
  }
  report(name, worst, bound_of(model));
  for (const int n : batches) {
    const auto many =
        run_steps(&model, std::vector<std::vector<int>>(ids.begin(), ids.begin() + n), stream);
    int differing = 0;
    for (int t = 0; t < steps; ++t) {
      differing += std::memcmp(many[t].data() + int64_t{3} * model.vocab_size, alone[t].data(),
                               alone[t].size() * 4) != 0
                       ? 1
                       : 0;
    }
    report(name + ", in a batch of " + std::to_string(n), differing, 0);
  }
  check_choices(name, &model, 1, choice_steps, stream);
  check_choices(name, &model, 10, choice_steps, stream);
  require(cudaStreamDestroy(stream), "stream");
}

void check() {
  const auto mamba = [](const char* name, int d, auto... options) {
    TinyModels tiny(11);
    tiny.begin(d, 50);
    tiny.add_mamba(options...);
    check_model(name, &tiny, 12);
  };
  mamba("mamba 4x16, state 16", 64, 4, 16, 16, 2, 4, false, 0.0F, INFINITY);
  mamba("mamba 8x64, state 128, biases, clamp", 128, 8, 64, 128, 8, 4, true, 0.02F, 0.2F);
  mamba("mamba 6x20, state 24, 3 taps", 72, 6, 20, 24, 3, 3, true, 0.0F, INFINITY);
  mamba("mamba 8x40, state 9, 1 tap", 64, 8, 40, 9, 4, 1, true, 0.0F, INFINITY);
  mamba("mamba 64x16, state 256, 8 groups", 1032, 64, 16, 256, 8, 2, false, 0.0F, INFINITY);
  const auto attention = [](const char* name, int n, int rotary, bool interleaved,
                            auto... options) {
    TinyModels tiny(12);
    tiny.begin(96, 60);
    if (rotary > 0) {
      tiny.set_rope(rotary, interleaved, 1.1F);
    }
    tiny.add_attention(options...);
    check_model(name, &tiny, n);
  };
  attention("attention 8/2x128", 600, 0, false, 8, 2, 128, 0, false, false, false);
  attention("attention 4/4x64, rope, norms, biases, window", 300, 64, false, 4, 4, 64, 50, true,
            true, true);
  attention("attention 6/2x32, interleaved rope of 16", 40, 16, true, 6, 2, 32, 0, true, false,
            true);
  attention("attention 20/1x16, window 1", 20, 0, false, 20, 1, 16, 1, false, true, false);
  attention("attention 2/1x80", 30, 80, true, 2, 1, 80, 64, true, false, false);
  const auto mixture = [](const char* name, int d, int shared, Gate shared_gate, auto... options) {
    TinyModels tiny(13);
    tiny.begin(d, 200);
    tiny.add_moe(options...);
    if (shared > 0) {
      tiny.share(shared, shared_gate, false);
    }
    check_model(name, &tiny, 10);
  };
  mixture("moe 8 by 2", 64, 0, Gate::kRelu2, 8, 2, 1, 1, 48, 0, Gate::kRelu2, true, false);
  mixture("moe 128 by 6, shared", 128, 136, Gate::kRelu2, 128, 6, 1, 1, 40, 0, Gate::kRelu2, true,
          false);
  mixture("moe 16 by 3 in 4 groups, latent, shared", 72, 88, Gate::kSiluMul, 16, 3, 4, 2, 56, 32,
          Gate::kSilu, false, false);
  mixture("moe 5 by 5", 2688, 0, Gate::kRelu2, 5, 5, 1, 1, 1856, 0, Gate::kSilu, true, false);
  for (const Gate gate : {Gate::kRelu2, Gate::kSilu, Gate::kSiluMul}) {
    TinyModels tiny(17);
    tiny.begin(80, 100);
    tiny.add_mlp(4872, gate, gate != Gate::kSilu);
    check_model("mlp, gate " + std::to_string(static_cast<int>(gate)), &tiny, 10);
  }
  {
    // Several chunks of every block.
    TinyModels many(19);
    many.begin(64, 150000);
    many.add_mlp(60000, Gate::kSiluMul, false);
    check_model("many rows", &many, 2);
  }
  TinyModels tiny(18);
  tiny.begin(2688, 300);
  tiny.add_mamba(64, 64, 128, 8, 4, true, 0.0F, INFINITY);
  tiny.add_moe(16, 3, 1, 1, 464, 0, Gate::kRelu2, true, true);
  tiny.share(3712, Gate::kRelu2, false);
  tiny.add_attention(32, 2, 128, 0, false, false, false);
  tiny.add_mlp(192, Gate::kSiluMul, false);
  check_model("stack M E * -", &tiny, 8);
}

// One model of each kind of layer, as small as its code paths allow.
void check_layers() {
  {
    TinyModels tiny(21);
    tiny.begin(64, 50);
    tiny.add_mamba(4, 16, 16, 2, 4, true, 0.02F, 0.2F);
    check_model("mamba 4x16, biases, clamp", &tiny, 5, kFewBatches, kFewChoices);
  }
  {
    TinyModels tiny(22);
    tiny.begin(96, 60);
    tiny.set_rope(64, false, 1.1F);
    tiny.add_attention(4, 4, 64, 50, true, true, true);
    check_model("attention 4/4x64, rope, norms, biases, window", &tiny, 70, kFewBatches,
                kFewChoices);
  }
  {
    TinyModels tiny(23);
    tiny.begin(72, 100);
    tiny.add_moe(16, 3, 4, 2, 56, 32, Gate::kSilu, false, false);
    tiny.share(88, Gate::kSiluMul, false);
    check_model("moe 16 by 3 in 4 groups, latent, shared", &tiny, 4, kFewBatches, kFewChoices);
  }
}

// Layers that follow one another, and the kernels for rows of the usual widths.
void check_stacks() {
  {
    TinyModels tiny(24);
    tiny.begin(128, 100);
    tiny.add_mamba(8, 64, 128, 2, 4, false, 0.0F, INFINITY);
    tiny.add_moe(8, 2, 1, 1, 48, 0, Gate::kRelu2, true, true);
    tiny.share(96, Gate::kRelu2, false);
    tiny.add_attention(8, 2, 128, 0, false, false, false);
    tiny.add_mlp(152, Gate::kSiluMul, false);
    check_model("stack M E * -", &tiny, 3, {9}, kFewChoices);
  }
  TinyModels tiny(25);
  tiny.begin(2688, 100);
  tiny.add_moe(8, 2, 1, 1, 48, 0, Gate::kRelu2, true, true);
  tiny.share(64, Gate::kRelu2, false);
  tiny.add_attention(4, 1, 64, 0, false, false, false);
  check_model("wide stack E *", &tiny, 2, {9}, kFewChoices);
}

// ---- full size, twice ---------------------------------------------------------------------------

// What a run of many steps leaves; the first part of `ssm`, `conv` and `ids` is the first sequence.
struct Remains {
  std::vector<int> ids;  // [sequences, steps]
  std::vector<float> logits, conv, ssm;
  std::vector<uint16_t> pages;
  double seconds = 0;
};

template <typename T>
bool starts_with_bits(const std::vector<T>& all, const std::vector<T>& part) {
  return all.size() >= part.size() &&
         std::memcmp(all.data(), part.data(), part.size() * sizeof(T)) == 0;
}

bool same_bits(const Remains& a, const Remains& b) {
  return a.ids == b.ids && a.logits.size() == b.logits.size() && a.ssm.size() == b.ssm.size() &&
         a.conv.size() == b.conv.size() && a.pages.size() == b.pages.size() &&
         starts_with_bits(a.logits, b.logits) && starts_with_bits(a.conv, b.conv) &&
         starts_with_bits(a.ssm, b.ssm) && starts_with_bits(a.pages, b.pages);
}

// FNV-1a over whole values, to compare with other runs of the program.
template <typename T>
uint64_t digest(const std::vector<T>& values) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const T& value : values) {
    uint32_t word = 0;
    std::memcpy(&word, &value, sizeof(T));
    hash = (hash ^ word) * 0x100000001b3ULL;
  }
  return hash;
}

// Every second sequence draws, the others take the likeliest id.
Remains run_many_steps(FullModel* full, int n, int n_steps, cudaStream_t stream) {
  const StateSizes sizes(full->model);
  Batch batch(&full->model, n, n_steps);
  const auto decoder = make_decoder(full->model);
  std::vector<int> first;
  std::vector<Draw> draws;
  for (int i = 0; i < n; ++i) {
    first.push_back(1000 + 17 * i);
    Draw draw;
    draw.samples = i % 2 == 1;
    draw.temperature = 0.9F;
    draw.seed = 7;
    draw.sequence_index = static_cast<uint64_t>(i);
    draws.push_back(draw);
  }
  Remains remains;
  remains.ids.resize(static_cast<size_t>(n) * n_steps);
  require(cudaDeviceSynchronize(), "steps");
  const auto start = std::chrono::steady_clock::now();
  require(decoder->steps(batch.sequences, first, draws, n_steps, remains.ids.data(), stream),
          "steps");
  require(cudaDeviceSynchronize(), "steps");
  remains.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  remains.logits = download(decoder->logits(), int64_t{n} * full->model.vocab_size);
  for (const Sequence& s : batch.sequences) {
    const auto conv = download(s.conv, sizes.conv);
    const auto ssm = download(s.ssm, sizes.ssm);
    remains.conv.insert(remains.conv.end(), conv.begin(), conv.end());
    remains.ssm.insert(remains.ssm.end(), ssm.begin(), ssm.end());
  }
  remains.pages =
      download(reinterpret_cast<const uint16_t*>(full->model.kv.pages), batch.kv_elements);
  return remains;
}

int repeat(const std::string& json_path) {
  constexpr int kSteps = 1000;
  FullModel full;
  DeviceArrays arrays;
  full.model.final_norm = arrays.upload(std::vector<float>(2688, 1.0F));
  cudaStream_t stream = nullptr;
  require(cudaStreamCreate(&stream), "stream");
  Remains alone;
  std::string json;
  for (const int n : {1, 16}) {
    const Remains once = run_many_steps(&full, n, kSteps, stream);
    const Remains again = run_many_steps(&full, n, kSteps, stream);
    const bool is_same = same_bits(once, again);
    const bool is_finite = std::all_of(once.logits.begin(), once.logits.end(),
                                       [](float x) { return std::isfinite(x); });
    const std::string name = "1000 steps of " + std::to_string(n);
    report(name + ", repeated: ids, logits, states, pages", is_same ? 0 : 1, 0);
    report(name + ", finite", is_finite ? 0 : 1, 0);
    bool is_as_alone = true;
    if (n == 1) {
      alone = once;
    } else {
      is_as_alone =
          starts_with_bits(once.ids, alone.ids) && starts_with_bits(once.logits, alone.logits) &&
          starts_with_bits(once.conv, alone.conv) && starts_with_bits(once.ssm, alone.ssm);
      report(name + ", the first as alone", is_as_alone ? 0 : 1, 0);
    }
    char line[512];
    std::snprintf(line, sizeof(line),
                  "{\"batch\": %d, \"steps\": %d, \"same_bits\": %s, \"first_as_alone\": %s, "
                  "\"seconds\": [%.6f, %.6f], \"tokens_per_second\": %.1f, \"ids\": \"%016llx\", "
                  "\"logits\": \"%016llx\", \"ssm\": \"%016llx\", \"pages\": \"%016llx\"}",
                  n, kSteps, is_same ? "true" : "false", is_as_alone ? "true" : "false",
                  once.seconds, again.seconds, n * kSteps / std::min(once.seconds, again.seconds),
                  static_cast<unsigned long long>(digest(once.ids)),
                  static_cast<unsigned long long>(digest(once.logits)),
                  static_cast<unsigned long long>(digest(once.ssm)),
                  static_cast<unsigned long long>(digest(once.pages)));
    std::printf("%s\n", line);
    json += (json.empty() ? "" : ", ") + std::string(line);
  }
  if (!json_path.empty()) {
    std::FILE* const file = std::fopen(json_path.c_str(), "w");
    if (file == nullptr) {
      std::fprintf(stderr, "%s: not written\n", json_path.c_str());
      return 2;
    }
    std::fprintf(file, "{\"failures\": %d, \"runs\": [%s]}\n", n_failures, json.c_str());
    std::fclose(file);
  }
  std::printf("%d failures\n", n_failures);
  return n_failures == 0 ? 0 : 1;
}

// ---- times --------------------------------------------------------------------------------------

// Reads all through a ring as the decode kernels do, without multiplying.
__global__ void __launch_bounds__(kDecodeThreads, 1)
    read_kernel(const __nv_bfloat16* data, int64_t n_groups, const RingShape shape) {
  extern __shared__ __align__(128) char memory[];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  const Ring ring(memory, shape);
  ring.begin(warp == kSlices, lane);
  constexpr int kColumns = 2688;
  const int64_t first = n_groups * blockIdx.x / gridDim.x;
  const int64_t last = n_groups * (blockIdx.x + 1) / gridDim.x;
  if (warp == kSlices) {
    RingLoader loader(ring, lane);
    for (int64_t g = first; g < last; ++g) {
      loader.load({data + g * kRowTile * kColumns, 0, kRowTile}, kColumns, 0, kColumns);
    }
    return;
  }
  RingReader reader(ring);
  for (int64_t g = first; g < last; ++g) {
    reader.wait(kRowTile, kColumns, lane);
    reader.release(lane);
    reader.advance();
  }
}

double read_rate(const FullModel& full, cudaStream_t stream) {
  DeviceShape device;
  cudaDeviceGetAttribute(&device.n_blocks, cudaDevAttrMultiProcessorCount, 0);
  cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  const RingShape ring = ring_shape(2688, 0, device.shared_bytes);
  cudaFuncSetAttribute(reinterpret_cast<const void*>(read_kernel),
                       cudaFuncAttributeMaxDynamicSharedMemorySize, ring.bytes());
  const int64_t groups = int64_t{128} * 1856 / kRowTile;
  cudaEvent_t begin;
  cudaEvent_t end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int r = 0; r < 6; ++r) {
    cudaEventRecord(begin, stream);
    int layers = 0;
    for (const Layer& layer : full.model.layers) {
      if (layer.kind == LayerKind::kMoe && layers < 8) {
        read_kernel<<<device.n_blocks, kDecodeThreads, ring.bytes(), stream>>>(layer.moe.up, groups,
                                                                               ring);
        ++layers;
      }
    }
    cudaEventRecord(end, stream);
    require(cudaEventSynchronize(end), "read");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return 8.0 * groups * kRowTile * 2688 * 2 / (times[2] * 1e-3);
}

void bench_batch(FullModel* full, Decoder* decoder, int n, int context, double rate, bool profiles,
                 cudaStream_t stream) {
  constexpr int kSteps = 64;
  Batch batch(&full->model, n, context + kSteps + 64);
  fill_kernel<<<2048, 256>>>(full->model.kv.pages, batch.kv_elements, -1.0F, 1.0F, 5);
  for (Sequence& s : batch.sequences) {
    s.length = context;
  }
  const auto fresh = make_decoder(full->model);
  decoder = fresh.get();
  std::vector<int> first;
  for (int i = 0; i < n; ++i) {
    first.push_back(1000 + 17 * i);
  }
  const std::vector<Draw> draws(static_cast<size_t>(n));
  std::vector<int> out(static_cast<size_t>(n) * kSteps);
  std::vector<int> again(out.size());
  cudaEvent_t begin;
  cudaEvent_t end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int r = 0; r < 6; ++r) {
    cudaEventRecord(begin, stream);
    require(decoder->steps(batch.sequences, first, draws, kSteps, out.data(), stream), "steps");
    cudaEventRecord(end, stream);
    require(cudaEventSynchronize(end), "steps");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    times.push_back(ms / kSteps);
  }
  std::sort(times.begin(), times.end());
  std::printf("batch %2d, context %5d: %8.1f us a step, %8.1f tokens/s  (ids %d %d %d)\n", n,
              context, times[2] * 1000, n / (times[2] * 1e-3), out[0], out[1], out[kSteps - 1]);
  if (profiles) {
    std::vector<PhaseTime> phases;
    require(decoder->profile(batch.sequences, 5, &phases, stream), "profile");
    for (const PhaseTime& p : phases) {
      const double floor = p.bytes / rate * 1e6;
      std::printf(
          "  %-28s x%3ld %9.1f MB %8.1f us  each %6.2f  share %4.0f%%  lost each %5.2f us\n",
          p.name.c_str(), static_cast<long>(p.count), p.bytes / 1e6, p.microseconds,
          p.microseconds / p.count, 100 * floor / p.microseconds,
          (p.microseconds - floor) / p.count);
    }
  }
  std::fflush(stdout);
}

void bench(const std::string& mode) {
  const bool is_quick = mode == "quick";
  FullModel full;
  DeviceArrays arrays;
  std::vector<float> norm(2688, 1.0F);
  full.model.final_norm = arrays.upload(norm);
  cudaStream_t stream = nullptr;
  require(cudaStreamCreate(&stream), "stream");
  const double rate = read_rate(full, stream);
  std::printf("read rate %.3f TB/s\n", rate / 1e12);
  if (mode == "64") {
    bench_batch(&full, nullptr, 64, 128, rate, false, stream);
    return;
  }
  bench_batch(&full, nullptr, 1, 128, rate, !is_quick, stream);
  if (is_quick || mode == "1") {
    return;
  }
  bench_batch(&full, nullptr, 1, 8192, rate, false, stream);
  bench_batch(&full, nullptr, 4, 128, rate, false, stream);
  bench_batch(&full, nullptr, 16, 128, rate, false, stream);
  bench_batch(&full, nullptr, 64, 128, rate, true, stream);
  std::printf("read rate %.3f TB/s\n", read_rate(full, stream) / 1e12);
}

}  // namespace
}  // namespace logitlab::cuda

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "check";
  const std::string option = argc > 2 ? argv[2] : "";
  if (mode == "bench") {
    logitlab::cuda::bench(option);
    return 0;
  }
  if (mode == "repeat") {
    return logitlab::cuda::repeat(option == "--json" && argc > 3 ? argv[3] : "");
  }
  if (option == "layers") {
    logitlab::cuda::check_layers();
  } else if (option == "stacks") {
    logitlab::cuda::check_stacks();
  } else {
    logitlab::cuda::check();
  }
  std::printf("%d failures\n", logitlab::cuda::n_failures);
  return logitlab::cuda::n_failures == 0 ? 0 : 1;
}
