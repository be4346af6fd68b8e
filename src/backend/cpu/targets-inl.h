// From Highway's target bit to the function that was compiled for it.
#pragma once

// Highway's last resort (vectors of one lane) is not compiled, and its emulated vectors only where
// they are the static target.
#if HWY_STATIC_TARGET == HWY_EMU128
#define LOGITLAB_CHOOSE_EMU128(function) &HWY_STATIC_DISPATCH(function)
#else
#define LOGITLAB_CHOOSE_EMU128(function) nullptr
#endif

// Returns what `function` of that target returns, or nullptr where the target was not compiled.
#define LOGITLAB_KERNELS_OF(target, Kernels, function)            \
  const struct {                                                  \
    int64_t bit;                                                  \
    const Kernels* (*kernels)();                                  \
  } entries[] = {{HWY_AVX3, HWY_CHOOSE_AVX3(function)},           \
                 {HWY_AVX2, HWY_CHOOSE_AVX2(function)},           \
                 {HWY_SSE4, HWY_CHOOSE_SSE4(function)},           \
                 {HWY_NEON, HWY_CHOOSE_NEON(function)},           \
                 {HWY_EMU128, LOGITLAB_CHOOSE_EMU128(function)}}; \
  for (const auto& entry : entries) {                             \
    if (entry.bit == (target) && entry.kernels != nullptr) {      \
      return entry.kernels();                                     \
    }                                                             \
  }                                                               \
  return nullptr
