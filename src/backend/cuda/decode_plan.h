// The phases of a decode step in order, for a number of rows.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <cuda_runtime.h>

#include "backend/cuda/decode_kernels.h"
#include "backend/cuda/layout.h"

namespace logitlab::cuda {

// Work space of kMaxDecodeRows rows, in device memory.
struct DecodeBuffers {
  float* x = nullptr;              // [rows, hidden_size], the residual
  float* projected = nullptr;      // [rows, largest input projection of a Mamba or attention layer]
  float* y = nullptr;              // [rows, largest input of an output projection]
  float* router_logits = nullptr;  // [rows, n_experts]
  float* shared_hidden = nullptr;  // [rows, width of the shared expert]
  float* shared_out = nullptr;     // [rows, hidden_size]
  float* hidden = nullptr;         // [rows * n_chosen, f] of experts, or [rows, f] of an MLP
  float* expert_out = nullptr;     // [rows * n_chosen, w]
  float* latent = nullptr;         // [rows, w]
  float* mixed = nullptr;          // [rows, w]
  float* logits = nullptr;         // [rows, vocab_size]
  uint32_t* packed = nullptr;
  float* squares = nullptr;
  float* attention_partial = nullptr;
  int* attention_arrived = nullptr;
  Routes routes;
  std::vector<Routes> routes_of_mixture;  // a layer each, which stay; empty: all in `routes`
  int* ids = nullptr;                     // [rows]
  Sequence* sequences = nullptr;          // [rows]
};

struct DecodePhase {
  std::string_view kind;
  double bytes = 0;  // of weights and states; of experts: of one
  int mixture = -1;  // of several rows' experts: number of the layer among the mixtures
  std::function<cudaError_t(cudaStream_t)> queue;
};

// ids and sequences are in the buffers when the phases run. The phases hold copies of what they
// need; `model`'s weights and the buffers outlive them.
[[nodiscard]] std::vector<DecodePhase> plan_step(const ModelView& model,
                                                 const DecodeBuffers& buffers,
                                                 const DeviceShape& device, int n);

// Final norm and head alone, of n rows of `residual`.
[[nodiscard]] DecodePhase plan_head(const ModelView& model, const DecodeBuffers& buffers,
                                    const DeviceShape& device, const float* residual, int n);

}  // namespace logitlab::cuda
