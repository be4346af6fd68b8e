// Many rows of one sequence through the model at once.
//
// Inputs of matrices are rounded to BF16, sums are float32; the router's input is split in two BF16
// parts, so that its logits are float32 as far as 16 bits of mantissa go; so are the inputs of the
// SSM scan's products. The residual, norms, softmax, convolution and SSM state are float32. A
// result depends on the sequence's own rows, state and the cutting into chunks alone; the same call
// gives the same bits each time (no float atomics).
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

#include "backend/cuda/layout.h"

namespace logitlab::cuda {

// The longest chunk that prefill() takes; callers cut longer prompts.
constexpr int kMaxPrefillRows = 8192;

// Work space of a chunk of `rows` rows.
[[nodiscard]] size_t prefill_workspace_bytes(const ModelView& model, int rows);

// Queues the rows on `stream`: ids [rows] (device) follow the sequence.length positions that the
// sequence holds; its page table has room for them. Afterwards residual [rows, hidden_size]
// (device, float32) is the input of the final norm, and the sequence's conv, ssm and pages include
// the rows. No allocation, no synchronisation with the host. 1 <= rows <= kMaxPrefillRows.
[[nodiscard]] cudaError_t prefill(const ModelView& model, const Sequence& sequence, const int* ids,
                                  int rows, void* workspace, float* residual, cudaStream_t stream);

}  // namespace logitlab::cuda
