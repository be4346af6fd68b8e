// The parts of a Mamba-2 mixer between its projections, compiled once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/mamba_kernels.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "hwy/highway.h"

#include "backend/cpu/kernels.h"
#include "backend/cpu/lanes-inl.h"
#include "backend/cpu/math-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace logitlab {
namespace HWY_NAMESPACE {

HWY_INLINE int64_t up_to_16(int64_t n) {
  return (n + 15) / 16 * 16;
}

HWY_INLINE void copy_floats(const float* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) {
    to[i] = from[i];
  }
}

// out[k, c] = weight[c, k]; rows of `out` are padded to 16.
HWY_INLINE void transpose_taps(const float* weight, int64_t n, int64_t n_taps, float* out) {
  const D d;
  const int64_t stride = up_to_16(n);
  int64_t c = 0;
  if (n_taps == 4) {
    for (; c + kLanes <= n; c += kLanes) {
      V t0;
      V t1;
      V t2;
      V t3;
      hn::LoadInterleaved4(d, weight + 4 * c, t0, t1, t2, t3);
      hn::StoreU(t0, d, out + c);
      hn::StoreU(t1, d, out + stride + c);
      hn::StoreU(t2, d, out + 2 * stride + c);
      hn::StoreU(t3, d, out + 3 * stride + c);
    }
  }
  for (; c < stride; ++c) {
    for (int64_t k = 0; k < n_taps; ++k) {
      out[k * stride + c] = c < n ? weight[c * n_taps + k] : 0.0F;
    }
  }
}

// Puts the inputs that the next span needs into the state, and its old ones into `saved`.
HWY_INLINE void renew_state(const ConvolveTask& task, float* saved) {
  const int64_t n_old = task.n_taps - 1;
  const int64_t stride = up_to_16(task.n);
  for (int64_t k = 0; k < n_old; ++k) {
    copy_floats(task.state + k * task.state_stride, task.n, saved + k * stride);
    for (int64_t c = task.n; c < stride; ++c) {
      saved[k * stride + c] = 0.0F;
    }
  }
  for (int64_t k = 0; k < n_old; ++k) {
    const int64_t row = task.n_rows - n_old + k;
    const float* from =
        row >= 0 ? task.rows + row * task.row_stride : saved + (n_old + row) * stride;
    copy_floats(from, task.n, task.state + k * task.state_stride);
  }
}

// The last row first: its inputs are those of the rows before it, as they came.
void convolve(const ConvolveTask& task) {
  const int64_t n_old = task.n_taps - 1;
  const int64_t stride = up_to_16(task.n);
  float* taps = task.work;
  float* saved = task.work + task.n_taps * stride;
  transpose_taps(task.weight, task.n, task.n_taps, taps);
  renew_state(task, saved);
  for (int64_t row = task.n_rows - 1; row >= 0; --row) {
    float* out = task.rows + row * task.row_stride;
    for (int64_t c = 0; c < task.n; c += 16) {
      const int64_t left = task.n - c;
      V16 sum = task.bias == nullptr ? zero16() : load_up_to_16(task.bias + c, left);
      for (int64_t k = 0; k < task.n_taps; ++k) {
        const int64_t from = row - n_old + k;
        const float* input =
            from >= 0 ? task.rows + from * task.row_stride : saved + (n_old + from) * stride;
        mul_add16(load16(taps + k * stride + c), load_up_to_16(input + c, left), sum);
      }
      for (int j = 0; j < kVecs; ++j) {
        sum.v[j] = silu_lanes(sum.v[j]);
      }
      store_up_to_16(sum, out + c, left);
    }
  }
}

void time_steps(const float* dt, const float* bias, const float* a, float low, float high,
                int64_t n, float* steps, float* logarithms, float* decays) {
  const V lowest = hn::Set(D(), low);
  const V highest = hn::Set(D(), high);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t left = n - i;
    V16 step = load_up_to_16(dt + i, left);
    V16 logarithm = load_up_to_16(a + i, left);
    const V16 shift = load_up_to_16(bias + i, left);
    V16 decay;
    for (int j = 0; j < kVecs; ++j) {
      V v = softplus_lanes(hn::Add(step.v[j], shift.v[j]));
      // Not Min and Max, which may lose a NaN.
      v = hn::IfThenElse(hn::Lt(v, lowest), lowest, v);
      v = hn::IfThenElse(hn::Gt(v, highest), highest, v);
      step.v[j] = v;
      logarithm.v[j] = hn::Mul(v, logarithm.v[j]);
      decay.v[j] = exp_lanes(logarithm.v[j]);
    }
    store_up_to_16(step, steps + i, left);
    store_up_to_16(logarithm, logarithms + i, left);
    store_up_to_16(decay, decays + i, left);
  }
}

// 0 for what is no normal number: a state that nothing feeds would go on through the subnormals,
// which many processors compute a hundred times slower.
HWY_INLINE V flush(V v) {
  return hn::IfThenZeroElse(hn::Lt(hn::Abs(v), hn::Set(D(), 0x1p-126F)), v);
}

// One vector of sixteens of a row of the state: renewed, stored and multiplied by c.
HWY_INLINE void scan_sixteen(float* state, int64_t left, V decay, V input, const V16& b,
                             const V16& c, V16& sum) {
  V16 s = load_up_to_16(state, left);
  for (int j = 0; j < kVecs; ++j) {
    s.v[j] = flush(hn::MulAdd(decay, s.v[j], hn::Mul(input, b.v[j])));
  }
  store_up_to_16(s, state, left);
  mul_add16(s, c, sum);
}

void scan_step(const ScanStep& step) {
  const D d;
  const int64_t size = step.state_size;
  const V decay = hn::Set(d, step.decay);
  int64_t p = 0;
  for (; p + 4 <= step.head_dim; p += 4) {
    float* row = step.state + p * size;
    const V i0 = hn::Set(d, step.step * step.x[p]);
    const V i1 = hn::Set(d, step.step * step.x[p + 1]);
    const V i2 = hn::Set(d, step.step * step.x[p + 2]);
    const V i3 = hn::Set(d, step.step * step.x[p + 3]);
    V16 s0 = zero16();
    V16 s1 = zero16();
    V16 s2 = zero16();
    V16 s3 = zero16();
    for (int64_t n = 0; n < size; n += 16) {
      const int64_t left = size - n;
      const V16 b = load_up_to_16(step.b + n, left);
      const V16 c = load_up_to_16(step.c + n, left);
      scan_sixteen(row + n, left, decay, i0, b, c, s0);
      scan_sixteen(row + size + n, left, decay, i1, b, c, s1);
      scan_sixteen(row + 2 * size + n, left, decay, i2, b, c, s2);
      scan_sixteen(row + 3 * size + n, left, decay, i3, b, c, s3);
    }
    alignas(16) float sums[4];
    hn::Store(reduce4(s0, s1, s2, s3), D4(), sums);
    for (int i = 0; i < 4; ++i) {
      step.y[p + i] = sums[i] + step.d * step.x[p + i];
    }
  }
  for (; p < step.head_dim; ++p) {
    const V input = hn::Set(d, step.step * step.x[p]);
    V16 sum = zero16();
    for (int64_t n = 0; n < size; n += 16) {
      const int64_t left = size - n;
      scan_sixteen(step.state + p * size + n, left, decay, input, load_up_to_16(step.b + n, left),
                   load_up_to_16(step.c + n, left), sum);
    }
    step.y[p] = reduce1(sum) + step.d * step.x[p];
  }
}

// e^(sum of logarithms from `from` (exclusive) to `to`): of the difference, which is at most 0.
HWY_INLINE V decay_between(V to_high, V to_low, const float* high, const float* low) {
  const D d;
  return exp_lanes(
      hn::Add(hn::Sub(to_high, hn::LoadU(d, high)), hn::Sub(to_low, hn::LoadU(d, low))));
}

// matrix[i, j] = products[i, j] * decay from j to i. Columns past i have no meaning.
HWY_INLINE void decay_products(const ScanChunk& chunk, float* matrix) {
  const D d;
  for (int64_t i = 0; i < chunk.n_rows; ++i) {
    const V high = hn::Set(d, chunk.high[i]);
    const V low = hn::Set(d, chunk.low[i]);
    for (int64_t j = 0; j <= i; j += kLanes) {
      const V decay = decay_between(high, low, chunk.high + j, chunk.low + j);
      const V product = hn::LoadU(d, chunk.products + i * kScanChunk + j);
      hn::StoreU(hn::Mul(product, decay), d, matrix + i * kScanChunk + j);
    }
  }
}

// Rows [row, row + 4) of y, kColumns vectors of it: what the old state gives, and the sum over the
// inputs that the row may see. A row takes nothing of later ones, not even times 0: that may be
// NaN.
template <int kColumns>
HWY_INLINE void output_tile(const ScanChunk& chunk, const float* matrix, const float* from_start,
                            int64_t row, int64_t column) {
  const D d;
  const int64_t dim = chunk.head_dim;
  float* y = chunk.y + row * dim + column;
  V s[4][kColumns];
  for (int r = 0; r < 4; ++r) {
    const V decay = hn::Set(d, from_start[row + r]);
    for (int c = 0; c < kColumns; ++c) {
      s[r][c] = hn::Mul(decay, hn::LoadU(d, y + r * dim + c * kLanes));
    }
  }
  const float* m = matrix + row * kScanChunk;
  const float* x = chunk.x + column;
  for (int64_t j = 0; j <= row; ++j, x += dim) {
    V v[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      v[c] = hn::LoadU(d, x + c * kLanes);
    }
    for (int r = 0; r < 4; ++r) {
      const V factor = hn::Set(d, m[r * kScanChunk + j]);
      for (int c = 0; c < kColumns; ++c) {
        s[r][c] = hn::MulAdd(factor, v[c], s[r][c]);
      }
    }
  }
  for (int t = 1; t < 4; ++t, x += dim) {
    for (int r = t; r < 4; ++r) {
      const V factor = hn::Set(d, m[r * kScanChunk + row + t]);
      for (int c = 0; c < kColumns; ++c) {
        s[r][c] = hn::MulAdd(factor, hn::LoadU(d, x + c * kLanes), s[r][c]);
      }
    }
  }
  for (int r = 0; r < 4; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      hn::StoreU(s[r][c], d, y + r * dim + c * kLanes);
    }
  }
}

// Rows [p, p + 4) of the state, kColumns vectors of it. inputs: [n_rows, head_dim], decayed to the
// chunk's end.
template <int kColumns>
HWY_INLINE void state_tile(const ScanChunk& chunk, const float* inputs, V decay, int64_t p,
                           int64_t column) {
  const D d;
  const int64_t size = chunk.state_size;
  float* state = chunk.state + p * size + column;
  V s[4][kColumns];
  for (int r = 0; r < 4; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      s[r][c] = hn::Mul(decay, hn::LoadU(d, state + r * size + c * kLanes));
    }
  }
  const float* b = chunk.b + column;
  const float* input = inputs + p;
  for (int64_t j = 0; j < chunk.n_rows; ++j, b += size, input += chunk.head_dim) {
    V v[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      v[c] = hn::LoadU(d, b + c * kLanes);
    }
    for (int r = 0; r < 4; ++r) {
      const V factor = hn::Set(d, input[r]);
      for (int c = 0; c < kColumns; ++c) {
        s[r][c] = hn::MulAdd(factor, v[c], s[r][c]);
      }
    }
  }
  for (int r = 0; r < 4; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      hn::StoreU(flush(s[r][c]), d, state + r * size + c * kLanes);
    }
  }
}

void scan_chunk(const ScanChunk& chunk) {
  constexpr int kColumns = kManyRegisters ? 4 : 2;
  const D d;
  float* matrix = chunk.work;
  float* factors = matrix + kScanChunk * kScanChunk;
  float* inputs = factors + kScanChunk;
  decay_products(chunk, matrix);
  for (int64_t j = 0; j < kScanChunk; j += kLanes) {
    const V from_start = hn::Add(hn::LoadU(d, chunk.high + j), hn::LoadU(d, chunk.low + j));
    hn::StoreU(exp_lanes(from_start), d, factors + j);
  }
  const int64_t dim = chunk.head_dim;
  for (int64_t row = 0; row < chunk.n_rows; row += 4) {
    int64_t column = 0;
    for (; column + kColumns * kLanes <= dim; column += kColumns * kLanes) {
      output_tile<kColumns>(chunk, matrix, factors, row, column);
    }
    for (; column < dim; column += kLanes) {
      output_tile<1>(chunk, matrix, factors, row, column);
    }
  }
  const V decay = hn::Set(d, factors[chunk.n_rows - 1]);
  const V high = hn::Set(d, chunk.high[chunk.n_rows - 1]);
  const V low = hn::Set(d, chunk.low[chunk.n_rows - 1]);
  for (int64_t j = 0; j < kScanChunk; j += kLanes) {
    hn::StoreU(decay_between(high, low, chunk.high + j, chunk.low + j), d, factors + j);
  }
  for (int64_t j = 0; j < chunk.n_rows; ++j) {
    const V factor = hn::Set(d, factors[j]);
    for (int64_t p = 0; p < dim; p += kLanes) {
      hn::StoreU(hn::Mul(factor, hn::LoadU(d, chunk.x + j * dim + p)), d, inputs + j * dim + p);
    }
  }
  for (int64_t p = 0; p < dim; p += 4) {
    int64_t column = 0;
    for (; column + kColumns * kLanes <= chunk.state_size; column += kColumns * kLanes) {
      state_tile<kColumns>(chunk, inputs, decay, p, column);
    }
    for (; column < chunk.state_size; column += kLanes) {
      state_tile<1>(chunk, inputs, decay, p, column);
    }
  }
}

void gated_norm(const float* z, const float* weight, float eps, int64_t n, float* y) {
  V16 squares = zero16();
  for (int64_t i = 0; i < n; i += 16) {
    const V16 gate = load_up_to_16(z + i, n - i);
    V16 v = load_up_to_16(y + i, n - i);
    for (int j = 0; j < kVecs; ++j) {
      v.v[j] = hn::Mul(v.v[j], silu_lanes(gate.v[j]));
    }
    mul_add16(v, v, squares);
    store_up_to_16(v, y + i, n - i);
  }
  const float mean = reduce1(squares) / static_cast<float>(n);
  const V one = hn::Set(D(), 1.0F);
  const V scale = hn::Div(one, hn::Sqrt(hn::Set(D(), mean + eps)));
  for (int64_t i = 0; i < n; i += 16) {
    V16 v = load_up_to_16(y + i, n - i);
    const V16 w = load_up_to_16(weight + i, n - i);
    for (int j = 0; j < kVecs; ++j) {
      v.v[j] = hn::Mul(w.v[j], hn::Mul(v.v[j], scale));
    }
    store_up_to_16(v, y + i, n - i);
  }
}

constexpr MambaKernels kMambaKernels = {convolve, time_steps, scan_step, scan_chunk, gated_norm};

const MambaKernels* mamba_kernels() {
  return &kMambaKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#if HWY_ONCE
#include "backend/cpu/targets-inl.h"

namespace logitlab {

const MambaKernels* mamba_kernels_of(int64_t target) {
  LOGITLAB_KERNELS_OF(target, MambaKernels, mamba_kernels);
}

}  // namespace logitlab
#endif  // HWY_ONCE
