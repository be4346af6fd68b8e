// The ops of a step that have no weight matrix, compiled once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/step_kernels.cc"
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

void rms_norm(const float* x, const float* weight, float eps, int64_t d, float* out) {
  V16 squares = zero16();
  for (int64_t i = 0; i < d; i += 16) {
    const V16 v = load_up_to_16(x + i, d - i);
    mul_add16(v, v, squares);
  }
  const float mean = reduce1(squares) / static_cast<float>(d);
  const V one = hn::Set(D(), 1.0F);
  const V scale = hn::Div(one, hn::Sqrt(hn::Set(D(), mean + eps)));
  for (int64_t i = 0; i < d; i += 16) {
    V16 v = load_up_to_16(x + i, d - i);
    const V16 w = load_up_to_16(weight + i, d - i);
    for (int j = 0; j < kVecs; ++j) {
      v.v[j] = hn::Mul(w.v[j], hn::Mul(v.v[j], scale));
    }
    store_up_to_16(v, out + i, d - i);
  }
}

HWY_INLINE void rotate(V a, V b, V cosine, V sine, V& new_a, V& new_b) {
  new_a = hn::Sub(hn::Mul(a, cosine), hn::Mul(b, sine));
  new_b = hn::Add(hn::Mul(b, cosine), hn::Mul(a, sine));
}

HWY_INLINE void rotate1(float& a, float& b, float cosine, float sine) {
  const float old_a = a;
  a = old_a * cosine - b * sine;
  b = b * cosine + old_a * sine;
}

void rope_half_split(float* x, const float* cosine, const float* sine, int64_t n_heads,
                     int64_t head_dim, int64_t rotary_dim) {
  const D d;
  const int64_t half = rotary_dim / 2;
  for (int64_t h = 0; h < n_heads; ++h, x += head_dim) {
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      V a;
      V b;
      rotate(hn::LoadU(d, x + i), hn::LoadU(d, x + half + i), hn::LoadU(d, cosine + i),
             hn::LoadU(d, sine + i), a, b);
      hn::StoreU(a, d, x + i);
      hn::StoreU(b, d, x + half + i);
    }
    for (; i < half; ++i) {
      rotate1(x[i], x[half + i], cosine[i], sine[i]);
    }
  }
}

void rope_interleaved(float* x, const float* cosine, const float* sine, int64_t n_heads,
                      int64_t head_dim, int64_t rotary_dim) {
  const D d;
  const int64_t half = rotary_dim / 2;
  for (int64_t h = 0; h < n_heads; ++h, x += head_dim) {
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      V old_a;
      V old_b;
      hn::LoadInterleaved2(d, x + 2 * i, old_a, old_b);
      V a;
      V b;
      rotate(old_a, old_b, hn::LoadU(d, cosine + i), hn::LoadU(d, sine + i), a, b);
      hn::StoreInterleaved2(a, b, d, x + 2 * i);
    }
    for (; i < half; ++i) {
      rotate1(x[2 * i], x[2 * i + 1], cosine[i], sine[i]);
    }
  }
}

// q . key of four keys.
HWY_INLINE V4 score4(const float* q, const float* const* keys, int64_t head_dim) {
  V16 s0 = zero16();
  V16 s1 = zero16();
  V16 s2 = zero16();
  V16 s3 = zero16();
  for (int64_t i = 0; i < head_dim; i += 16) {
    const int64_t n = head_dim - i;
    const V16 v = load_up_to_16(q + i, n);
    mul_add16(load_up_to_16(keys[0] + i, n), v, s0);
    mul_add16(load_up_to_16(keys[1] + i, n), v, s1);
    mul_add16(load_up_to_16(keys[2] + i, n), v, s2);
    mul_add16(load_up_to_16(keys[3] + i, n), v, s3);
  }
  return reduce4(s0, s1, s2, s3);
}

// Scores of the positions [p, p + n), whose keys stand one after the other in a page.
HWY_INLINE void score_run(const AttendTask& task, const float* keys, int64_t n, float* scores) {
  for (int64_t p = 0; p < n; p += 4) {
    const int64_t count = n - p < 4 ? n - p : 4;
    const float* key[4];
    for (int64_t i = 0; i < 4; ++i) {
      key[i] = keys + (p + (i < count ? i : count - 1)) * task.head_dim;
    }
    for (int64_t h = 0; h < task.n_heads; ++h) {
      const V4 dots = score4(task.q + h * task.head_dim, key, task.head_dim);
      alignas(16) float values[4];
      hn::Store(hn::Mul(dots, hn::Set(D4(), task.scale)), D4(), values);
      float* out = scores + h * task.score_stride + p;
      for (int64_t i = 0; i < count; ++i) {
        out[i] = values[i];
      }
    }
  }
}

// Turns n scores, padded to 16, into weights that sum to 1 / (what is returned), the largest is 1.
HWY_INLINE float softmax(float* scores, int64_t n) {
  const int64_t end = (n + 15) / 16 * 16;
  const float lowest = hn::GetLane(hn::Neg(hn::Inf(D())));
  for (int64_t i = n; i < end; ++i) {
    scores[i] = lowest;
  }
  float largest = lowest;
  V16 most = load16(scores);
  for (int64_t i = 16; i < end; i += 16) {
    const V16 v = load16(scores + i);
    for (int j = 0; j < kVecs; ++j) {
      most.v[j] = hn::Max(most.v[j], v.v[j]);
    }
  }
  for (int j = 0; j < kVecs; ++j) {
    const float lane = hn::GetLane(hn::MaxOfLanes(D(), most.v[j]));
    largest = lane > largest ? lane : largest;
  }
  const V shift = hn::Set(D(), largest);
  V16 total = zero16();
  for (int64_t i = 0; i < end; i += 16) {
    V16 v = load16(scores + i);
    for (int j = 0; j < kVecs; ++j) {
      v.v[j] = hn::Sub(v.v[j], shift);
    }
    v = exp16(v);
    for (int j = 0; j < kVecs; ++j) {
      total.v[j] = hn::Add(total.v[j], v.v[j]);
    }
    store16(v, scores + i);
  }
  return 1.0F / reduce1(total);
}

// Adds weight * value over the positions in ascending order for kColumns vectors of kHeads heads.
template <int kHeads, int kColumns>
HWY_INLINE void mix(const AttendTask& task, int64_t head, int64_t column, const float* factors) {
  const D d;
  V s[kHeads][kColumns];
  for (int h = 0; h < kHeads; ++h) {
    for (int c = 0; c < kColumns; ++c) {
      s[h][c] = hn::Zero(d);
    }
  }
  const float* weights = task.scores + head * task.score_stride;
  for (int64_t p = task.first; p <= task.last;) {
    const int64_t in_page = p % task.page_positions;
    const int64_t left = task.page_positions - in_page;
    const int64_t n = task.last - p + 1 < left ? task.last - p + 1 : left;
    const float* values = task.value_pages[p / task.page_positions] + task.page_offset +
                          in_page * task.head_dim + column;
    for (int64_t i = 0; i < n; ++i, values += task.head_dim, ++weights) {
      V v[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        v[c] = hn::LoadU(d, values + c * kLanes);
      }
      for (int h = 0; h < kHeads; ++h) {
        const V weight = hn::Set(d, weights[h * task.score_stride]);
        for (int c = 0; c < kColumns; ++c) {
          s[h][c] = hn::MulAdd(weight, v[c], s[h][c]);
        }
      }
    }
    p += n;
  }
  for (int h = 0; h < kHeads; ++h) {
    const V factor = hn::Set(d, factors[h]);
    float* out = task.out + (head + h) * task.head_dim + column;
    for (int c = 0; c < kColumns; ++c) {
      hn::StoreU(hn::Mul(s[h][c], factor), d, out + c * kLanes);
    }
  }
}

// The columns that fill no vector: the same sums, one lane at a time.
HWY_INLINE void mix_column(const AttendTask& task, int64_t head, int64_t column, float factor) {
  const hn::CappedTag<float, 1> d1;
  auto sum = hn::Zero(d1);
  const float* weights = task.scores + head * task.score_stride;
  for (int64_t p = task.first; p <= task.last; ++p, ++weights) {
    const float* page = task.value_pages[p / task.page_positions] + task.page_offset;
    const float value = page[p % task.page_positions * task.head_dim + column];
    sum = hn::MulAdd(hn::Set(d1, *weights), hn::Set(d1, value), sum);
  }
  task.out[head * task.head_dim + column] = hn::GetLane(hn::Mul(sum, hn::Set(d1, factor)));
}

template <int kHeads>
HWY_INLINE void mix_heads(const AttendTask& task, int64_t head, const float* factors) {
  constexpr int kColumns = kManyRegisters ? 4 : 2;
  int64_t column = 0;
  for (; column + kColumns * kLanes <= task.head_dim; column += kColumns * kLanes) {
    mix<kHeads, kColumns>(task, head, column, factors);
  }
  for (; column + kLanes <= task.head_dim; column += kLanes) {
    mix<kHeads, 1>(task, head, column, factors);
  }
  for (; column < task.head_dim; ++column) {
    for (int h = 0; h < kHeads; ++h) {
      mix_column(task, head + h, column, factors[h]);
    }
  }
}

void attend(const AttendTask& task) {
  for (int64_t p = task.first; p <= task.last;) {
    const int64_t in_page = p % task.page_positions;
    const int64_t left = task.page_positions - in_page;
    const int64_t n = task.last - p + 1 < left ? task.last - p + 1 : left;
    const float* keys =
        task.key_pages[p / task.page_positions] + task.page_offset + in_page * task.head_dim;
    score_run(task, keys, n, task.scores + (p - task.first));
    p += n;
  }
  const int64_t n = task.last - task.first + 1;
  for (int64_t head = 0; head < task.n_heads;) {
    const int64_t left = task.n_heads - head;
    const int64_t count = left < 4 ? left : 4;
    float factors[4];
    for (int64_t h = 0; h < count; ++h) {
      factors[h] = softmax(task.scores + (head + h) * task.score_stride, n);
    }
    switch (count) {
      case 4:
        mix_heads<4>(task, head, factors);
        break;
      case 3:
        mix_heads<3>(task, head, factors);
        break;
      case 2:
        mix_heads<2>(task, head, factors);
        break;
      default:
        mix_heads<1>(task, head, factors);
    }
    head += count;
  }
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    V16 g = load_up_to_16(gate + i, n - i);
    const V16 u = load_up_to_16(up + i, n - i);
    for (int j = 0; j < kVecs; ++j) {
      g.v[j] = hn::Mul(silu_lanes(g.v[j]), u.v[j]);
    }
    store_up_to_16(g, out + i, n - i);
  }
}

void silu(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    V16 v = load_up_to_16(x + i, n - i);
    for (int j = 0; j < kVecs; ++j) {
      v.v[j] = silu_lanes(v.v[j]);
    }
    store_up_to_16(v, x + i, n - i);
  }
}

void relu2(float* x, int64_t n) {
  const V zero = hn::Zero(D());
  for (int64_t i = 0; i < n; i += 16) {
    V16 v = load_up_to_16(x + i, n - i);
    for (int j = 0; j < kVecs; ++j) {
      // Not Max, which may lose a NaN.
      const V positive = hn::IfThenElse(hn::Lt(v.v[j], zero), zero, v.v[j]);
      v.v[j] = hn::Mul(positive, positive);
    }
    store_up_to_16(v, x + i, n - i);
  }
}

float read(const float* values, int64_t n) {
  V16 s0 = zero16();
  V16 s1 = zero16();
  V16 s2 = zero16();
  V16 s3 = zero16();
  for (int64_t i = 0; i < n; i += 64) {
    for (int j = 0; j < kVecs; ++j) {
      const float* p = values + i + j * kLanes;
      s0.v[j] = hn::Add(s0.v[j], hn::LoadU(D(), p));
      s1.v[j] = hn::Add(s1.v[j], hn::LoadU(D(), p + 16));
      s2.v[j] = hn::Add(s2.v[j], hn::LoadU(D(), p + 32));
      s3.v[j] = hn::Add(s3.v[j], hn::LoadU(D(), p + 48));
    }
  }
  return hn::GetLane(hn::SumOfLanes(D4(), reduce4(s0, s1, s2, s3)));
}

constexpr StepKernels kStepKernels = {
    rms_norm, rope_half_split, rope_interleaved, attend, silu_mul, silu, relu2, read};

const StepKernels* step_kernels() {
  return &kStepKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace logitlab
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#if HWY_ONCE
#include "backend/cpu/targets-inl.h"

namespace logitlab {

const StepKernels* step_kernels_of(int64_t target) {
  LOGITLAB_KERNELS_OF(target, StepKernels, step_kernels);
}

}  // namespace logitlab
#endif  // HWY_ONCE
