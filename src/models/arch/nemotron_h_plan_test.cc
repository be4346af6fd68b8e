// What a checkpoint's tensors may be called, what is refused before any weight is read, and what
// the plan says of costs.
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "formats/test_bytes.h"
#include "models/model.h"

namespace logitlab {
namespace {

constexpr std::string_view kConfig = R"({"model_type": "nemotron_h", "vocab_size": 16,
  "hidden_size": 8, "hybrid_override_pattern": "ME*-", "intermediate_size": 7,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "mamba_num_heads": 2,
  "mamba_head_dim": 3, "ssm_state_size": 4, "n_groups": 1, "conv_kernel": 4,
  "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 5,
  "moe_shared_expert_intermediate_size": 6})";

using Sizes = std::vector<int64_t>;
using Tensors = std::map<std::string, Sizes>;

// All tensors of the model above, as the hub names them.
Tensors hub_tensors() {
  Tensors tensors = {{"backbone.embeddings.weight", {16, 8}},
                     {"backbone.norm_f.weight", {8}},
                     {"lm_head.weight", {16, 8}},
                     {"backbone.layers.0.mixer.in_proj.weight", {22, 8}},
                     {"backbone.layers.0.mixer.conv1d.weight", {14, 1, 4}},
                     {"backbone.layers.0.mixer.conv1d.bias", {14}},
                     {"backbone.layers.0.mixer.dt_bias", {2}},
                     {"backbone.layers.0.mixer.A_log", {2}},
                     {"backbone.layers.0.mixer.D", {2}},
                     {"backbone.layers.0.mixer.norm.weight", {6}},
                     {"backbone.layers.0.mixer.out_proj.weight", {8, 6}},
                     {"backbone.layers.1.mixer.gate.weight", {4, 8}},
                     {"backbone.layers.1.mixer.gate.e_score_correction_bias", {4}},
                     {"backbone.layers.1.mixer.shared_experts.up_proj.weight", {6, 8}},
                     {"backbone.layers.1.mixer.shared_experts.down_proj.weight", {8, 6}},
                     {"backbone.layers.2.mixer.q_proj.weight", {8, 8}},
                     {"backbone.layers.2.mixer.k_proj.weight", {4, 8}},
                     {"backbone.layers.2.mixer.v_proj.weight", {4, 8}},
                     {"backbone.layers.2.mixer.o_proj.weight", {8, 8}},
                     {"backbone.layers.3.mixer.up_proj.weight", {7, 8}},
                     {"backbone.layers.3.mixer.down_proj.weight", {8, 7}}};
  for (int i = 0; i < 4; ++i) {
    tensors[fmt::format("backbone.layers.{}.norm.weight", i)] = {8};
    tensors[fmt::format("backbone.layers.1.mixer.experts.{}.up_proj.weight", i)] = {5, 8};
    tensors[fmt::format("backbone.layers.1.mixer.experts.{}.down_proj.weight", i)] = {8, 5};
  }
  return tensors;
}

Result<ModelPlan> plan_of(const Tensors& tensors, std::string_view config = kConfig) {
  std::string header;
  size_t end = 0;
  for (const auto& [name, sizes] : tensors) {
    size_t bytes = 2;
    std::string shape;
    for (const int64_t size : sizes) {
      bytes *= static_cast<size_t>(size);
      shape += (shape.empty() ? "" : ",") + std::to_string(size);
    }
    header += fmt::format(R"({}"{}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{},{}]}})",
                          header.empty() ? "" : ",", name, shape, end, end + bytes);
    end += bytes;
  }
  TempFolder folder;
  folder.write("config.json", std::string(config));
  folder.write("model.safetensors", safetensors_bytes("{" + header + "}", std::string(end, '\0')));
  ModelSource source;
  source.kind = ModelKind::kHuggingFace;
  source.path = folder.path();
  const auto backend = make_backend("cpu");
  return plan_model(source, {}, **backend);
}

void expect_refused(const Tensors& tensors, const std::string& words) {
  const auto plan = plan_of(tensors);
  ASSERT_FALSE(plan) << words;
  EXPECT_NE(plan.error().message.find(words), std::string::npos) << plan.error().message;
}

// The tensors with `before` replaced by `after` in every name.
Tensors renamed(const Tensors& tensors, const std::string& before, const std::string& after) {
  Tensors out;
  for (const auto& [name, sizes] : tensors) {
    std::string text = name;
    if (const size_t at = text.find(before); at != std::string::npos) {
      text.replace(at, before.size(), after);
    }
    out[text] = sizes;
  }
  return out;
}

TEST(NemotronHPlan, CountsWhatATokenGoesThrough) {
  const auto plan = plan_of(hub_tensors());
  ASSERT_TRUE(plan) << plan.error().message;
  int64_t elements = 0;
  for (const auto& [name, sizes] : hub_tensors()) {
    int64_t product = 1;
    for (const int64_t size : sizes) {
      product *= size;
    }
    elements += product;
  }
  EXPECT_EQ(plan->parameter_count, elements);
  // Two of four experts idle, fifteen of sixteen rows of the embedding not read.
  const int64_t active = elements - 2 * 2 * 5 * 8 - 15 * 8;
  EXPECT_EQ(plan->active_parameter_count, active);
  EXPECT_EQ(plan->weight_bytes_per_token, 2U * static_cast<size_t>(active)) << "as the file has it";
  EXPECT_EQ(plan->state.fixed_bytes, (3U * 14 + 2 * 3 * 4) * sizeof(float));
  EXPECT_EQ(plan->state.position_bytes, 2U * 4 * sizeof(float));
  EXPECT_TRUE(plan->unused.empty());
  EXPECT_EQ(plan->weights.size(), hub_tensors().size());
}

TEST(NemotronHPlan, KnowsTheNamesOfAllWriters) {
  const Tensors hub = hub_tensors();
  const auto wanted = plan_of(hub);
  ASSERT_TRUE(wanted);
  const Tensors library = renamed(hub, "backbone.", "model.");
  Tensors stacked = library;
  for (int e = 0; e < 4; ++e) {
    stacked.erase(fmt::format("model.layers.1.mixer.experts.{}.up_proj.weight", e));
    stacked.erase(fmt::format("model.layers.1.mixer.experts.{}.down_proj.weight", e));
  }
  stacked["model.layers.1.mixer.experts.up_proj"] = {4, 5, 8};
  stacked["model.layers.1.mixer.experts.down_proj"] = {4, 8, 5};
  Tensors wrapped;
  for (const auto& [name, sizes] : hub) {
    wrapped["language_model." + name] = sizes;
  }
  Tensors flat = hub;
  flat["backbone.layers.0.mixer.conv1d.weight"] = {14, 4};
  for (const Tensors& tensors :
       {library, stacked, wrapped, flat, renamed(hub, "embeddings.", "embedding.")}) {
    const auto plan = plan_of(tensors);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_EQ(plan->parameter_count, wanted->parameter_count);
    EXPECT_EQ(plan->active_parameter_count, wanted->active_parameter_count);
    EXPECT_EQ(plan->weight_bytes_per_token, wanted->weight_bytes_per_token);
    EXPECT_TRUE(plan->unused.empty());
  }
}

TEST(NemotronHPlan, TakesBiasesWhereTheyAreAndLeavesDraftsAlone) {
  Tensors tensors = hub_tensors();
  tensors["backbone.layers.0.mixer.in_proj.bias"] = {22};
  tensors["backbone.layers.1.mixer.shared_experts.up_proj.bias"] = {6};
  tensors["backbone.layers.3.mixer.down_proj.bias"] = {8};
  tensors.erase("backbone.layers.0.mixer.conv1d.bias");
  tensors["mtp.layers.0.norm.weight"] = {8};
  const auto plan = plan_of(tensors);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->unused, (std::vector<std::string>{"mtp.layers.0.norm.weight"}));
  EXPECT_EQ(plan->weights.size(), tensors.size() - 1);
}

TEST(NemotronHPlan, RefusesWhatDoesNotFitByName) {
  const auto without = [](const std::string& name) {
    Tensors tensors = hub_tensors();
    EXPECT_EQ(tensors.erase(name), 1U);
    return tensors;
  };
  const auto with = [](const std::string& name, const Sizes& sizes) {
    Tensors tensors = hub_tensors();
    tensors[name] = sizes;
    return tensors;
  };
  for (const char* part :
       {"layers.0.mixer.A_log", "layers.0.mixer.norm.weight", "layers.1.norm.weight",
        "layers.1.mixer.experts.3.down_proj.weight", "layers.1.mixer.gate.e_score_correction_bias",
        "layers.1.mixer.shared_experts.up_proj.weight", "layers.2.mixer.v_proj.weight"}) {
    const std::string name = std::string("backbone.") + part;
    expect_refused(without(name), name);
  }
  expect_refused(with("backbone.layers.0.mixer.in_proj.weight", {21, 8}),
                 "backbone.layers.0.mixer.in_proj.weight: shape [21, 8], want [22, 8]");
  expect_refused(with("backbone.layers.0.mixer.conv1d.weight", {14, 4, 1}),
                 "backbone.layers.0.mixer.conv1d.weight: shape [14, 4, 1], want [14, 1, 4]");
  expect_refused(with("backbone.layers.1.mixer.experts.2.up_proj.weight", {8, 5}),
                 "backbone.layers.1.mixer.experts.2.up_proj.weight: shape [8, 5], want [5, 8]");
  expect_refused(with("backbone.layers.3.mixer.up_proj.bias", {8}),
                 "backbone.layers.3.mixer.up_proj.bias: shape [8], want [7]");
}

}  // namespace
}  // namespace logitlab
