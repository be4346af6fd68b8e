// The SIMD kernels of one instruction set, as tables of plain functions. Seen by the files that are
// compiled once per instruction set, so it holds raw pointers and nothing of the library.
//
// All pointers may be unaligned. Kernels are thread-safe: they write only to what they are given.
#pragma once

#include <cstddef>
#include <cstdint>

namespace logitlab {

// The types of weights, in the order of the tables below.
enum class WeightKind : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};
inline constexpr int kWeightKinds = 11;

// Inputs of a dot product are padded with zeros to a multiple of this.
inline constexpr int64_t kDotPadding = 32;
// Most outputs that one call of gemm takes: 32 rows of 1536 floats are 192 KiB, a fifth of the L2.
inline constexpr int64_t kMaxGemmOutputs = 32;
// Scores are padded to a multiple of this.
inline constexpr int64_t kScorePadding = 16;

// Where dot products go: out[r * stride + o] = dot (+ bias[o]) (+ out[r * stride + o]).
struct DotOutput {
  float* out = nullptr;
  int64_t stride = 0;
  const float* bias = nullptr;
  bool accumulate = false;
};

struct LinearKernels {
  // n_weights dot products of encoded rows, `stride` bytes apart, with one x of k floats that is
  // padded to kDotPadding.
  using Gemv = void (*)(const uint8_t* weights, size_t stride, int64_t n_weights, const float* x,
                        int64_t k, const DotOutput& output);
  // out: [n_weights, k padded with zeros].
  using Decode = void (*)(const uint8_t* weights, size_t stride, int64_t n_weights, int64_t k,
                          float* out);

  Gemv gemv[kWeightKinds];
  Decode decode[kWeightKinds];
  // weights: [n_weights <= kMaxGemmOutputs, k], x: [rows, k]; k is a multiple of kDotPadding.
  // The same bits as gemv.
  void (*gemm)(const float* weights, int64_t n_weights, const float* x, int64_t rows, int64_t k,
               const DotOutput& output);
};

// Some query heads of one row that read the same kv head.
struct AttendTask {
  const float* q = nullptr;  // [n_heads, head_dim]
  float* out = nullptr;      // [n_heads, head_dim]
  int64_t n_heads = 0;
  int64_t head_dim = 0;
  const float* const* key_pages = nullptr;
  const float* const* value_pages = nullptr;
  int64_t page_positions = 0;
  int64_t page_offset = 0;  // floats from a page's start to this kv head
  int64_t first = 0;
  int64_t last = 0;
  float scale = 0;
  float* scores = nullptr;   // [n_heads, score_stride], work space
  int64_t score_stride = 0;  // positions, padded to kScorePadding
};

struct StepKernels {
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t d, float* out);
  // One row: x [n_heads, head_dim], cosine and sine [rotary_dim / 2].
  void (*rope_half_split)(float* x, const float* cosine, const float* sine, int64_t n_heads,
                          int64_t head_dim, int64_t rotary_dim);
  void (*rope_interleaved)(float* x, const float* cosine, const float* sine, int64_t n_heads,
                           int64_t head_dim, int64_t rotary_dim);
  void (*attend)(const AttendTask& task);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  // In place.
  void (*silu)(float* x, int64_t n);
  void (*relu2)(float* x, int64_t n);
  // Reads n floats, a multiple of 64; the result depends on all of them.
  float (*read)(const float* values, int64_t n);
};

// Rows of a scan that are taken as one chunk of matrix products.
inline constexpr int64_t kScanChunk = 64;

// Some channels of the causal convolution of one span, in place.
struct ConvolveTask {
  float* rows = nullptr;  // [n_rows, n], `row_stride` floats apart: inputs, then silu(convolved)
  int64_t row_stride = 0;
  int64_t n_rows = 0;
  int64_t n = 0;
  float* state =
      nullptr;  // [n_taps - 1, n], `state_stride` apart: the inputs before, then the last
  int64_t state_stride = 0;
  const float* weight = nullptr;  // [n, n_taps]
  const float* bias = nullptr;    // [n] or none
  int64_t n_taps = 0;
  float* work = nullptr;  // [2 n_taps - 1, n padded to 16]
};

// One head, one token: state = decay state + (step x) (outer) b; y = state c + d x.
struct ScanStep {
  float* state = nullptr;    // [head_dim, state_size]
  const float* x = nullptr;  // [head_dim]
  const float* b = nullptr;  // [state_size]
  const float* c = nullptr;  // [state_size]
  float step = 0;
  float decay = 0;
  float d = 0;
  int64_t head_dim = 0;
  int64_t state_size = 0;
  float* y = nullptr;  // [head_dim]
};

// One head, up to kScanChunk tokens. Logarithms of decay are summed from the chunk's start and
// stand as `high` + `low`.
struct ScanChunk {
  int64_t n_rows = 0;               // a multiple of 4
  int64_t head_dim = 0;             // a multiple of 16
  int64_t state_size = 0;           // a multiple of 32
  const float* b = nullptr;         // [n_rows, state_size]
  const float* products = nullptr;  // [n_rows, kScanChunk]: c of row i times b of row j <= i
  const float* x = nullptr;         // [n_rows, head_dim]: step * x
  const float* high = nullptr;      // [kScanChunk]
  const float* low = nullptr;       // [kScanChunk]
  float* state = nullptr;           // [head_dim, state_size]
  float* y = nullptr;               // [n_rows, head_dim]: old state times c, then the sums
  float* work = nullptr;            // [kScanChunk + 1 + head_dim, kScanChunk]
};

struct MambaKernels {
  void (*convolve)(const ConvolveTask& task);
  // steps = clamp(softplus(dt + bias), low, high), logarithms = steps * a, decays = e^logarithms.
  void (*time_steps)(const float* dt, const float* bias, const float* a, float low, float high,
                     int64_t n, float* steps, float* logarithms, float* decays);
  void (*scan_step)(const ScanStep& step);
  void (*scan_chunk)(const ScanChunk& chunk);
  // y = weight * q / sqrt(mean(q^2) + eps), q = y * silu(z), over n values.
  void (*gated_norm)(const float* z, const float* weight, float eps, int64_t n, float* y);
};

// One instruction set; the tables live for ever.
struct CpuKernels {
  const char* isa = nullptr;
  const LinearKernels* linear = nullptr;
  const StepKernels* step = nullptr;
  const MambaKernels* mamba = nullptr;
};

// Number `index` of those that this build has and this CPU runs, best first; false past the end.
bool cpu_kernels_at(int index, CpuKernels& kernels);

// By Highway's target bit; nullptr when not built. For cpu_kernels_at.
const LinearKernels* linear_kernels_of(int64_t target);
const StepKernels* step_kernels_of(int64_t target);
const MambaKernels* mamba_kernels_of(int64_t target);

}  // namespace logitlab
