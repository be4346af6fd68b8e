// Whole models on a GPU against the reference backend, layer kind by layer kind.
//
// Bounds are of the squared error of a row's logits over their squares.
// - Decode splits the inputs of its matrices in two BF16 parts, 2^-17 of each value, whose square
//   over 3 is 2e-11: a few layers and products of products stay below kExactBound.
// - Keys and values are BF16, 2^-9 of each value, whose square over 3 is 1.3e-6. Values add that to
//   what a layer adds; a key's error times a query of unit variance changes the softmax by as much
//   again. Of 150 rows of these models the worst has 1.1e-5 (scalar code with such keys and
//   values): kKvBound a layer.
// - Prefill rounds every input of a matrix but the router's to BF16: 1.3e-6 for each of the two to
//   four products of a layer, doubled by a squared activation, with the same spread of rows:
//   kRoundedBound a layer.
// - A mixture behind other layers sees their error. Where that may turn the order of two experts,
//   the row is compared with the reference that chooses as the device did (near_choices.h): every
//   row is within the bound, of one or the other.
#include <cmath>
#include <functional>
#include <string>

#include "device_fixture.h"
#include "near_choices.h"

namespace logitlab {
namespace {

constexpr double kExactBound = 1e-8;
constexpr double kKvBound = 3e-5;
constexpr double kRoundedBound = 1e-4;

constexpr int64_t kWidth = 128;
constexpr int64_t kVocab = 320;
constexpr size_t kIds = 150;  // three pages

constexpr Mamba2Shape kMamba{
    .n_heads = 8, .head_dim = 64, .state_size = 128, .n_groups = 2, .conv_kernel = 4};

struct Case {
  std::string name;
  std::function<std::unique_ptr<SmallModel>()> make;
  double decode_bound = kExactBound;
  double prefill_bound = kRoundedBound;
};

using Add = std::function<void(SmallModel*)>;

std::unique_ptr<SmallModel> model_with(const Add& add, int64_t width = kWidth,
                                       bool is_tied = false) {
  auto model = std::make_unique<SmallModel>(width, kVocab, 7, is_tied);
  add(model.get());
  return model;
}

Case attention_case(std::string name, const AttentionOptions& options,
                    RopeLayout layout = RopeLayout::kHalfSplit) {
  return {std::move(name),
          [=] {
            return model_with([&](SmallModel* model) {
              if (options.has_rope) {
                model->set_rope(options.head_dim, layout);
              }
              model->add_attention(options);
            });
          },
          kKvBound};
}

Case mixture_case(std::string name, const MixtureOptions& options) {
  return {std::move(name),
          [=] { return model_with([&](SmallModel* model) { model->add_mixture(options); }); }};
}

std::vector<Case> attention_cases() {
  return {
      attention_case("attention without positions", {.head_dim = 128}),
      attention_case("attention, 16 heads of one key", {.n_heads = 16, .n_kv_heads = 1}),
      attention_case("RoPE, halves", {.head_dim = 64, .has_rope = true}),
      attention_case("RoPE, pairs", {.has_rope = true}, RopeLayout::kInterleaved),
      attention_case("window", {.head_dim = 64, .window = 40, .has_rope = true}),
      attention_case("q and k norms", {.head_dim = 128, .has_rope = true, .has_qk_norm = true}),
      attention_case("biases", {.head_dim = 64, .has_rope = true, .has_bias = true}),
      attention_case("heads of 16", {.n_heads = 6, .n_kv_heads = 3, .head_dim = 16}),
      attention_case("heads of 96", {.n_heads = 3, .n_kv_heads = 3, .head_dim = 96}),
  };
}

std::vector<Case> mixture_cases() {
  return {
      mixture_case("mixture", {}),
      mixture_case("mixture, one expert", {.n_chosen = 1, .normalises = false}),
      mixture_case("mixture, groups",
                   {.n_experts = 16, .n_chosen = 4, .n_groups = 4, .kept_groups = 2}),
      mixture_case("mixture, shared", {.width = 72, .shared_width = 200}),
      mixture_case(
          "mixture, latent and shared",
          {.n_chosen = 3, .latent = 64, .shared_width = 136, .activation = Activation::kSilu}),
      mixture_case("mixture, 128 experts", {.n_experts = 128, .n_chosen = 6}),
  };
}

std::vector<Case> other_cases() {
  constexpr Mamba2Shape kOdd{
      .n_heads = 6, .head_dim = 16, .state_size = 32, .n_groups = 3, .conv_kernel = 3};
  return {
      {"Mamba", [] { return model_with([](SmallModel* m) { m->add_mamba(kMamba); }); }},
      {"Mamba, small and biased",
       [kOdd] { return model_with([&](SmallModel* m) { m->add_mamba(kOdd, true); }, 136); }},
      {"MLP, squared",
       [] { return model_with([](SmallModel* m) { m->add_mlp(200, Activation::kRelu2); }); }},
      {"MLP, SiLU and biased",
       [] { return model_with([](SmallModel* m) { m->add_mlp(72, Activation::kSilu, true); }); }},
      {"MLP, gated", [] { return model_with([](SmallModel* m) { m->add_gated_mlp(264); }); }},
      {"decoder, tied",
       [] {
         return model_with(
             [](SmallModel* m) {
               m->set_rope(64, RopeLayout::kHalfSplit);
               for (int i = 0; i < 2; ++i) {
                 m->add_attention({.head_dim = 64, .has_rope = true});
                 m->add_gated_mlp(256);
               }
             },
             136, true);
       },
       4 * kKvBound, 4 * kRoundedBound},
  };
}

// Two Mamba layers, two mixtures, attention without positions, an MLP.
std::unique_ptr<SmallModel> hybrid() {
  return model_with([](SmallModel* model) {
    model->add_mamba(kMamba);
    model->add_mixture({.shared_width = 128});
    model->add_mamba(kMamba);
    model->add_attention({.head_dim = 64});
    model->add_mixture({.shared_width = 128});
    model->add_mlp(128, Activation::kRelu2);
  });
}

std::vector<Case> all_cases() {
  std::vector<Case> cases = attention_cases();
  for (const std::vector<Case>& more : {mixture_cases(), other_cases()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  cases.push_back({"hybrid", hybrid, 6 * kKvBound, 6 * kRoundedBound});
  return cases;
}

class CudaModel : public DeviceTest {
 protected:
  void expect_within(const Case& test, const SmallModel& model, std::span<const TokenId> ids,
                     std::span<const float> got, double bound, std::string_view what) {
    const double layer_error = bound / static_cast<double>(model.n_layers());
    const Agreement agreement = follow(model, *context_, ids, got, layer_error, kExactBound);
    for (size_t row = 0; row < ids.size(); ++row) {
      EXPECT_LE(agreement.errors[row], bound) << test.name << ", " << what << ": row " << row;
    }
  }
};

TEST_F(CudaModel, DecodeAgreesWithTheReference) {
  for (const Case& test : all_cases()) {
    const auto model = test.make();
    const auto device = on_device(*model);
    ASSERT_NE(device, nullptr) << test.name;
    const std::vector<TokenId> ids = some_ids(kIds, kVocab, 3);
    const auto state = device->make_state();
    const std::vector<float> got = run(*device, state.get(), ids, kVocab, 1);
    EXPECT_EQ(state->length(), static_cast<int64_t>(kIds));
    expect_within(test, *model, ids, got, test.decode_bound, "token by token");
  }
}

TEST_F(CudaModel, PrefillAgreesWithTheReference) {
  for (const Case& test : all_cases()) {
    const auto model = test.make();
    const auto device = on_device(*model);
    ASSERT_NE(device, nullptr) << test.name;
    const std::vector<TokenId> ids = some_ids(kIds, kVocab, 4);
    for (const size_t piece : {kIds, size_t{67}, size_t{2}}) {
      const auto state = device->make_state();
      const std::vector<float> got = run(*device, state.get(), ids, kVocab, piece);
      expect_within(test, *model, ids, got, test.prefill_bound,
                    "in pieces of " + std::to_string(piece));
    }
  }
}

TEST_F(CudaModel, DecodeGoesOnFromPrefill) {
  for (const Case& test : all_cases()) {
    const auto model = test.make();
    const auto device = on_device(*model);
    ASSERT_NE(device, nullptr) << test.name;
    const std::vector<TokenId> ids = some_ids(kIds, kVocab, 5);
    constexpr size_t kPrompt = 130;
    const auto state = device->make_state();
    std::vector<float> got =
        run(*device, state.get(), std::span(ids).first(kPrompt), kVocab, kPrompt);
    const std::vector<float> rest =
        run(*device, state.get(), std::span(ids).subspan(kPrompt), kVocab, 1);
    got.insert(got.end(), rest.begin(), rest.end());
    expect_within(test, *model, ids, got, test.prefill_bound, "a prompt, then token by token");
  }
}

TEST_F(CudaModel, LastRowsAndNoRowsAreThoseOfAllRows) {
  const auto model = hybrid();
  const auto device = on_device(*model);
  ASSERT_NE(device, nullptr);
  const std::vector<TokenId> ids = some_ids(70, kVocab, 6);
  const auto all_state = device->make_state();
  const std::vector<float> all = run(*device, all_state.get(), ids, kVocab, ids.size());
  // In one call: a chunk without logits, one with its last row, a single row.
  const auto quiet = device->make_state();
  const auto last = device->make_state();
  const auto single = device->make_state();
  for (DeviceState* state : {quiet.get(), last.get(), single.get()}) {
    ASSERT_TRUE(state->reserve(70).has_value());
  }
  const std::vector<DeviceChunk> chunks = {
      {quiet.get(), ids, true, true}, {last.get(), ids}, {single.get(), std::span(ids).first(1)}};
  std::vector<float> logits(2 * kVocab);
  ASSERT_TRUE(device->forward(chunks, logits.data()).has_value());
  EXPECT_TRUE(std::equal(logits.begin(), logits.begin() + kVocab, all.end() - kVocab));
  EXPECT_EQ(quiet->length(), 70);
  EXPECT_EQ(single->length(), 1);
  const auto again = device->make_state();
  const std::vector<float> alone = run(*device, again.get(), std::span(ids).first(1), kVocab, 1);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), logits.begin() + kVocab));
}

// The same bits alone, in a batch of 64, and the next time.
TEST_F(CudaModel, ARowDoesNotDependOnItsNeighbours) {
  const auto model = hybrid();
  const auto device = on_device(*model);
  ASSERT_NE(device, nullptr);
  constexpr size_t kBatch = 64;
  std::vector<std::unique_ptr<DeviceState>> alone;
  std::vector<std::unique_ptr<DeviceState>> together;
  for (size_t i = 0; i < kBatch; ++i) {
    alone.push_back(device->make_state());
    const std::vector<TokenId> prompt = some_ids(1 + 3 * i, kVocab, static_cast<uint32_t>(i));
    (void)run(*device, alone.back().get(), prompt, kVocab, prompt.size());
    together.push_back(alone.back()->fork());
  }
  for (uint32_t step = 0; step < 4; ++step) {
    const std::vector<TokenId> ids = some_ids(kBatch, kVocab, 100 + step);
    std::vector<DeviceChunk> chunks;
    for (size_t i = 0; i < kBatch; ++i) {
      ASSERT_TRUE(together[i]->reserve(1).has_value());
      chunks.push_back({together[i].get(), std::span(ids).subspan(i, 1)});
    }
    std::vector<float> batch(kBatch * kVocab);
    ASSERT_TRUE(device->forward(chunks, batch.data()).has_value());
    for (size_t i = 0; i < kBatch; ++i) {
      const std::vector<float> row =
          run(*device, alone[i].get(), std::span(ids).subspan(i, 1), kVocab, 1);
      EXPECT_TRUE(
          std::equal(row.begin(), row.end(), batch.begin() + static_cast<int64_t>(i) * kVocab))
          << "step " << step << ", sequence " << i;
    }
  }
}

TEST_F(CudaModel, AForkGoesItsOwnWay) {
  const auto model = hybrid();
  const auto device = on_device(*model);
  ASSERT_NE(device, nullptr);
  const std::vector<TokenId> ids = some_ids(100, kVocab, 9);
  const std::vector<TokenId> other = some_ids(40, kVocab, 10);
  const auto state = device->make_state();
  const auto prompt = std::span(ids).first(70);
  const auto rest = std::span(ids).subspan(70);
  (void)run(*device, state.get(), prompt, kVocab, prompt.size());
  const auto fork = state->fork();
  const auto kept = state->fork();
  EXPECT_FALSE(state->can_truncate());
  (void)run(*device, fork.get(), other, kVocab, 1);
  const std::vector<float> first = run(*device, state.get(), rest, kVocab, 1);
  const std::vector<float> second = run(*device, kept.get(), rest, kVocab, 1);
  EXPECT_EQ(first, second);
  EXPECT_EQ(fork->length(), 110);
  EXPECT_EQ(device->memory().state_bytes > 0, true);
  state->truncate(0);
  EXPECT_EQ(state->length(), 0);
  const std::vector<float> fresh = run(*device, state.get(), prompt, kVocab, prompt.size());
  const auto clean = device->make_state();
  EXPECT_EQ(fresh, run(*device, clean.get(), prompt, kVocab, prompt.size()));
}

TEST_F(CudaModel, KeysAndValuesCanBeCutBack) {
  const auto model = model_with([](SmallModel* m) {
    m->set_rope(32, RopeLayout::kHalfSplit);
    m->add_attention({.has_rope = true});
    m->add_gated_mlp(128);
  });
  const auto device = on_device(*model);
  ASSERT_NE(device, nullptr);
  const std::vector<TokenId> ids = some_ids(140, kVocab, 11);
  const auto state = device->make_state();
  const std::vector<float> first = run(*device, state.get(), ids, kVocab, 1);
  const auto fork = state->fork();
  EXPECT_TRUE(state->can_truncate());
  state->truncate(66);
  const std::vector<float> again = run(*device, state.get(), std::span(ids).subspan(66), kVocab, 1);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), first.begin() + 66 * kVocab));
  const std::vector<TokenId> next = {5};
  EXPECT_EQ(run(*device, fork.get(), next, kVocab, 1), run(*device, state.get(), next, kVocab, 1));
}

}  // namespace
}  // namespace logitlab
