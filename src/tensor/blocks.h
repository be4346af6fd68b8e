// GGUF's quantised blocks: layouts and scalar conversion. Facts: ggml's block formats; d, m and
// dmin are little-endian IEEE half floats. All blocks are read at any alignment.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace logitlab {

// Decodes n elements, a multiple of the type's block. A type without blocks is a CHECK.
void decode_blocks(DType dtype, const std::byte* blocks, float* out, int64_t n);

// Encodes to Q8_0, Q4_0 or Q4_1 (others: CHECK): the simple max or min-max scale, for tests and
// synthetic files.
void encode_blocks(DType dtype, const float* values, std::byte* blocks, int64_t n);

}  // namespace logitlab
