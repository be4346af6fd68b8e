// The layers of prefill_reference.h, which includes this.
#pragma once

#include "prefill_reference.h"

namespace logitlab::cuda::reference {

// One token: v = its x | B | C after the convolution.
inline void Reference::scan(const MambaLayer& m, const Rows& v, const double* dt, double* ssm,
                            double* y) {
  const float* const dt_bias = mirror_.host(m.dt_bias);
  const float* const a = mirror_.host(m.a);
  const float* const d = mirror_.host(m.d);
  for (int h = 0; h < m.n_heads; ++h) {
    const double raw = dt[h] + dt_bias[h];
    const double soft = raw > 20 ? raw : std::log1p(std::exp(raw));
    const double step = std::min(std::max(soft, double{m.time_step_low}), double{m.time_step_high});
    const double decay = std::exp(step * a[h]);
    const int group = h / (m.n_heads / m.n_groups);
    const double* const b = v.data() + m.inner() + group * m.state_size;
    const double* const c = b + m.n_groups * m.state_size;
    for (int p = h * m.head_dim; p < (h + 1) * m.head_dim; ++p) {
      double sum = d[h] * v[p];
      for (int n = 0; n < m.state_size; ++n) {
        double& s = ssm[static_cast<int64_t>(p) * m.state_size + n];
        s = decay * s + step * v[p] * b[n];
        sum += s * c[n];
      }
      y[p] = sum;
    }
  }
}

inline void Reference::mamba(const MambaLayer& m, const Rows& x, State* state) {
  const Rows projected = product(m.in_proj, x);
  const int inner = m.inner();
  const int n = m.conv_size();
  const int kept = m.conv_kernel - 1;
  double* const conv = state->conv.data() + int64_t{m.state_layer} * kept * n;
  double* const ssm = state->ssm.data() + int64_t{m.state_layer} * inner * m.state_size;
  const float* const taps = mirror_.host(m.conv_weight);
  const float* const bias = mirror_.host(m.conv_bias);
  Rows gated(static_cast<size_t>(rows_) * inner);
  Rows v(n);
  for (int r = 0; r < rows_; ++r) {
    const double* const z = projected.data() + static_cast<size_t>(r) * m.projected();
    const double* const input = z + inner;
    for (int c = 0; c < n; ++c) {
      double sum = bias != nullptr ? bias[c] : 0;
      for (int k = 0; k < kept; ++k) {
        sum += taps[c * m.conv_kernel + k] * conv[k * n + c];
      }
      v[c] = silu(sum + taps[c * m.conv_kernel + kept] * input[c]);
    }
    if (kept > 0) {
      std::copy(conv + n, conv + kept * n, conv);
      std::copy(input, input + n, conv + (kept - 1) * n);
    }
    double* const y = gated.data() + static_cast<size_t>(r) * inner;
    scan(m, v, input + n, ssm, y);
    for (int i = 0; i < inner; ++i) {
      y[i] *= silu(z[i]);
    }
  }
  const int size = inner / m.n_groups;
  const float* const weight = mirror_.host(m.norm_weight);
  const std::vector<float> ones(size, 1.0F);
  Rows normed = norm(gated, ones.data(), m.norm_eps, size);
  for (size_t i = 0; i < normed.size(); ++i) {
    normed[i] *= weight[i % inner];
  }
  add(product(m.out_proj, round(normed)));
}

inline void Reference::rotate(double* v, int position) const {
  const RopeTable& rope = model_.rope;
  const float* const inv_freq = mirror_.host(rope.inv_freq);
  for (int i = 0; i < rope.rotary_dim / 2; ++i) {
    const float angle = static_cast<float>(position) * inv_freq[i];
    const double cosine = std::cos(double{angle}) * rope.attention_factor;
    const double sine = std::sin(double{angle}) * rope.attention_factor;
    const int first = rope.interleaved ? 2 * i : i;
    const int second = rope.interleaved ? 2 * i + 1 : i + rope.rotary_dim / 2;
    const double a = v[first];
    const double b = v[second];
    v[first] = a * cosine - b * sine;
    v[second] = b * cosine + a * sine;
  }
}

inline void Reference::attention(const AttentionLayer& a, const Rows& x, State* state) {
  const int n = a.head_dim;
  const int n_all = a.n_heads + 2 * a.n_kv_heads;
  Rows qkv = product(a.qkv, x);
  for (int index = 0; index < rows_ * n_all; ++index) {
    const int head = index % n_all;
    double* const v = qkv.data() + static_cast<size_t>(index) * n;
    if (head >= a.n_heads + a.n_kv_heads) {
      continue;
    }
    const float* const gain = mirror_.host(head < a.n_heads ? a.q_norm : a.k_norm);
    if (gain != nullptr) {
      const Rows normed = norm(Rows(v, v + n), gain, a.qk_norm_eps, n);
      std::copy(normed.begin(), normed.end(), v);
    }
    if (a.has_rope) {
      rotate(v, index / n_all);
    }
  }
  qkv = round(qkv);
  Rows& keys = state->keys[a.state_layer];
  Rows& values = state->values[a.state_layer];
  const int width = a.n_kv_heads * n;
  for (int r = 0; r < rows_; ++r) {
    const double* const k = qkv.data() + (static_cast<size_t>(r) * n_all + a.n_heads) * n;
    keys.insert(keys.end(), k, k + width);
    values.insert(values.end(), k + width, k + 2 * width);
  }
  Rows mixed(static_cast<size_t>(rows_) * a.n_heads * n);
  for (int index = 0; index < rows_ * a.n_heads; ++index) {
    const int r = index / a.n_heads;
    const int head = index % a.n_heads;
    const int64_t kv = int64_t{head / (a.n_heads / a.n_kv_heads)} * n;
    const double* const q = qkv.data() + (static_cast<size_t>(r) * n_all + head) * n;
    const int first = a.window > 0 ? std::max(0, r - a.window + 1) : 0;
    Rows weights;
    double best = -INFINITY;
    for (int j = first; j <= r; ++j) {
      double dot = 0;
      for (int i = 0; i < n; ++i) {
        dot += q[i] * keys[j * int64_t{width} + kv + i];
      }
      weights.push_back(dot * a.scale);
      best = std::max(best, weights.back());
    }
    double sum = 0;
    double* const out = mixed.data() + static_cast<size_t>(index) * n;
    for (int j = first; j <= r; ++j) {
      const double weight = std::exp(weights[j - first] - best);
      sum += weight;
      for (int i = 0; i < n; ++i) {
        out[i] += weight * values[j * int64_t{width} + kv + i];
      }
    }
    for (int i = 0; i < n; ++i) {
      out[i] /= sum;
    }
  }
  add(product(a.o, round(mixed)));
}

// nn/moe.h's route(), in double.
inline std::vector<std::pair<int, double>> Reference::route(const MoeLayer& m,
                                                            const double* logits) const {
  const float* const correction = mirror_.host(m.correction);
  Rows scores;
  for (int e = 0; e < m.n_experts; ++e) {
    scores.push_back(1 / (1 + std::exp(-logits[e])));
  }
  Rows choices = scores;
  for (int e = 0; e < m.n_experts && correction != nullptr; ++e) {
    choices[e] += correction[e];
  }
  if (m.n_groups > 1) {
    const int size = m.n_experts / m.n_groups;
    std::vector<std::pair<double, int>> groups;
    for (int g = 0; g < m.n_groups; ++g) {
      Rows sorted(choices.begin() + g * size, choices.begin() + (g + 1) * size);
      std::sort(sorted.rbegin(), sorted.rend());
      groups.emplace_back(-(size > 1 ? sorted[0] + sorted[1] : sorted[0]), g);
    }
    std::sort(groups.begin(), groups.end());
    for (int g = m.kept_groups; g < m.n_groups; ++g) {
      std::fill_n(choices.begin() + groups[g].second * size, size, -INFINITY);
    }
  }
  std::vector<std::pair<int, double>> chosen;
  double sum = 0;
  for (int k = 0; k < m.n_chosen; ++k) {
    const auto best = std::max_element(choices.begin(), choices.end()) - choices.begin();
    chosen.emplace_back(static_cast<int>(best), scores[best]);
    sum += scores[best];
    choices[best] = -INFINITY;
  }
  for (auto& pair : chosen) {
    pair.second *= (m.normalises ? 1 / (sum + 1e-20) : 1.0) * m.scale;
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

inline void Reference::moe(const MoeLayer& m, const Rows& exact, const Rows& x) {
  const Rows logits = product(m.router, exact);
  const Rows input = m.has_latent ? round(product(m.latent_in, x)) : x;
  const __nv_bfloat16* const up = mirror_.host(m.up);
  const __nv_bfloat16* const down = mirror_.host(m.down);
  Rows sums(static_cast<size_t>(rows_) * m.w);
  for (int r = 0; r < rows_; ++r) {
    const Rows row(input.begin() + static_cast<int64_t>(r) * m.w,
                   input.begin() + static_cast<int64_t>(r + 1) * m.w);
    for (const auto& [expert, weight] :
         route(m, logits.data() + static_cast<size_t>(r) * m.n_experts)) {
      const int64_t at = int64_t{expert} * m.f * m.w;
      const Rows hidden = round(activate(m.gate, product(up + at, nullptr, m.f, m.w, row), m.f));
      const Rows out = product(down + at, nullptr, m.w, m.f, hidden);
      for (int i = 0; i < m.w; ++i) {
        sums[static_cast<size_t>(r) * m.w + i] += weight * out[i];
      }
    }
  }
  if (m.has_shared) {
    add(mlp(m.shared, x));
  }
  add(m.has_latent ? product(m.latent_out, round(sums)) : sums);
}

}  // namespace logitlab::cuda::reference
