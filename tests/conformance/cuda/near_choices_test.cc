// That near_choices.h excuses ties and nothing else; needs no GPU.
#include "near_choices.h"

#include <algorithm>
#include <cmath>

#include "device_fixture.h"
#include "tensor/dtype.h"

namespace logitlab {
namespace {

constexpr int64_t kVocab = 200;
constexpr size_t kRows = 60;
// As cuda_model_test.cc has them for prefill.
constexpr double kLayerError = 1e-4;
constexpr double kBound = 6 * kLayerError;
constexpr double kOwnError = 1e-8;

// The reference with the inputs of its matrices rounded to BF16, but for the routers', as prefill
// on a GPU does.
class RoundingBackend final : public Backend {
 public:
  explicit RoundingBackend(int64_t n_experts) : n_experts_(n_experts) {}

  [[nodiscard]] std::string_view name() const override { return "rounding"; }
  [[nodiscard]] std::string_view isa() const override { return host_->isa(); }
  [[nodiscard]] bool supports(Op op, DType weight) const override {
    return host_->supports(op, weight);
  }
  void embed(ExecContext& context, const Tensor& table, std::span<const TokenId> ids,
             float* out) const override {
    host_->embed(context, table, ids, out);
  }
  void linear(ExecContext& context, const float* x, int64_t rows,
              std::span<const LinearPart> parts) const override {
    const bool is_router = parts[0].weight.rows() == n_experts_;
    const std::vector<float> rounded = round(x, rows * parts[0].weight.columns());
    host_->linear(context, is_router ? x : rounded.data(), rows, parts);
  }
  void rms_norm(ExecContext& context, const float* x, const float* weight, float eps, int64_t rows,
                int64_t d, float* out) const override {
    host_->rms_norm(context, x, weight, eps, rows, d, out);
  }
  void rope(ExecContext& context, float* x, const float* cosine, const float* sine, int64_t rows,
            int64_t n_heads, int64_t head_dim, int64_t rotary_dim,
            RopeLayout layout) const override {
    host_->rope(context, x, cosine, sine, rows, n_heads, head_dim, rotary_dim, layout);
  }
  void attention(ExecContext& context, const float* q, std::span<const AttentionRow> rows,
                 const AttentionShape& shape, float* out) const override {
    host_->attention(context, q, rows, shape, out);
  }
  void silu_mul(ExecContext& context, const float* gate, const float* up, int64_t n,
                float* out) const override {
    host_->silu_mul(context, gate, up, n, out);
  }
  void grouped_linear(ExecContext& context, std::span<const GroupedPart> parts) const override {
    for (GroupedPart part : parts) {
      const std::vector<float> rounded = round(part.x, part.rows * part.weight.columns());
      part.x = rounded.data();
      host_->grouped_linear(context, {&part, 1});
    }
  }
  void activate(ExecContext& context, Activation activation, float* x, int64_t n) const override {
    host_->activate(context, activation, x, n);
  }
  void mamba2(ExecContext& context, const Mamba2Weights& weights, const Mamba2Shape& shape,
              std::span<const Mamba2Span> spans, float* projected, float* out) const override {
    host_->mamba2(context, weights, shape, spans, projected, out);
  }

 private:
  static std::vector<float> round(const float* x, int64_t n) {
    std::vector<float> values(x, x + n);
    for (float& value : values) {
      value = bf16_to_float(float_to_bf16(value));
    }
    return values;
  }

  std::unique_ptr<Backend> host_ = make_reference_backend();
  int64_t n_experts_;
};

class NearChoices : public ::testing::Test {
 protected:
  NearChoices() : model_(128, kVocab, 7) {
    constexpr Mamba2Shape kMamba{
        .n_heads = 8, .head_dim = 64, .state_size = 128, .n_groups = 2, .conv_kernel = 4};
    model_.add_mamba(kMamba);
    model_.add_mixture({.shared_width = 128});
    model_.add_mamba(kMamba);
    model_.add_attention({.head_dim = 64});
    model_.add_mixture({.shared_width = 128});
    model_.add_mlp(128, Activation::kRelu2);
    ids_ = some_ids(kRows, kVocab, 3);
  }

  // By how many deviations of its input's error the last choice of a mixture leads.
  static double deviations(const RowChoice& choice) {
    const Candidate& last = choice.experts[choice.n_chosen - 1];
    const Candidate& next = choice.experts[choice.n_chosen];
    const double error = std::sqrt(kOwnError + static_cast<double>(choice.layer) * kLayerError);
    return (last.choice - next.choice) / (error * std::hypot(last.spread, next.spread));
  }

  // Logits of a program that makes another choice in one row: the last expert of its nearest, or
  // else of its clearest choice of all rows, is left out. `row` gets where.
  std::vector<float> with_one_turned(bool at_tie, size_t* row) {
    std::vector<Barred> barred;
    double least = 1e30;
    DecodeState state = model_.make_host_state();
    std::vector<RowChoice> choices;
    for (size_t r = 0; r < kRows; ++r) {
      (void)model_.step(context_, &state, ids_[r], {}, &choices);
      for (const RowChoice& choice : choices) {
        const double lead = deviations(choice) * (at_tie ? 1 : -1);
        if (lead < least) {
          least = lead;
          *row = r;
          barred = {{choice.layer, choice.experts[choice.n_chosen - 1].expert}};
        }
      }
    }
    std::vector<float> logits;
    state = model_.make_host_state();
    for (size_t r = 0; r < kRows; ++r) {
      const std::vector<float> one = model_.step(
          context_, &state, ids_[r], r == *row ? barred : std::vector<Barred>{}, &choices);
      logits.insert(logits.end(), one.begin(), one.end());
    }
    return logits;
  }

  SmallModel model_;
  std::unique_ptr<Backend> host_ = make_reference_backend();
  ThreadPool threads_{2};
  ExecContext context_{*host_, threads_};
  std::vector<TokenId> ids_;
};

TEST_F(NearChoices, TheReferenceAgreesWithItself) {
  DecodeState state = model_.make_host_state();
  const std::vector<float> logits = model_.forward(context_, &state, ids_);
  const Agreement agreement = follow(model_, context_, ids_, logits, kLayerError, kOwnError);
  EXPECT_LE(*std::max_element(agreement.errors.begin(), agreement.errors.end()), 1e-10);
  EXPECT_EQ(agreement.n_turned, 0U);
}

TEST_F(NearChoices, AnotherChoiceAtATieIsFollowed) {
  size_t row = 0;
  const std::vector<float> logits = with_one_turned(/*at_tie=*/true, &row);
  DecodeState state = model_.make_host_state();
  const std::vector<float> natural = model_.forward(context_, &state, ids_);
  const auto first = static_cast<std::ptrdiff_t>(row) * kVocab;
  EXPECT_GT(row_error({logits.data() + first, static_cast<size_t>(kVocab)},
                      {natural.data() + first, static_cast<size_t>(kVocab)}),
            kBound);
  const Agreement agreement = follow(model_, context_, ids_, logits, kLayerError, kOwnError);
  EXPECT_LE(*std::max_element(agreement.errors.begin(), agreement.errors.end()), 1e-10);
  EXPECT_EQ(agreement.n_turned, 1U);
}

TEST_F(NearChoices, AnotherChoiceThatIsNoTieIsNot) {
  size_t row = 0;
  const std::vector<float> logits = with_one_turned(/*at_tie=*/false, &row);
  const Agreement agreement = follow(model_, context_, ids_, logits, kLayerError, kOwnError);
  EXPECT_GT(agreement.errors[row], kBound);
}

TEST_F(NearChoices, AProgramThatRoundsIsFollowed) {
  const RoundingBackend rounding(8);
  ExecContext context{rounding, threads_};
  size_t n_turned = 0;
  for (const uint32_t seed : {1, 2, 3}) {
    const std::vector<TokenId> ids = some_ids(150, kVocab, seed);
    DecodeState state = model_.make_host_state();
    const std::vector<float> logits = model_.forward(context, &state, ids);
    const Agreement agreement = follow(model_, context_, ids, logits, kLayerError, kOwnError);
    EXPECT_LE(*std::max_element(agreement.errors.begin(), agreement.errors.end()), kBound);
    n_turned += agreement.n_turned;
  }
  EXPECT_GT(n_turned, 0U) << "no choice was turned, so nothing was tried";
}

TEST_F(NearChoices, AnErrorOfAnotherKindIsNotExcused) {
  DecodeState state = model_.make_host_state();
  std::vector<float> logits = model_.forward(context_, &state, ids_);
  for (size_t row = 0; row < kRows; ++row) {
    logits[row * kVocab + row] += 1.0F;
  }
  const Agreement agreement = follow(model_, context_, ids_, logits, kLayerError, kOwnError);
  EXPECT_GT(*std::min_element(agreement.errors.begin(), agreement.errors.end()), kBound);
}

TEST(ChoicesWithin, HoldsWhatTheErrorMayTurn) {
  const auto choice = [](std::vector<double> values) {
    RowChoice made{3, 2, {}};
    for (const double value : values) {
      made.experts.push_back({static_cast<int64_t>(made.experts.size()), value, 1.0});
    }
    return made;
  };
  // Four deviations of the difference of two: 4 * sqrt(2) * 0.01 = 0.057.
  EXPECT_EQ(choices_within(choice({0.9, 0.8, 0.7, 0.6}), 0.01).size(), 1U);
  EXPECT_EQ(choices_within(choice({0.9, 0.8, 0.76, 0.6}), 0.01).size(), 2U);
  EXPECT_EQ(choices_within(choice({0.9, 0.8, 0.76, 0.75}), 0.01).size(), 3U);
  const auto both = choices_within(choice({0.81, 0.8, 0.79, 0.6}), 0.01);
  ASSERT_EQ(both.size(), 3U);
  EXPECT_TRUE(both[0].empty());
  ASSERT_EQ(both[2].size(), 1U);
  EXPECT_EQ(both[2][0].layer, 3U);
  EXPECT_EQ(both[2][0].expert, 0);
}

}  // namespace
}  // namespace logitlab
