// The readers of foreign bytes as functions of bytes. libFuzzer calls one per binary
// (fuzz_main.cc); replay_test.cc calls all of them over the committed files. A new reader adds its
// function here, a row to kFuzzTargets and a line to CMakeLists.txt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace logitlab {

// Each aborts (CHECK, sanitizer) when the reader breaks a promise of its header; a refusal is fine.
void fuzz_safetensors(std::span<const uint8_t> input);
void fuzz_gguf(std::span<const uint8_t> input);
// config.json and its getters, the safetensors index, .npy.
void fuzz_config(std::span<const uint8_t> input);
void fuzz_trace(std::span<const uint8_t> input);
// A line of `logitlab process`: rows, ids and settings through the processors.
void fuzz_process(std::span<const uint8_t> input);
// A study file.
void fuzz_study(std::span<const uint8_t> input);

struct FuzzTarget {
  std::string_view name;  // also the folder of its seeds below corpus/
  void (*run)(std::span<const uint8_t> input);
};
inline constexpr FuzzTarget kFuzzTargets[] = {
    {"fuzz_safetensors", fuzz_safetensors}, {"fuzz_gguf", fuzz_gguf},
    {"fuzz_config", fuzz_config},           {"fuzz_trace", fuzz_trace},
    {"fuzz_process", fuzz_process},         {"fuzz_study", fuzz_study},
};

}  // namespace logitlab
