// Small random models of every kind of layer, in host memory: run layer by layer on the host, and
// described for a device.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <span>
#include <variant>
#include <vector>

#include "backend/device_model.h"
#include "nn/layers.h"
#include "nn/mamba2.h"
#include "nn/moe.h"
#include "nn/rope.h"
#include "state/decode_state.h"

namespace logitlab {

struct AttentionOptions {
  int64_t n_heads = 4;
  int64_t n_kv_heads = 2;
  int64_t head_dim = 32;
  int64_t window = 0;
  bool has_rope = false;
  bool has_qk_norm = false;
  bool has_bias = false;
};

struct MixtureOptions {
  int64_t n_experts = 8;
  int64_t n_chosen = 2;
  int64_t n_groups = 1;
  int64_t kept_groups = 1;
  int64_t width = 96;
  int64_t latent = 0;
  int64_t shared_width = 0;
  bool normalises = true;
  float scale = 2.5F;
  Activation activation = Activation::kRelu2;
};

// An expert that a mixture may not choose.
struct Barred {
  size_t layer = 0;
  int64_t expert = 0;
};

struct Candidate {
  int64_t expert = 0;
  double choice = 0;  // score and correction: what decides
  // Standard deviation of `choice` when the mixture's input is off by its own size in a random
  // direction: the slope of the sigmoid there, times the size of the router's row, times the size
  // of the input over the root of its length.
  double spread = 0;
};

// How a mixture chose for a row: all experts, the best first; the first n_chosen are taken.
struct RowChoice {
  size_t layer = 0;
  size_t n_chosen = 0;
  std::vector<Candidate> experts;
};

// BF16 matrices, so that host and device start from the same numbers. Not movable: layers point at
// its memory.
class SmallModel {
 public:
  SmallModel(int64_t hidden_size, int64_t vocab_size, uint32_t seed, bool is_tied = false);
  SmallModel(const SmallModel&) = delete;
  SmallModel& operator=(const SmallModel&) = delete;

  void add_mamba(const Mamba2Shape& shape, bool has_bias = false);
  void add_attention(const AttentionOptions& options);
  void add_mixture(const MixtureOptions& options);
  void add_mlp(int64_t width, Activation activation, bool has_bias = false);
  void add_gated_mlp(int64_t width);
  // For all attention layers that have it.
  void set_rope(int64_t head_dim, RopeLayout layout, double theta = 10000.0);

  [[nodiscard]] int64_t vocab_size() const { return vocab_size_; }
  [[nodiscard]] size_t n_layers() const { return layers_.size(); }
  [[nodiscard]] DeviceModelSpec spec() const;
  [[nodiscard]] DecodeState make_host_state() const;
  // Logits of every id, [ids, vocab_size], on the backend of `context`.
  [[nodiscard]] std::vector<float> forward(ExecContext& context, DecodeState* state,
                                           std::span<const TokenId> ids) const;
  // The same of one id without the experts of `barred`; `choices` gets how each mixture without
  // groups chose.
  [[nodiscard]] std::vector<float> step(ExecContext& context, DecodeState* state, TokenId id,
                                        std::span<const Barred> barred,
                                        std::vector<RowChoice>* choices) const;

 private:
  struct Layer {
    RmsNorm norm;
    std::variant<Mamba2, Attention, MixtureOfExperts, Mlp, GatedMlp> mixer;
    bool has_rope = false;
  };

  // What step() asks of forward: one row.
  struct Watch {
    std::span<const Barred> barred;
    std::vector<RowChoice>* choices = nullptr;
  };
  [[nodiscard]] std::vector<float> run(ExecContext& context, DecodeState* state,
                                       std::span<const TokenId> ids, const Watch* watch) const;
  // The mixture as `watch` wants it, its corrections in *corrections.
  [[nodiscard]] MixtureOfExperts watched(ExecContext& context, size_t layer, const float* x,
                                         const Watch& watch, std::vector<float>* corrections) const;

  // Uniform with the standard deviation 1 / sqrt(columns), rounded to BF16.
  Tensor matrix(int64_t rows, int64_t columns);
  Linear linear(int64_t rows, int64_t columns, bool has_bias = false);
  const float* vector(int64_t n, float low, float high);
  RmsNorm norm(int64_t d);

  int64_t d_;
  int64_t vocab_size_;
  bool is_tied_;
  std::mt19937 random_;
  std::deque<std::vector<std::byte>> matrices_;
  std::deque<std::vector<float>> vectors_;
  Tensor embedding_;
  Linear head_;
  RmsNorm final_norm_;
  std::vector<Layer> layers_;
  std::unique_ptr<Rope> rope_;
  KvShape kv_;
  MambaStateShape mamba_;
};

}  // namespace logitlab
