#include "sampling/logits_dtype.h"

#include "tensor/dtype.h"

namespace logitlab {

void round_logits(std::span<float> logits, LogitsDtype dtype) {
  switch (dtype) {
    case LogitsDtype::kFloat32:
      return;
    case LogitsDtype::kBfloat16:
      for (float& logit : logits) {
        logit = bf16_to_float(float_to_bf16(logit));
      }
      return;
    case LogitsDtype::kFloat16:
      for (float& logit : logits) {
        logit = f16_to_float(float_to_f16(logit));
      }
      return;
  }
}

}  // namespace logitlab
