// Mixtures of experts, and the plain MLP that an expert is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "nn/layers.h"

namespace logitlab {

// down(activation(up x)).
struct Mlp {
  Linear up;    // [f, d]
  Linear down;  // [d, f]
  Activation activation = Activation::kRelu2;

  // residual [rows, d] += the above. x: [rows, d], already normed.
  void apply(ExecContext& context, int64_t rows, const float* x, float* residual) const;
};

// How a router's logits become experts.
struct Routing {
  int64_t n_experts = 0;
  int64_t n_chosen = 0;     // experts of a token
  int64_t n_groups = 1;     // equal runs of experts; divides n_experts
  int64_t kept_groups = 1;  // groups that a token may choose from
  bool normalises = true;   // the weights of a token are divided by their sum
  float scale = 1.0F;       // multiplies the weights
};

struct ChosenExpert {
  int64_t expert = 0;
  float weight = 0;
};

// The experts of one token, in ascending order. A sigmoid makes scores of the logits [n_experts];
// scores plus `correction` (n_experts, or none) decide the choice, scores alone make the weights.
// With groups, those whose two best sums are largest are kept. Equal ones: the lower index.
// chosen: [n_chosen].
void route(const Routing& routing, const float* logits, const float* correction,
           std::span<ChosenExpert> chosen);

struct MixtureOfExperts {
  Linear router;                      // [n_experts, d]
  const float* correction = nullptr;  // [n_experts] or none
  std::vector<Tensor> up;             // n_experts of [f, w]; w: latent size, or d
  std::vector<Tensor> down;           // n_experts of [w, f]
  Linear latent_in;                   // [w, d]
  Linear latent_out;                  // [d, w]
  bool has_latent = false;
  Mlp shared;  // on d, for every token, weight 1
  bool has_shared = false;
  Routing routing;
  Activation activation = Activation::kRelu2;

  // residual [rows, d] += sum over the chosen experts of weight * expert(x), in ascending order of
  // experts, + shared(x). x: [rows, d], already normed. A row's result does not depend on the
  // others.
  void apply(ExecContext& context, int64_t rows, const float* x, float* residual) const;
};

}  // namespace logitlab
