#include "backend/backend.h"

#include <algorithm>
#include <cstdlib>

#include <gtest/gtest.h>

#include "backend/testing.h"

namespace logitlab {
namespace {

// Sets an environment variable for the life of the object.
class ScopedIsa {
 public:
  explicit ScopedIsa(const char* value) { ::setenv("LOGITLAB_CPU_ISA", value, 1); }
  ~ScopedIsa() { ::unsetenv("LOGITLAB_CPU_ISA"); }
  ScopedIsa(const ScopedIsa&) = delete;
  ScopedIsa& operator=(const ScopedIsa&) = delete;
};

TEST(Registry, KnowsItsDevices) {
  EXPECT_EQ((*make_backend("reference"))->name(), "reference");
  EXPECT_EQ((*make_backend("reference"))->isa(), "scalar");
  EXPECT_EQ((*make_backend("cpu"))->name(), "cpu");
  EXPECT_EQ((*make_backend("auto"))->name(), "cpu");
}

TEST(Registry, BestInstructionSetIsTheDefault) {
  ASSERT_FALSE(cpu_isas().empty());
  EXPECT_EQ((*make_cpu_backend())->isa(), cpu_isas().front());
}

TEST(Registry, EnvironmentForcesTheInstructionSet) {
  for (const std::string& isa : cpu_isas()) {
    const ScopedIsa forced(isa.c_str());
    EXPECT_EQ((*make_backend("cpu"))->isa(), isa);
  }
  const ScopedIsa forced("AVX9");
  const auto backend = make_backend("cpu");
  ASSERT_FALSE(backend.has_value());
  EXPECT_EQ(backend.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(backend.error().message.find("AVX9"), std::string::npos);
  EXPECT_NE(backend.error().message.find(cpu_isas().front()), std::string::npos);
}

TEST(Registry, RefusesWhatIsNotThere) {
  for (const char* device : {"", "gpu", "CPU", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:0 ",
                             "cuda:99999999999999999999"}) {
    const auto backend = make_backend(device);
    ASSERT_FALSE(backend.has_value()) << device;
    EXPECT_EQ(backend.error().code, ErrorCode::kInvalidArgument) << device;
  }
}

TEST(Backend, SupportsEveryTypeOfWeight) {
  for (const char* device : {"reference", "cpu"}) {
    const auto backend = std::move(make_backend(device)).value();
    for (const DType dtype : kWeightTypes) {
      EXPECT_TRUE(backend->supports(Op::kLinear, dtype));
      EXPECT_TRUE(backend->supports(Op::kEmbed, dtype));
      EXPECT_EQ(backend->supports(Op::kRmsNorm, dtype), dtype == DType::kF32);
    }
    EXPECT_FALSE(backend->supports(Op::kLinear, DType::kI32));
    EXPECT_FALSE(backend->supports(Op::kEmbed, DType::kF8E4M3));
  }
}

// y = W x for W = [[1, 2], [3, 4], [5, 6]] by hand.
TEST(Backend, LinearByHand) {
  const std::vector<float> weight = {1, 2, 3, 4, 5, 6};
  const std::vector<float> x = {10, 1, -1, 2};
  const std::vector<float> bias = {100, 200, 300};
  for (const char* device : {"reference", "cpu"}) {
    const auto backend = std::move(make_backend(device)).value();
    ThreadPool threads(2);
    ExecContext context{*backend, threads};
    std::vector<float> out(6, 1000);
    LinearPart part;
    part.weight = Tensor{reinterpret_cast<const std::byte*>(weight.data()), DType::kF32, {3, 2}};
    part.bias = bias.data();
    part.out = out.data();
    backend->linear(context, x.data(), 2, {&part, 1});
    EXPECT_EQ(out, (std::vector<float>{112, 234, 356, 103, 205, 307}));
    part.accumulate = true;
    part.bias = nullptr;
    backend->linear(context, x.data(), 2, {&part, 1});
    EXPECT_EQ(out, (std::vector<float>{124, 268, 412, 106, 210, 314}));
  }
}

TEST(Backend, EmptyCallsAreFine) {
  for (const char* device : {"reference", "cpu"}) {
    const auto backend = std::move(make_backend(device)).value();
    ThreadPool threads(2);
    ExecContext context{*backend, threads};
    const RandomWeight weight(DType::kF32, 4, 8, 1);
    std::vector<float> out(4, 7);
    LinearPart part;
    part.weight = weight.tensor();
    part.out = out.data();
    backend->linear(context, out.data(), 0, {&part, 1});
    backend->embed(context, weight.tensor(), {}, out.data());
    backend->silu_mul(context, out.data(), out.data(), 0, out.data());
    backend->rms_norm(context, out.data(), out.data(), 1e-5F, 0, 4, out.data());
    backend->attention(context, out.data(), {}, AttentionShape{2, 1, 2, 1.0F}, out.data());
    EXPECT_EQ(out, (std::vector<float>(4, 7)));
  }
}

}  // namespace
}  // namespace logitlab
