#include "lab/whatif.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "sampling/distribution.h"
#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

using Row = std::vector<float>;

struct Recording {
  int64_t n_candidates = 20;
  bool full_rows = false;
  std::vector<TokenId> prompt = {1, 2, 3};
};

// What one setting makes of a row.
struct Outcome {
  TokenId id = 0;
  Row scores;
  bool is_refused = false;
};

Draw draw_of(const GenerationConfig& config, size_t step) {
  return {
      .seed = config.seed.value_or(0), .sequence_index = 0, .step = static_cast<uint32_t>(step)};
}

ProcessorChain chain_of(const GenerationConfig& config, const Recording& recording,
                        int64_t vocab_size) {
  ChainOptions options;
  options.vocab_size = vocab_size;
  options.prompt_length = static_cast<int64_t>(recording.prompt.size());
  if (config.max_new_tokens) {
    options.max_length = options.prompt_length + *config.max_new_tokens;
  }
  auto chain = build_chain(config, options);
  EXPECT_TRUE(chain) << chain.error().message;
  return std::move(chain).value();
}

class StageCounter final : public StageObserver {
 public:
  void after_stage(int64_t /*stage*/, const LogitsProcessor& processor,
                   std::span<const float> scores) override {
    TracedStage stage;
    stage.name = processor.name();
    stage.survivors =
        std::count_if(scores.begin(), scores.end(), [](float score) { return score > -1e38F; });
    stages.push_back(stage);
    rows.emplace_back(scores.begin(), scores.end());
  }
  std::vector<TracedStage> stages;
  std::vector<Row> rows;
};

Outcome outcome_of(ProcessorChain* chain, const Row& row, const std::vector<TokenId>& ids,
                   const Recording& recording, const GenerationConfig& config, size_t step,
                   StageObserver* observer = nullptr) {
  Outcome outcome;
  outcome.scores = row;
  chain->apply(outcome.scores,
               {.ids = ids, .prompt_length = static_cast<int64_t>(recording.prompt.size())},
               observer);
  if (config.do_sample.value_or(false)) {
    const auto id = sample(outcome.scores, draw_of(config, step));
    outcome.is_refused = !id;
    outcome.id = id.value_or(-1);
  } else {
    outcome.id = arg_max(outcome.scores);
  }
  return outcome;
}

TracedStep traced(const Row& row, const Outcome& outcome, const StageCounter& counter,
                  const GenerationConfig& config, const Recording& recording, size_t number) {
  TracedStep step;
  step.step = static_cast<int64_t>(number);
  step.id = outcome.id;
  const auto chosen = static_cast<size_t>(outcome.id);
  step.logit = row[chosen];
  step.score = outcome.scores[chosen];
  step.log_sum_exp = log_sum_exp(row);
  step.largest_logit = *std::max_element(row.begin(), row.end());
  step.raw_rank =
      1 + std::count_if(row.begin(), row.end(), [&](float logit) { return logit > step.logit; });
  if (config.do_sample.value_or(false)) {
    step.draw = draw_exponential(draw_of(config, number), step.id);
  }
  step.stages = counter.stages;
  std::vector<Alternative> best = top_alternatives(row, recording.n_candidates);
  if (std::none_of(best.begin(), best.end(),
                   [&](const Alternative& item) { return item.id == step.id; })) {
    best.push_back({.id = step.id, .logit = step.logit, .probability = 0});
  }
  const std::vector<double> raw = softmax_probabilities(row);
  const std::vector<double> final = softmax_probabilities(outcome.scores);
  Row tail = row;
  for (const Alternative& item : best) {
    const auto id = static_cast<size_t>(item.id);
    TracedCandidate candidate;
    candidate.id = item.id;
    candidate.logit = row[id];
    candidate.score = outcome.scores[id];
    candidate.raw_probability = raw[id];
    candidate.probability = final[id];
    for (size_t i = counter.rows.size(); i-- > 0;) {
      candidate.dropped_by =
          counter.rows[i][id] > -1e38F ? candidate.dropped_by : static_cast<int32_t>(i);
    }
    step.candidates.push_back(candidate);
    tail[id] = -std::numeric_limits<float>::infinity();
  }
  const bool has_tail = best.size() < row.size();
  step.tail_log_sum_exp = has_tail ? log_sum_exp(tail) : -std::numeric_limits<double>::infinity();
  if (recording.full_rows) {
    step.logits = row;
  }
  return step;
}

// A run of the given rows of logits, whatever ids come out.
TraceMemory record(const std::vector<Row>& rows, const GenerationConfig& given,
                   const Recording& recording) {
  const GenerationConfig config = merge_generation_config(given, {}).config;
  const auto vocab_size = static_cast<int64_t>(rows.front().size());
  TraceMemory memory;
  RunTrace run;
  run.config_json = dump_json(to_json(config));
  run.seed = config.seed.value_or(0);
  run.vocab_size = vocab_size;
  run.n_candidates = recording.n_candidates;
  run.prompts = {recording.prompt};
  run.sequence_prompts = {0};
  memory.begin(run);
  ProcessorChain chain = chain_of(config, recording, vocab_size);
  std::vector<TokenId> ids = recording.prompt;
  RunEnd end;
  end.sequences.emplace_back();
  for (size_t i = 0; i < rows.size(); ++i) {
    StageCounter counter;
    const Outcome outcome = outcome_of(&chain, rows[i], ids, recording, config, i, &counter);
    EXPECT_FALSE(outcome.is_refused);
    memory.step(traced(rows[i], outcome, counter, config, recording, i));
    ids.push_back(outcome.id);
    chain.accept(outcome.id);
    end.sequences.front().ids.push_back(outcome.id);
  }
  end.sequences.front().stop_reason = "length";
  memory.end(end);
  return memory;
}

WhatIf asked(const TraceMemory& trace, const GenerationConfig& other) {
  auto answer = what_if(trace, other);
  EXPECT_TRUE(answer) << answer.error().message;
  return answer ? std::move(answer).value() : WhatIf{};
}

Row random_row(std::mt19937* random, size_t n, double scale) {
  std::normal_distribution<float> normal(0, 1);
  Row row(n);
  for (float& logit : row) {
    logit = static_cast<float>(scale) * normal(*random);
  }
  return row;
}

bool coin(std::mt19937* random, double p) {
  return std::uniform_real_distribution<double>(0, 1)(*random) < p;
}

double between(std::mt19937* random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(*random);
}

GenerationConfig random_settings(std::mt19937* random, int64_t vocab_size) {
  GenerationConfig config;
  const auto token = [&] {
    return static_cast<TokenId>((*random)() % static_cast<uint32_t>(vocab_size));
  };
  config.do_sample = coin(random, 0.85);
  config.top_k = coin(random, 0.5) ? 0 : static_cast<int64_t>(1 + (*random)() % 14);
  if (coin(random, 0.5)) {
    config.temperature = between(random, 0.3, 2);
  }
  if (coin(random, 0.4)) {
    config.top_p = between(random, 0, 1);
  }
  if (coin(random, 0.2)) {
    config.min_p = between(random, 0, 0.5);
  }
  if (coin(random, 0.1)) {
    config.typical_p = between(random, 0.1, 0.99);
  }
  if (coin(random, 0.15)) {
    config.epsilon_cutoff = between(random, 0.001, 0.1);
  }
  if (coin(random, 0.1)) {
    config.eta_cutoff = between(random, 0.001, 0.1);
  }
  if (coin(random, 0.1)) {
    config.top_h = between(random, 0.1, 1);
  }
  if (coin(random, 0.3)) {
    config.repetition_penalty = between(random, 0.7, 1.8);
  }
  if (coin(random, 0.15)) {
    config.presence_penalty = between(random, -2, 2);
  }
  if (coin(random, 0.15)) {
    config.frequency_penalty = between(random, -2, 2);
  }
  if (coin(random, 0.2)) {
    config.logit_bias = {{.id = token(), .bias = between(random, -5, 5)}};
  }
  if (coin(random, 0.2)) {
    config.suppress_tokens = {{token(), token()}};
  }
  if (coin(random, 0.1)) {
    config.no_repeat_ngram_size = 1;
  }
  if (coin(random, 0.1)) {
    config.renormalize_logits = true;
  }
  if (coin(random, 0.2)) {
    config.semantics = coin(random, 0.5) ? Semantics::kVllm : Semantics::kLlamaCpp;
  }
  return config;
}

// Other semantics know fewer settings.
bool is_possible(const GenerationConfig& given, const GenerationConfig& behind,
                 int64_t vocab_size) {
  ChainOptions options;
  options.vocab_size = vocab_size;
  return build_chain(merge_generation_config(given, behind).config, options).has_value();
}

// For every step, by running the processors over the real rows with the traced prefix.
std::vector<Outcome> truth_of(const std::vector<Row>& rows, const TraceMemory& trace,
                              const GenerationConfig& config, const Recording& recording) {
  ProcessorChain chain = chain_of(config, recording, static_cast<int64_t>(rows.front().size()));
  std::vector<TokenId> ids = recording.prompt;
  std::vector<Outcome> outcomes;
  for (size_t i = 0; i < rows.size(); ++i) {
    outcomes.push_back(outcome_of(&chain, rows[i], ids, recording, config, i));
    ids.push_back(trace.steps()[i].id);
    chain.accept(trace.steps()[i].id);
  }
  return outcomes;
}

ChoiceDifference true_difference(const Outcome& old, const GenerationConfig& old_config,
                                 const Outcome& other, const GenerationConfig& other_config) {
  const auto weights = [](const Outcome& outcome, const GenerationConfig& config) {
    std::vector<double> p = softmax_probabilities(outcome.scores);
    if (!config.do_sample.value_or(false)) {
      std::fill(p.begin(), p.end(), 0);
      p[static_cast<size_t>(outcome.id)] = 1;
    }
    return p;
  };
  const std::vector<double> p = weights(old, old_config);
  const std::vector<double> q = weights(other, other_config);
  std::vector<CoupledToken> tokens;
  for (size_t i = 0; i < p.size(); ++i) {
    tokens.push_back({.first = p[i], .second = q[i]});
  }
  return choice_difference(tokens, {});
}

void expect_within(const Interval& interval, double truth, const std::string& where) {
  // The sums of a trace are right to 1e-6; a probability moves by a few times that.
  EXPECT_LE(interval.low, truth + 2e-5) << where;
  EXPECT_GE(interval.high, truth - 2e-5) << where;
}

struct Counts {
  int steps = 0;
  int decided = 0;
  int differing = 0;
};

void compare(const std::vector<Row>& rows, const GenerationConfig& old_given,
             const GenerationConfig& other_given, const Recording& recording, Counts* counts) {
  const TraceMemory trace = record(rows, old_given, recording);
  const GenerationConfig old = merge_generation_config(old_given, {}).config;
  const GenerationConfig other = merge_generation_config(other_given, old).config;
  const std::vector<Outcome> old_outcomes = truth_of(rows, trace, old, recording);
  const std::vector<Outcome> outcomes = truth_of(rows, trace, other, recording);
  const WhatIf answer = asked(trace, other_given);
  ASSERT_EQ(answer.steps.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const WhatIfStep& step = answer.steps[i];
    const std::string where = dump_json(to_json(old)) + "\n" + dump_json(to_json(other_given)) +
                              "\nstep " + std::to_string(i) + " " + step.why;
    ++counts->steps;
    if (outcomes[i].is_refused) {
      EXPECT_EQ(step.verdict, Verdict::kUndecided) << where;
      continue;
    }
    if (step.new_id) {
      ++counts->decided;
      EXPECT_EQ(*step.new_id, outcomes[i].id) << where;
    }
    if (recording.full_rows) {
      EXPECT_TRUE(step.new_id) << where;
      EXPECT_NEAR(step.flip.low, step.flip.high, 1e-12) << where;
    }
    counts->differing += step.verdict == Verdict::kDiffers ? 1 : 0;
    const ChoiceDifference truth = true_difference(old_outcomes[i], old, outcomes[i], other);
    expect_within(step.flip, truth.shared.low, "shared\n" + where);
    expect_within(step.independent_flip, truth.independent.low, "independent\n" + where);
  }
}

Counts compare_random(uint32_t seed, const Recording& recording, int n_trials) {
  std::mt19937 random(seed);
  constexpr int64_t kVocab = 40;
  Counts counts;
  for (int trial = 0; trial < n_trials && !testing::Test::HasFailure(); ++trial) {
    std::vector<Row> rows;
    const double scale = between(&random, 0.3, 5);
    for (int step = 0; step < 4; ++step) {
      rows.push_back(random_row(&random, kVocab, scale));
      if (coin(&random, 0.3)) {  // ties
        std::for_each(rows.back().begin(), rows.back().end(),
                      [](float& logit) { logit = std::round(logit); });
      }
    }
    GenerationConfig old;
    GenerationConfig other;
    do {
      old = random_settings(&random, kVocab);
      other = random_settings(&random, kVocab);
    } while (!is_possible(old, {}, kVocab) || !is_possible(other, old, kVocab));
    compare(rows, old, other, recording, &counts);
  }
  return counts;
}

TEST(WhatIf, FullRowsGiveWhatARunWouldHaveGiven) {
  const Counts counts = compare_random(11, {.n_candidates = 5, .full_rows = true}, 500);
  EXPECT_GT(counts.differing, counts.steps / 4);
}

TEST(WhatIf, CandidatesGiveTheTruthOrSayThatTheyCannot) {
  const Counts counts = compare_random(12, {.n_candidates = 8}, 1500);
  // Most questions must be answered all the same, or the bounds are worth nothing.
  EXPECT_GT(counts.decided, counts.steps / 2);
  EXPECT_LT(counts.decided, counts.steps);
  EXPECT_GT(counts.differing, counts.steps / 8);
}

TEST(WhatIf, WithAllTokensListedNothingIsOpen) {
  const Counts counts = compare_random(13, {.n_candidates = 40}, 200);
  EXPECT_GE(counts.decided, counts.steps * 9 / 10);  // the others are refused by a run as well
}

TEST(WhatIf, NamesTheFirstChangeAndWhatFollowsIsHypothetical) {
  const std::vector<Row> rows = {{5, 1, 0, 0, 0}, {2, 1.9F, 0, 0, 0}, {9, 0, 0, 0, 0}};
  GenerationConfig greedy;
  const TraceMemory trace = record(rows, greedy, {.n_candidates = 3});
  GenerationConfig other;
  other.suppress_tokens = {{0}};
  const WhatIf answer = asked(trace, other);
  ASSERT_EQ(answer.first_changes.size(), 1U);
  EXPECT_EQ(answer.first_changes.front(), 0U);
  EXPECT_EQ(answer.steps[0].new_id, 1);
  EXPECT_EQ(answer.steps[0].why, "suppress_tokens drops the old token");
  EXPECT_EQ(answer.steps[0].flip.low, 1);
  EXPECT_FALSE(answer.steps[0].is_hypothetical);
  EXPECT_TRUE(answer.steps[1].is_hypothetical);
}

TEST(WhatIf, TheSameSettingsChangeNothing) {
  GenerationConfig config;
  config.do_sample = true;
  config.top_k = 4;
  config.seed = 5;
  std::mt19937 random(4);
  std::vector<Row> rows;
  for (int i = 0; i < 20; ++i) {
    rows.push_back(random_row(&random, 30, 1));
  }
  const WhatIf answer = asked(record(rows, config, {.n_candidates = 6}), {});
  EXPECT_TRUE(answer.first_changes.empty());
  for (const WhatIfStep& step : answer.steps) {
    EXPECT_EQ(step.verdict, Verdict::kSame);
    EXPECT_NEAR(step.flip.high, 0, 1e-6);
    EXPECT_GT(step.independent_flip.low, 0.01);
  }
}

TEST(WhatIf, SaysWhatWouldSettleAnOpenStep) {
  GenerationConfig config;
  config.do_sample = true;
  config.top_k = 2;
  const TraceMemory trace = record({Row(60, 1.0F)}, config, {.n_candidates = 4});
  GenerationConfig other;
  other.top_k = 30;
  const WhatIf answer = asked(trace, other);
  EXPECT_EQ(answer.steps.front().verdict, Verdict::kUndecided);
  EXPECT_EQ(answer.steps.front().why, "top_k=30 reaches beyond the 5 tokens that the trace lists");
  EXPECT_NE(answer.remedy.find("--trace-candidates 38"), std::string::npos) << answer.remedy;
  EXPECT_LT(answer.steps.front().flip.low, answer.steps.front().flip.high);
}

TEST(WhatIf, CoarserLogitsAreRoundedAndFinerOnesRefused) {
  // 1.001 and 1 are one number in bfloat16, and the lowest id wins among equals.
  const std::vector<Row> rows = {{1, 1.001F, -3, -4, -5, -6}};
  GenerationConfig coarse;
  coarse.logits_dtype = LogitsDtype::kBfloat16;
  const WhatIf answer = asked(record(rows, {}, {.n_candidates = 3}), coarse);
  EXPECT_EQ(answer.steps.front().old_id, 1);
  EXPECT_EQ(answer.steps.front().new_id, 0);

  GenerationConfig fine;
  fine.logits_dtype = LogitsDtype::kFloat32;
  const auto refused = what_if(record(rows, coarse, {.n_candidates = 3}), fine);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("logits_dtype"), std::string::npos);
}

TEST(WhatIf, RefusesWhatATraceCannotTell) {
  const TraceMemory trace = record({{1, 2, 3}}, {}, {.n_candidates = 3});
  GenerationConfig beams;
  beams.num_beams = 4;
  GenerationConfig guidance;
  guidance.guidance_scale = 2;
  GenerationConfig bad;
  bad.do_sample = true;
  bad.temperature = -1;
  for (const auto& [config, word] :
       {std::pair(beams, "num_beams"), std::pair(guidance, "guidance_scale"),
        std::pair(bad, "temperature")}) {
    const auto answer = what_if(trace, config);
    ASSERT_FALSE(answer) << word;
    EXPECT_EQ(answer.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(answer.error().message.find(word), std::string::npos) << answer.error().message;
  }
}

TEST(WhatIf, ADrawThatDoesNotReplayIsRefused) {
  GenerationConfig config;
  config.do_sample = true;
  const TraceMemory good = record({{1, 2, 3}}, config, {.n_candidates = 3});
  TraceMemory changed;
  changed.begin(good.run());
  TracedStep step = good.steps().front();
  step.draw *= 1.001;
  changed.step(step);
  changed.end(good.ended());
  const auto answer = what_if(changed, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kDataLoss);
  EXPECT_NE(answer.error().message.find("step 0"), std::string::npos);
}

TEST(WhatIf, SaysWhereTheOtherSettingsEnd) {
  const TraceMemory trace = record({{1, 2, 3}, {1, 2, 3}, {1, 2, 3}}, {}, {.n_candidates = 3});
  GenerationConfig shorter;
  shorter.max_new_tokens = 2;
  const WhatIf answer = asked(trace, shorter);
  ASSERT_EQ(answer.notes.size(), 1U);
  EXPECT_NE(answer.notes.front().find("end it after 2 tokens"), std::string::npos);
  GenerationConfig longer;
  longer.max_new_tokens = 9;
  ASSERT_EQ(asked(trace, longer).notes.size(), 1U);
  GenerationConfig stops;
  stops.eos_token_id = {{2}};
  EXPECT_NE(asked(trace, stops).notes.front().find("after 1 tokens"), std::string::npos);
}

}  // namespace
}  // namespace logitlab
