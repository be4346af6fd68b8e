// The CUDA backend takes whole models; it has no ops of its own.
#include <string>

#include "backend/backend.h"
#include "backend/cuda/cuda_model.h"
#include "backend/cuda/device.h"
#include "backend/device_model.h"
#include "base/check.h"

namespace logitlab {
namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(GpuDevice device)
      : device_(std::move(device)),
        name_(fmt::format("cuda:{}", device_.ordinal)),
        isa_(fmt::format("sm_{}{}", device_.capability_major, device_.capability_minor)) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::string_view isa() const override { return isa_; }
  [[nodiscard]] bool supports(Op /*op*/, DType weight) const override {
    return weight == DType::kBF16;
  }
  [[nodiscard]] bool runs_whole_models() const override { return true; }
  [[nodiscard]] Result<std::unique_ptr<DeviceModel>> make_device_model(
      const DeviceModelSpec& spec, const DeviceLoadOptions& options) const override {
    return cuda::make_cuda_model(device_, spec, options);
  }

  void embed(ExecContext& /*context*/, const Tensor& /*table*/, std::span<const TokenId> /*ids*/,
             float* /*out*/) const override {
    refuse();
  }
  void linear(ExecContext& /*context*/, const float* /*x*/, int64_t /*rows*/,
              std::span<const LinearPart> /*parts*/) const override {
    refuse();
  }
  void rms_norm(ExecContext& /*context*/, const float* /*x*/, const float* /*weight*/,
                float /*eps*/, int64_t /*rows*/, int64_t /*d*/, float* /*out*/) const override {
    refuse();
  }
  void rope(ExecContext& /*context*/, float* /*x*/, const float* /*cosine*/, const float* /*sine*/,
            int64_t /*rows*/, int64_t /*n_heads*/, int64_t /*head_dim*/, int64_t /*rotary_dim*/,
            RopeLayout /*layout*/) const override {
    refuse();
  }
  void attention(ExecContext& /*context*/, const float* /*q*/,
                 std::span<const AttentionRow> /*rows*/, const AttentionShape& /*shape*/,
                 float* /*out*/) const override {
    refuse();
  }
  void silu_mul(ExecContext& /*context*/, const float* /*gate*/, const float* /*up*/, int64_t /*n*/,
                float* /*out*/) const override {
    refuse();
  }
  void grouped_linear(ExecContext& /*context*/,
                      std::span<const GroupedPart> /*parts*/) const override {
    refuse();
  }
  void activate(ExecContext& /*context*/, Activation /*activation*/, float* /*x*/,
                int64_t /*n*/) const override {
    refuse();
  }
  void mamba2(ExecContext& /*context*/, const Mamba2Weights& /*weights*/,
              const Mamba2Shape& /*shape*/, std::span<const Mamba2Span> /*spans*/,
              float* /*projected*/, float* /*out*/) const override {
    refuse();
  }

 private:
  void refuse() const { CHECK(false) << name_ << " runs whole models, not ops"; }

  GpuDevice device_;
  std::string name_;
  std::string isa_;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_cuda_backend(int ordinal) {
  ASSIGN_OR_RETURN(GpuDevice device, cuda::open_device(ordinal));
  return std::make_unique<CudaBackend>(std::move(device));
}

}  // namespace logitlab
