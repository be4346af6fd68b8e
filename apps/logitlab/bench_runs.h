// What the measurements of bench share.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace logitlab {

// The same ids on every machine: Philox with a fixed key.
[[nodiscard]] std::vector<TokenId> bench_prompt(int64_t n, int64_t vocab_size);

// `values` is not empty.
[[nodiscard]] double median(std::vector<double> values);

// Bytes of keys and values that one decode step of one sequence reads, the mean over the steps
// after a prompt; a window bounds its layer.
[[nodiscard]] double kv_read_bytes(const Model& model, int64_t prompt_tokens, int64_t new_tokens);

// new_tokens + 1 tokens whatever they are: the first one comes with the prefill, a decode rate
// counts the steps after it. kCancelled when the user stops it.
[[nodiscard]] Result<GenerationResult> generate_without_end(Engine& engine, GenerationConfig config,
                                                            const std::vector<TokenId>& prompt,
                                                            int64_t new_tokens,
                                                            GenerateOptions options);

}  // namespace logitlab
