// A plain double-precision version of prefill on the host, for tiny models. Reads the same
// ModelView as the kernels, through host copies of what its pointers point at.
//
// With `rounds` the inputs of matrices are rounded to BF16 where prefill.h says so. What is left
// between the two is then float32 against double, and roundings that fall to the other side because
// of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <vector>

#include <cuda_bf16.h>

#include "backend/cuda/layout.h"

namespace logitlab::cuda::reference {

using Rows = std::vector<double>;

// Host copies of device arrays, found by their device address.
class Mirror {
 public:
  template <typename T>
  void keep(const T* device, const std::vector<T>& values) {
    std::vector<char>& copy = copies_[device];
    copy.resize(values.size() * sizeof(T));
    std::memcpy(copy.data(), values.data(), copy.size());
  }

  template <typename T>
  const T* host(const T* device) const {
    return device == nullptr ? nullptr : reinterpret_cast<const T*>(copies_.at(device).data());
  }

 private:
  std::unordered_map<const void*, std::vector<char>> copies_;
};

// All that a sequence holds; positions are those of all rows so far.
struct State {
  Rows conv;               // as Sequence::conv
  Rows ssm;                // as Sequence::ssm
  std::vector<Rows> keys;  // [attention layer][position, kv_head, head_dim]
  std::vector<Rows> values;
};

inline double to_bf16(double x) {
  return static_cast<double>(__bfloat162float(__float2bfloat16_rn(static_cast<float>(x))));
}

inline double silu(double x) {
  return x / (1 + std::exp(-x));
}

class Reference {
 public:
  Reference(const ModelView& model, const Mirror& mirror, bool rounds)
      : model_(model), mirror_(mirror), rounds_(rounds) {}

  // Residual of all rows, from a state of no positions, which is moved on. embedded: the residual
  // before the first layer.
  Rows run(const std::vector<int>& ids, State* state, Rows* embedded) {
    rows_ = static_cast<int>(ids.size());
    const int d = model_.hidden_size;
    const __nv_bfloat16* const table = mirror_.host(model_.embedding.weight);
    residual_.assign(static_cast<size_t>(rows_) * d, 0);
    for (int r = 0; r < rows_; ++r) {
      for (int i = 0; i < d; ++i) {
        residual_[r * d + i] = __bfloat162float(table[static_cast<int64_t>(ids[r]) * d + i]);
      }
    }
    *embedded = residual_;
    for (const Layer& layer : model_.layers) {
      const Rows x = norm(residual_, mirror_.host(layer.norm), model_.norm_eps, d);
      const Rows rounded = round(x);
      switch (layer.kind) {
        case LayerKind::kMamba:
          mamba(layer.mamba, rounded, state);
          break;
        case LayerKind::kAttention:
          attention(layer.attention, rounded, state);
          break;
        case LayerKind::kMoe:
          moe(layer.moe, x, rounded);
          break;
        case LayerKind::kMlp:
          add(mlp(layer.mlp, rounded));
          break;
      }
    }
    return residual_;
  }

 private:
  Rows round(Rows x) const {
    for (double& value : x) {
      value = rounds_ ? to_bf16(value) : value;
    }
    return x;
  }

  // Runs of d values, each normed by itself.
  static Rows norm(const Rows& x, const float* weight, double eps, int d) {
    Rows y(x.size());
    for (size_t first = 0; first < x.size(); first += d) {
      double sum = 0;
      for (int i = 0; i < d; ++i) {
        sum += x[first + i] * x[first + i];
      }
      const double scale = 1 / std::sqrt(sum / d + eps);
      for (int i = 0; i < d; ++i) {
        y[first + i] = weight[i] * x[first + i] * scale;
      }
    }
    return y;
  }

  Rows product(const __nv_bfloat16* weight, const float* bias, int n, int k, const Rows& x) const {
    std::vector<double> wide(static_cast<size_t>(n) * k);
    for (size_t i = 0; i < wide.size(); ++i) {
      wide[i] = __bfloat162float(weight[i]);
    }
    const size_t rows = x.size() / k;
    Rows y(rows * n);
    for (size_t r = 0; r < rows; ++r) {
      for (int o = 0; o < n; ++o) {
        double sum = bias != nullptr ? bias[o] : 0;
        for (int i = 0; i < k; ++i) {
          sum += wide[static_cast<size_t>(o) * k + i] * x[r * k + i];
        }
        y[r * n + o] = sum;
      }
    }
    return y;
  }

  Rows product(const Matrix& m, const Rows& x) const {
    return product(mirror_.host(m.weight), mirror_.host(m.bias), m.rows, m.columns, x);
  }

  void add(const Rows& y) {
    for (size_t i = 0; i < y.size(); ++i) {
      residual_[i] += y[i];
    }
  }

  // [rows, f] from the sums of the first matrix; kSiluMul halves the width.
  static Rows activate(Gate gate, const Rows& x, int width) {
    Rows y;
    if (gate == Gate::kSiluMul) {
      const int f = width / 2;
      for (size_t first = 0; first < x.size(); first += width) {
        for (int i = 0; i < f; ++i) {
          y.push_back(silu(x[first + i]) * x[first + f + i]);
        }
      }
      return y;
    }
    for (const double value : x) {
      const double positive = std::max(value, 0.0);
      y.push_back(gate == Gate::kRelu2 ? positive * positive : silu(value));
    }
    return y;
  }

  Rows mlp(const MlpLayer& layer, const Rows& x) const {
    return product(layer.down, round(activate(layer.gate, product(layer.up, x), layer.up.rows)));
  }

  void mamba(const MambaLayer& m, const Rows& x, State* state);
  void scan(const MambaLayer& m, const Rows& convolved, const double* dt, double* ssm, double* y);
  void attention(const AttentionLayer& a, const Rows& x, State* state);
  void rotate(double* v, int position) const;
  void moe(const MoeLayer& m, const Rows& exact, const Rows& x);
  std::vector<std::pair<int, double>> route(const MoeLayer& m, const double* logits) const;

  const ModelView& model_;
  const Mirror& mirror_;
  bool rounds_;
  int rows_ = 0;
  Rows residual_;
};

}  // namespace logitlab::cuda::reference

#include "prefill_reference_layers.h"
