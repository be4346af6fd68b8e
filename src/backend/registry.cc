#include <charconv>

#include "backend/backend.h"
#include "backend/device_model.h"
#include "base/env.h"

namespace logitlab {
namespace {

constexpr std::string_view kCuda = "cuda:";

Result<std::unique_ptr<Backend>> make_cuda(std::string_view device) {
  const std::string_view digits = device.substr(kCuda.size());
  int ordinal = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ordinal);
  if (error != std::errc() || end != digits.data() + digits.size() || ordinal < 0) {
    return fail(ErrorCode::kInvalidArgument, "device \"{}\": want cuda:N with N from 0", device);
  }
  return make_cuda_backend(ordinal);
}

}  // namespace

Result<std::unique_ptr<DeviceModel>> Backend::make_device_model(
    const DeviceModelSpec& /*spec*/, const DeviceLoadOptions& /*options*/) const {
  return fail(ErrorCode::kUnsupported, "backend {} runs models layer by layer", name());
}

Result<std::unique_ptr<Backend>> make_backend(std::string_view device) {
  if (device == "cpu" || device == "auto") {
    return make_cpu_backend(env_var("LOGITLAB_CPU_ISA").value_or(""));
  }
  if (device == "reference") {
    return make_reference_backend();
  }
  if (device.starts_with(kCuda)) {
    return make_cuda(device);
  }
  return fail(ErrorCode::kInvalidArgument,
              "device \"{}\": want one of cpu, cuda:N, reference, auto", device);
}

}  // namespace logitlab
