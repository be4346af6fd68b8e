#include "lab/continuation_tree.h"

#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/prefix_tree.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

// Of a product of a few probabilities: a trace holds each to 1e-6 (step_tracer.h).
constexpr double kTraced = 5e-6;

class Continuations : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    EngineOptions options;
    options.model = std::string(LOGITLAB_SOURCE_DIR) + "/tests/data/models/" + GetParam();
    auto engine = Engine::load(options);
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
  }

  TreeRequest request(int64_t top_k, int64_t new_tokens) {
    TreeRequest request;
    request.prompt = {5, 6, 7, 8, 9};
    request.config.do_sample = true;
    request.config.top_k = top_k;
    request.config.temperature = 1.5;
    request.config.max_new_tokens = new_tokens;
    request.config.eos_token_id = TokenIds{};
    request.mass = 1;
    return request;
  }

  std::unique_ptr<Engine> engine_;
};

// What runs of seeds 0 to n - 1 give: how often each text came, and its traced probability.
struct Sampled {
  std::map<std::vector<TokenId>, int64_t> counts;
  std::map<std::vector<TokenId>, double> probabilities;
};
Sampled sample_runs(Engine* engine, const TreeRequest& request, uint64_t n) {
  std::vector<GenerationConfig> configs(n, request.config);
  std::vector<TraceMemory> traces(n);
  std::vector<TreeRun> runs(n);
  for (uint64_t seed = 0; seed < n; ++seed) {
    configs[seed].seed = seed;
    runs[seed].prompt = request.prompt;
    runs[seed].config = &configs[seed];
    runs[seed].trace.sink = &traces[seed];
    runs[seed].trace.n_candidates = 0;
  }
  Sampled sampled;
  TreeOptions options;
  options.on_finished = [&](size_t run, const GenerationResult& result) -> Status {
    double probability = 1;
    for (const TracedStep& step : traces[run].steps()) {
      probability *= step.probability;
    }
    ++sampled.counts[result.first().ids];
    sampled.probabilities[result.first().ids] = probability;
    return {};
  };
  const auto totals = run_tree(engine, runs, options);
  EXPECT_TRUE(totals) << totals.error().message;
  return sampled;
}

TEST_P(Continuations, GreedyHasOne) {
  TreeRequest wanted = request(1, 6);
  wanted.config.do_sample = false;
  const auto tree = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(tree) << tree.error().message;
  const auto run = engine_->generate(wanted.prompt, wanted.config, {});
  ASSERT_TRUE(run);
  ASSERT_EQ(tree->leaves.size(), 1U);
  EXPECT_EQ(tree->leaves[0].ids, run->first().ids);
  EXPECT_EQ(tree->leaves[0].probability, 1);
  EXPECT_EQ(tree->leaves[0].stop_reason, StopReason::kLength);
  EXPECT_TRUE(tree->is_complete);
  EXPECT_EQ(tree->nodes, 5);  // the last token is not read
  EXPECT_EQ(tree->same_text.low, 1);
  EXPECT_EQ(tree->parted_by_step.back().high, 0);
  EXPECT_EQ(expected_distinct(*tree, 7).low, 1);
  EXPECT_EQ(expected_distinct(*tree, 7).high, 1);
}

TEST_P(Continuations, EveryTextHasTheProbabilityOfItsRun) {
  const TreeRequest wanted = request(3, 3);
  const auto tree = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_TRUE(tree->is_complete);
  EXPECT_EQ(tree->leaves.size(), 27U);
  EXPECT_EQ(tree->n_texts, 27);
  EXPECT_EQ(tree->nodes, 3 + 9);
  EXPECT_NEAR(tree->mass, 1, 1e-12);
  EXPECT_EQ(tree->open_mass, 0);
  const Sampled sampled = sample_runs(engine_.get(), wanted, 400);
  EXPECT_GT(sampled.probabilities.size(), 10U);
  std::map<std::vector<TokenId>, double> known;
  for (const TreeLeaf& leaf : tree->leaves) {
    known[leaf.ids] = leaf.probability;
  }
  EXPECT_EQ(known.size(), 27U);
  for (const auto& [ids, probability] : sampled.probabilities) {
    ASSERT_EQ(known.count(ids), 1U);
    EXPECT_NEAR(known[ids] / probability, 1, kTraced);
  }
}

TEST_P(Continuations, SamplesFollowIt) {
  const TreeRequest wanted = request(2, 3);
  const auto tree = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(tree) << tree.error().message;
  ASSERT_EQ(tree->leaves.size(), 8U);
  constexpr uint64_t kRuns = 4000;
  Sampled sampled = sample_runs(engine_.get(), wanted, kRuns);
  double chi_square = 0;
  double same = 0;
  for (const TreeLeaf& leaf : tree->leaves) {
    const double expected = leaf.probability * kRuns;
    ASSERT_GT(expected, 5);
    const double difference = static_cast<double>(sampled.counts[leaf.ids]) - expected;
    chi_square += difference * difference / expected;
    same += leaf.probability * leaf.probability;
  }
  EXPECT_LT(chi_square, 24.32);  // seven degrees of freedom: one in a thousand is above
  EXPECT_NEAR(tree->same_text.low, same, 1e-12);
  EXPECT_NEAR(tree->same_text.high, same, 1e-12);
  const Interval expected = expected_distinct(*tree, 5);
  EXPECT_NEAR(expected.low, expected.high, 1e-9);
  double distinct = 0;
  for (const TreeLeaf& leaf : tree->leaves) {
    distinct += 1 - std::pow(1 - leaf.probability, 5);
  }
  EXPECT_NEAR(expected.low, distinct, 1e-9);
}

TEST_P(Continuations, BoundsHoldWhereTheBudgetEnds) {
  TreeRequest wanted = request(4, 4);
  const auto whole = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(whole) << whole.error().message;
  ASSERT_TRUE(whole->is_complete);
  EXPECT_EQ(whole->n_texts, 256);
  for (const int64_t nodes : {1, 5, 20, 60}) {
    wanted.max_nodes = nodes;
    const auto part = expand_tree(engine_.get(), wanted);
    ASSERT_TRUE(part) << part.error().message;
    EXPECT_FALSE(part->is_complete);
    EXPECT_EQ(part->nodes, nodes);
    EXPECT_NEAR(part->mass + part->open_mass, 1, 1e-9);
    ASSERT_EQ(part->parted_by_step.size(), 4U);
    for (size_t step = 0; step < 4; ++step) {
      const double truth = whole->parted_by_step[step].low;
      EXPECT_NEAR(truth, whole->parted_by_step[step].high, 1e-12);
      EXPECT_LE(part->parted_by_step[step].low, truth + 1e-12);
      EXPECT_GE(part->parted_by_step[step].high, truth - 1e-12);
    }
    EXPECT_LE(part->same_text.low, whole->same_text.low + 1e-12);
    EXPECT_GE(part->same_text.high, whole->same_text.low - 1e-12);
    const Interval truth = expected_distinct(*whole, 10);
    const Interval bound = expected_distinct(*part, 10);
    EXPECT_LE(bound.low, truth.low + 1e-9);
    EXPECT_GE(bound.high, truth.high - 1e-9);
  }
}

TEST_P(Continuations, EndsWhenTheMassIsThere) {
  TreeRequest wanted = request(4, 4);
  wanted.mass = 0.3;
  const auto tree = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_TRUE(tree->is_complete);
  EXPECT_GE(tree->mass, 0.3);
  EXPECT_LT(tree->n_texts, 256);
  for (size_t i = 1; i < tree->leaves.size(); ++i) {
    EXPECT_LE(tree->leaves[i].probability, tree->leaves[i - 1].probability);
  }
}

TEST_P(Continuations, AnUnfilteredVocabularyStaysSmall) {
  TreeRequest wanted = request(0, 8);
  wanted.mass = 0.95;
  wanted.max_nodes = 40;
  const auto tree = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_EQ(tree->nodes, 40);
  EXPECT_LE(tree->open.size(), ContinuationTree::kMostOpen);
  EXPECT_NEAR(tree->mass + tree->open_mass, 1, 1e-9);
}

TEST_P(Continuations, StopsAtEndTokens) {
  TreeRequest wanted = request(3, 5);
  const auto open = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(open);
  const TokenId end = open->leaves.front().ids[1];
  wanted.config.eos_token_id = TokenIds{end};
  const auto tree = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_NEAR(tree->mass, 1, 1e-12);
  for (const TreeLeaf& leaf : tree->leaves) {
    const bool has_ended = leaf.ids.back() == end;
    EXPECT_EQ(leaf.stop_reason, has_ended ? StopReason::kEos : StopReason::kLength);
    EXPECT_TRUE(has_ended || leaf.ids.size() == 5U);
  }
}

TEST_P(Continuations, RefusesWhatIsNotChosenTokenByToken) {
  TreeRequest beams = request(3, 3);
  beams.config.num_beams = 2;
  TreeRequest guided = request(3, 3);
  guided.config.guidance_scale = 2;
  TreeRequest no_mass = request(3, 3);
  no_mass.mass = 0;
  TreeRequest no_nodes = request(3, 3);
  no_nodes.max_nodes = 0;
  TreeRequest no_prompt = request(3, 3);
  no_prompt.prompt.clear();
  for (const TreeRequest& wanted : {beams, guided, no_mass, no_nodes, no_prompt}) {
    const auto tree = expand_tree(engine_.get(), wanted);
    ASSERT_FALSE(tree);
    EXPECT_EQ(tree.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST_P(Continuations, SaysWhatIsKnownWhenStopped) {
  TreeRequest wanted = request(4, 6);
  int asked = 0;
  wanted.is_cancelled = [&asked] { return ++asked > 3; };
  const auto tree = expand_tree(engine_.get(), wanted);
  ASSERT_TRUE(tree);
  EXPECT_TRUE(tree->is_cancelled);
  EXPECT_NEAR(tree->mass + tree->open_mass, 1, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Models, Continuations, testing::Values("qwen3", "nemotron_h"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace logitlab
