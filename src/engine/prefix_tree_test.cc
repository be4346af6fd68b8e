#include "engine/prefix_tree.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "trace/trace_file.h"

namespace logitlab {
namespace {

std::unique_ptr<Engine> load(const std::string& model, int threads) {
  EngineOptions options;
  options.model = std::string(LOGITLAB_SOURCE_DIR) + "/tests/data/models/" + model;
  options.threads = threads;
  auto engine = Engine::load(options);
  EXPECT_TRUE(engine) << engine.error().message;
  return engine ? std::move(*engine) : nullptr;
}

// Prompts and settings of a study, and what came of its runs.
struct Runs {
  std::vector<std::vector<TokenId>> prompts = {{5, 6, 7, 8, 9, 10, 11, 12, 13}, {40, 41, 5}};
  std::vector<GenerationConfig> configs;
  std::vector<size_t> prompt_of;
  std::vector<TraceMemory> traces;
  std::vector<GenerationResult> results;
  std::vector<size_t> order;  // of ending

  void add(GenerationConfig config, size_t prompt, uint64_t seed) {
    config.seed = seed;
    if (!config.max_new_tokens) {
      config.max_new_tokens = 14;
    }
    configs.push_back(std::move(config));
    prompt_of.push_back(prompt);
  }
  [[nodiscard]] size_t size() const { return configs.size(); }

  std::vector<TreeRun> tree_runs() {
    traces = std::vector<TraceMemory>(size());
    results = std::vector<GenerationResult>(size());
    order.clear();
    std::vector<TreeRun> runs(size());
    for (size_t i = 0; i < size(); ++i) {
      runs[i].prompt = prompts[prompt_of[i]];
      runs[i].config = &configs[i];
      runs[i].sequence_index = static_cast<uint32_t>(i % 3);
      runs[i].trace.sink = &traces[i];
      runs[i].trace.n_candidates = 5;
    }
    return runs;
  }
  TreeOptions options() {
    TreeOptions options;
    options.prefill_chunk = 4;
    options.on_finished = [this](size_t run, const GenerationResult& result) -> Status {
      results[run] = result;
      order.push_back(run);
      return {};
    };
    return options;
  }
};

// No end tokens but where a setting is about them, so that texts are long enough to differ.
GenerationConfig greedy() {
  GenerationConfig config;
  config.do_sample = false;
  config.eos_token_id = TokenIds{};
  return config;
}
GenerationConfig sampled(double temperature) {
  GenerationConfig config = greedy();
  config.do_sample = true;
  config.temperature = temperature;
  config.top_k = 0;
  return config;
}

Runs mixed_runs() {
  Runs runs;
  for (size_t prompt = 0; prompt < 2; ++prompt) {
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      runs.add(greedy(), prompt, seed);
      runs.add(sampled(0.05), prompt, seed);
      runs.add(sampled(1.0), prompt, seed);
      GenerationConfig filtered = sampled(0.7);
      filtered.top_p = 0.5;
      filtered.repetition_penalty = 1.4;
      filtered.no_repeat_ngram_size = 2;
      runs.add(filtered, prompt, seed);
      GenerationConfig rounded = sampled(0.5);
      rounded.top_k = 1;
      rounded.logits_dtype = LogitsDtype::kBfloat16;
      runs.add(rounded, prompt, seed);
    }
    GenerationConfig short_one = greedy();
    short_one.max_new_tokens = 3;
    runs.add(short_one, prompt, 0);
    GenerationConfig single = greedy();
    single.max_new_tokens = 1;
    runs.add(single, prompt, 0);
    GenerationConfig beams = greedy();
    beams.num_beams = 3;
    beams.num_return_sequences = 2;
    runs.add(beams, prompt, 0);
    GenerationConfig guided = sampled(0.8);
    guided.guidance_scale = 1.5;
    runs.add(guided, prompt, 7);
    GenerationConfig ended = sampled(1.0);
    ended.eos_token_id = TokenIds{};
    for (TokenId id = 0; id < 200; id += 3) {
      ended.eos_token_id->push_back(id);
    }
    runs.add(ended, prompt, 9);
  }
  return runs;
}

void expect_equal(const TracedStep& a, const TracedStep& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.sequence, b.sequence);
  EXPECT_EQ(a.id, b.id);
  EXPECT_EQ(a.logit, b.logit);
  EXPECT_EQ(a.score, b.score);
  EXPECT_EQ(a.probability, b.probability);
  EXPECT_EQ(a.raw_probability, b.raw_probability);
  EXPECT_EQ(a.raw_rank, b.raw_rank);
  EXPECT_EQ(a.rank, b.rank);
  EXPECT_EQ(a.raw_entropy, b.raw_entropy);
  EXPECT_EQ(a.entropy, b.entropy);
  EXPECT_EQ(a.tail_log_sum_exp, b.tail_log_sum_exp);
  EXPECT_EQ(a.logits_hash, b.logits_hash);
  EXPECT_EQ(a.draw_runner_up, b.draw_runner_up);
  EXPECT_TRUE(a.draw == b.draw || (a.draw != a.draw && b.draw != b.draw));
  EXPECT_TRUE(a.draw_margin == b.draw_margin ||
              (a.draw_margin != a.draw_margin && b.draw_margin != b.draw_margin));
  EXPECT_EQ(a.tied_at_max, b.tied_at_max);
  ASSERT_EQ(a.stages.size(), b.stages.size());
  for (size_t i = 0; i < a.stages.size(); ++i) {
    EXPECT_EQ(a.stages[i].name, b.stages[i].name);
    EXPECT_EQ(a.stages[i].survivors, b.stages[i].survivors);
    EXPECT_EQ(a.stages[i].mass, b.stages[i].mass);
    EXPECT_EQ(a.stages[i].changed_in_prompt, b.stages[i].changed_in_prompt);
    EXPECT_EQ(a.stages[i].changed_in_answer, b.stages[i].changed_in_answer);
    EXPECT_EQ(a.stages[i].tied_dropped, b.stages[i].tied_dropped);
  }
  ASSERT_EQ(a.candidates.size(), b.candidates.size());
  for (size_t i = 0; i < a.candidates.size(); ++i) {
    EXPECT_EQ(a.candidates[i].id, b.candidates[i].id);
    EXPECT_EQ(a.candidates[i].score, b.candidates[i].score);
    EXPECT_EQ(a.candidates[i].probability, b.candidates[i].probability);
    EXPECT_EQ(a.candidates[i].dropped_by, b.candidates[i].dropped_by);
    EXPECT_EQ(a.candidates[i].in_prompt, b.candidates[i].in_prompt);
    EXPECT_EQ(a.candidates[i].in_answer, b.candidates[i].in_answer);
  }
}

void expect_equal(const Runs& first, const Runs& second) {
  ASSERT_EQ(first.size(), second.size());
  for (size_t i = 0; i < first.size(); ++i) {
    SCOPED_TRACE("run " + std::to_string(i));
    const auto& a = first.results[i].sequences;
    const auto& b = second.results[i].sequences;
    ASSERT_EQ(a.size(), b.size());
    for (size_t k = 0; k < a.size(); ++k) {
      EXPECT_EQ(a[k].ids, b[k].ids);
      EXPECT_EQ(a[k].stop_reason, b[k].stop_reason);
      EXPECT_EQ(a[k].stop_id, b[k].stop_id);
      EXPECT_EQ(a[k].beam_indices, b[k].beam_indices);
    }
    EXPECT_EQ(first.traces[i].run().seed, second.traces[i].run().seed);
    EXPECT_EQ(first.traces[i].run().prompts, second.traces[i].run().prompts);
    const auto& steps = first.traces[i].steps();
    ASSERT_EQ(steps.size(), second.traces[i].steps().size());
    for (size_t k = 0; k < steps.size(); ++k) {
      expect_equal(steps[k], second.traces[i].steps()[k]);
    }
    EXPECT_EQ(first.traces[i].beam_steps().size(), second.traces[i].beam_steps().size());
    EXPECT_EQ(first.traces[i].ended().pieces, second.traces[i].ended().pieces);
  }
}

class PrefixTree : public testing::TestWithParam<const char*> {};

TEST_P(PrefixTree, EveryRunIsWhatItIsAlone) {
  const auto engine = load(GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  Runs alone = mixed_runs();
  TreeOptions one_by_one = alone.options();
  one_by_one.share_prefixes = false;
  const auto single = run_tree(engine.get(), alone.tree_runs(), one_by_one);
  ASSERT_TRUE(single) << single.error().message;
  EXPECT_EQ(alone.order.size(), alone.size());
  // A budget for all, for a few states, for none.
  const size_t state = engine->model().state_bytes(20);
  for (const size_t budget : {size_t{0}, 6 * state, size_t{1}}) {
    for (const int64_t max_rows : {64, 3, 1}) {
      SCOPED_TRACE("budget " + std::to_string(budget) + ", rows " + std::to_string(max_rows));
      Runs shared = mixed_runs();
      TreeOptions options = shared.options();
      options.state_budget_bytes = budget;
      options.max_rows = max_rows;
      const auto totals = run_tree(engine.get(), shared.tree_runs(), options);
      ASSERT_TRUE(totals) << totals.error().message;
      EXPECT_EQ(totals->runs_finished, static_cast<int64_t>(shared.size()));
      EXPECT_EQ(totals->new_tokens_asked, single->new_tokens_asked);
      EXPECT_EQ(totals->prompt_tokens_asked, single->prompt_tokens_asked);
      EXPECT_LT(totals->decode_rows - totals->replayed_rows, single->decode_rows);
      if (budget == 0) {
        EXPECT_EQ(totals->replayed_rows, 0);
      } else if (budget == 1) {
        EXPECT_GT(totals->replayed_rows, 0);
      }
      expect_equal(alone, shared);
    }
  }
}

TEST_P(PrefixTree, ThreadsChangeNothing) {
  const auto one = load(GetParam(), 1);
  const auto two = load(GetParam(), 2);
  ASSERT_TRUE(one != nullptr && two != nullptr);
  Runs first = mixed_runs();
  Runs second = mixed_runs();
  ASSERT_TRUE(run_tree(one.get(), first.tree_runs(), first.options()));
  ASSERT_TRUE(run_tree(two.get(), second.tree_runs(), second.options()));
  expect_equal(first, second);
}

TEST_P(PrefixTree, CostsTheDistinctPrefixes) {
  const auto engine = load(GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  Runs runs;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    runs.add(seed % 3 == 0 ? greedy() : sampled(0.3), seed % 2, seed);
  }
  const auto totals = run_tree(engine.get(), runs.tree_runs(), runs.options());
  ASSERT_TRUE(totals) << totals.error().message;
  // A token that ends a run is not read.
  std::set<std::pair<size_t, std::vector<TokenId>>> prefixes;
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto& ids = runs.results[i].first().ids;
    for (size_t n = 1; n < ids.size(); ++n) {
      prefixes.insert(
          {runs.prompt_of[i],
           std::vector<TokenId>(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n))});
    }
  }
  EXPECT_EQ(totals->decode_rows, static_cast<int64_t>(prefixes.size()));
  EXPECT_EQ(totals->replayed_rows, 0);
  EXPECT_EQ(totals->prefill_tokens, 9 + 3);
  EXPECT_EQ(totals->new_tokens_asked, 30 * 14);
  EXPECT_GT(totals->peak_state_bytes, 0U);
}

TEST_P(PrefixTree, ABudgetIsKept) {
  const auto engine = load(GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  const size_t state = engine->model().state_bytes(9 + 14);
  Runs free;
  Runs bound;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    free.add(sampled(1.0), 0, seed);
    bound.add(sampled(1.0), 0, seed);
  }
  const auto without = run_tree(engine.get(), free.tree_runs(), free.options());
  TreeOptions options = bound.options();
  options.state_budget_bytes = 8 * state;
  const auto with = run_tree(engine.get(), bound.tree_runs(), options);
  ASSERT_TRUE(without && with);
  EXPECT_GT(without->peak_state_bytes, 16 * state);
  // A step makes the states of a batch longer by one position: that is what may come on top.
  EXPECT_LE(with->peak_state_bytes, 9 * state);
  expect_equal(free, bound);
}

// More branches than rows: the deepest go on, so that runs end one batch after the other and what
// is stopped has lost little.
TEST_P(PrefixTree, RunsEndBeforeAllHaveBegun) {
  const auto engine = load(GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  Runs many;
  Runs few;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    many.add(sampled(1.0), 0, seed);
    few.add(sampled(1.0), 0, seed);
  }
  TreeOptions options = few.options();
  options.max_rows = 4;
  int64_t asked = 0;
  int64_t asked_at_first_end = 0;
  options.on_progress = [&](const TreeProgress& progress) {
    asked = progress.tokens_asked;
    if (progress.runs_finished > 0 && asked_at_first_end == 0) {
      asked_at_first_end = asked;
    }
  };
  const auto wide = run_tree(engine.get(), many.tree_runs(), many.options());
  const auto narrow = run_tree(engine.get(), few.tree_runs(), options);
  ASSERT_TRUE(wide && narrow);
  EXPECT_EQ(asked, 40 * 14);
  EXPECT_GT(asked_at_first_end, 0);
  EXPECT_LT(asked_at_first_end, 40 * 14 / 2);
  EXPECT_EQ(narrow->decode_rows, wide->decode_rows);
  EXPECT_EQ(narrow->replayed_rows, 0);
  EXPECT_LT(narrow->peak_state_bytes, wide->peak_state_bytes);
  expect_equal(many, few);
}

TEST_P(PrefixTree, StopsWhenAsked) {
  const auto engine = load(GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  for (const int patience : {0, 1, 4, 9}) {
    Runs runs = mixed_runs();
    TreeOptions options = runs.options();
    int asked = 0;
    options.is_cancelled = [&asked, patience] { return ++asked > patience; };
    const auto totals = run_tree(engine.get(), runs.tree_runs(), options);
    ASSERT_TRUE(totals) << totals.error().message;
    EXPECT_TRUE(totals->is_cancelled);
    EXPECT_EQ(totals->runs_finished, static_cast<int64_t>(runs.order.size()));
    EXPECT_LT(runs.order.size(), runs.size());
  }
}

TEST_P(PrefixTree, AnErrorOfTheCallerEndsIt) {
  const auto engine = load(GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  Runs runs = mixed_runs();
  TreeOptions options = runs.options();
  int given = 0;
  options.on_finished = [&given](size_t /*run*/, const GenerationResult& /*result*/) -> Status {
    return ++given == 5 ? Status(fail(ErrorCode::kResourceExhausted, "the disk is full"))
                        : Status();
  };
  const auto totals = run_tree(engine.get(), runs.tree_runs(), options);
  ASSERT_FALSE(totals);
  EXPECT_EQ(totals.error().message, "the disk is full");
  EXPECT_EQ(given, 5);
}

TEST_P(PrefixTree, RefusesBeforeItRuns) {
  const auto engine = load(GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  Runs bad_setting = mixed_runs();
  bad_setting.configs.back().temperature = -1;
  Runs several = mixed_runs();
  several.configs.front().num_return_sequences = 2;
  Runs empty = mixed_runs();
  empty.prompts[1].clear();
  Runs foreign = mixed_runs();
  foreign.prompts[1].push_back(1'000'000);
  for (Runs* runs : {&bad_setting, &several, &empty, &foreign}) {
    const auto totals = run_tree(engine.get(), runs->tree_runs(), runs->options());
    ASSERT_FALSE(totals);
    EXPECT_EQ(totals.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(runs->order.empty());
  }
  Runs none;
  const auto totals = run_tree(engine.get(), none.tree_runs(), none.options());
  ASSERT_TRUE(totals);
  EXPECT_EQ(totals->runs_finished, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, PrefixTree, testing::Values("qwen3", "nemotron_h"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace logitlab
