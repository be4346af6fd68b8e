// One row each of up to kMaxDecodeRows sequences: the step that is repeated for every token.
//
// The whole step is one CUDA graph of kernels with programmatic edges, captured once per number of
// sequences. Inputs of matrices are split in two BF16 parts (16 bits of mantissa), sums are float32
// in an order that depends on their length alone: a sequence gets the same bits alone, in any
// batch, and each time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "backend/cuda/layout.h"

namespace logitlab::cuda {

constexpr int kMaxDecodeRows = 64;

// How decode chooses by itself: arg-max (equal ones: the lowest id), or the Gumbel form of
// sampling/sampler.h over scores = logits / temperature.
struct Draw {
  bool samples = false;
  float temperature = 1;
  uint64_t seed = 0;
  uint64_t sequence_index = 0;
  uint64_t first_step = 0;  // number of the first step that is drawn
};

struct PhaseTime {
  std::string name;
  int64_t count = 0;        // launches a step
  double bytes = 0;         // weights and states read and written by all of them
  double microseconds = 0;  // all of them
};

class Decoder {
 public:
  virtual ~Decoder() = default;

  // `model` and what it points at outlive the decoder. kMaxDecodeRows rows of work space are taken
  // from the device.
  [[nodiscard]] static cudaError_t make(const ModelView& model, std::unique_ptr<Decoder>* decoder);

  // Queues one step on `stream`: ids[i] follows the sequences[i].length positions that sequence i
  // holds, and is appended to its state; its page table has room. Then logits() are those of the
  // rows. sequences, ids: host memory, 1 to kMaxDecodeRows, no two with the same state.
  [[nodiscard]] virtual cudaError_t step(std::span<const Sequence> sequences,
                                         std::span<const int> ids, cudaStream_t stream) = 0;

  // n_steps steps without the host: the chosen id of a step is the input of the next. out (host):
  // [n_sequences, n_steps] chosen ids. Returns when they are there.
  [[nodiscard]] virtual cudaError_t steps(std::span<const Sequence> sequences,
                                          std::span<const int> first, std::span<const Draw> draws,
                                          int n_steps, int* out, cudaStream_t stream) = 0;

  // Queues final norm and head for n rows of a residual (device, [n, hidden_size], 1 to
  // kMaxDecodeRows): logits() are then theirs, the same bits that step() would give.
  [[nodiscard]] virtual cudaError_t head(const float* residual, int n, cudaStream_t stream) = 0;

  // Device memory, [rows, vocab_size] of the last step() or head().
  [[nodiscard]] virtual const float* logits() const = 0;
  [[nodiscard]] virtual size_t scratch_bytes() const = 0;

  // Time per kind of phase of one step of these sequences, medians of `repeats`; the states are
  // changed.
  [[nodiscard]] virtual cudaError_t profile(std::span<const Sequence> sequences, int repeats,
                                            std::vector<PhaseTime>* phases,
                                            cudaStream_t stream) = 0;
};

}  // namespace logitlab::cuda
