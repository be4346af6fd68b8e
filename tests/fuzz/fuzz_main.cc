// libFuzzer's entry. LOGITLAB_FUZZ_TARGET is the function that this binary runs.
#include "targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  logitlab::LOGITLAB_FUZZ_TARGET({data, size});
  return 0;
}
