#include "backend/cuda/device.h"

#include <string>
#include <vector>

#include "backend/cuda/device_text.h"

namespace logitlab::cuda {
namespace {

constexpr std::string_view kArchitectures = LOGITLAB_CUDA_ARCHITECTURES;

// Properties of a device that is there, and its memory, for which it is opened.
GpuDevice describe(int ordinal) {
  GpuDevice device;
  device.ordinal = ordinal;
  cudaDeviceProp properties = {};
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, ordinal);
      error != cudaSuccess) {
    device.why_not = cudaGetErrorString(error);
    return device;
  }
  device.name = properties.name;
  device.total_bytes = properties.totalGlobalMem;
  device.n_multiprocessors = properties.multiProcessorCount;
  device.capability_major = properties.major;
  device.capability_minor = properties.minor;
  if (!is_compiled_for(kArchitectures, properties.major, properties.minor)) {
    device.why_not = not_compiled_message(device, kArchitectures);
    return device;
  }
  cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) {
    error = cudaMemGetInfo(&device.free_bytes, &device.total_bytes);
  }
  if (error != cudaSuccess) {
    device.why_not = fmt::format("device cuda:{}: {} cannot be opened: {}", ordinal, device.name,
                                 cudaGetErrorString(error));
    (void)cudaGetLastError();
  }
  return device;
}

struct Driver {
  std::string driver_version;
  std::string runtime_version;
  int n_devices = 0;
  cudaError_t error = cudaSuccess;  // of counting the devices
};

Driver ask_driver() {
  Driver driver;
  int version = 0;
  driver.runtime_version = version_text(CUDART_VERSION);
  if (cudaDriverGetVersion(&version) == cudaSuccess) {
    driver.driver_version = version_text(version);
  }
  driver.error = cudaGetDeviceCount(&driver.n_devices);
  if (driver.error != cudaSuccess) {
    driver.n_devices = 0;
    (void)cudaGetLastError();
  }
  return driver;
}

std::vector<std::string> names_of(int n_devices) {
  std::vector<std::string> names;
  for (int i = 0; i < n_devices; ++i) {
    cudaDeviceProp properties = {};
    const bool is_known = cudaGetDeviceProperties(&properties, i) == cudaSuccess;
    names.emplace_back(is_known ? properties.name : "?");
  }
  return names;
}

// Why there is no device `ordinal`; empty when there is one.
std::string why_none(const Driver& driver, int ordinal) {
  if (driver.driver_version.empty()) {
    return no_driver_message(ordinal, driver.runtime_version);
  }
  if (driver.error == cudaErrorInsufficientDriver) {
    return old_driver_message(ordinal, driver.driver_version, driver.runtime_version);
  }
  if (driver.error != cudaSuccess && driver.error != cudaErrorNoDevice) {
    return fmt::format("device cuda:{}: the driver answers: {}", ordinal,
                       cudaGetErrorString(driver.error));
  }
  if (ordinal >= driver.n_devices) {
    return no_such_device_message(ordinal, names_of(driver.n_devices));
  }
  return {};
}

}  // namespace

Status status_of(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) {
    return {};
  }
  // Forgets an error that is not sticky, so that the next call is not blamed for it.
  (void)cudaGetLastError();
  const auto code = error == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted
                    : error == cudaErrorNotSupported   ? ErrorCode::kUnsupported
                                                       : ErrorCode::kUnavailable;
  return fail(code, "CUDA: {}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

Result<GpuDevice> open_device(int ordinal) {
  const Driver driver = ask_driver();
  if (std::string reason = why_none(driver, ordinal); !reason.empty()) {
    return fail(ErrorCode::kUnavailable, "{}", reason);
  }
  GpuDevice device = describe(ordinal);
  if (!device.why_not.empty()) {
    return fail(ErrorCode::kUnavailable, "{}", device.why_not);
  }
  return device;
}

}  // namespace logitlab::cuda

namespace logitlab {

GpuReport examine_gpus() {
  GpuReport report;
  report.is_built = true;
  report.architectures = cuda::architecture_list(cuda::kArchitectures);
  const cuda::Driver driver = cuda::ask_driver();
  report.runtime_version = driver.runtime_version;
  report.driver_version = driver.driver_version;
  for (int i = 0; i < driver.n_devices; ++i) {
    report.devices.push_back(cuda::describe(i));
  }
  report.reason = cuda::why_none(driver, 0);
  return report;
}

}  // namespace logitlab
