#include "sampling/step_tracer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "sampling/test_rows.h"

namespace logitlab {
namespace {

// Probabilities agree within this: step_tracer.h promises 1e-6 (relative).
constexpr double kTolerance = 1e-6;

// A processor that is nothing but what it does.
class Stage final : public LogitsProcessor {
 public:
  using Apply = std::function<void(std::span<float>)>;
  Stage(std::string name, ProcessorKind kind, Apply apply)
      : name_(std::move(name)), kind_(kind), apply_(std::move(apply)) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] ProcessorKind kind() const override { return kind_; }
  void apply(std::span<float> scores, const SequenceView& /*sequence*/) override { apply_(scores); }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override {
    return std::make_unique<Stage>(name_, kind_, apply_);
  }

 private:
  std::string name_;
  ProcessorKind kind_;
  Apply apply_;
};

Stage keep_at_least(float lowest) {
  return {"keep_at_least", ProcessorKind::kFilter, [lowest](std::span<float> scores) {
            for (float& score : scores) {
              score = score < lowest ? kMinusInfinity : score;
            }
          }};
}

Stage ban(Ids ids) {
  return {"suppress_tokens", ProcessorKind::kFilter, [ids](std::span<float> scores) {
            for (const TokenId id : ids) {
              scores[static_cast<size_t>(id)] = kMinusInfinity;
            }
          }};
}

Stage divide(float by) {
  return {"temperature", ProcessorKind::kTransform, [by](std::span<float> scores) {
            for (float& score : scores) {
              score /= by;
            }
          }};
}

Stage bias(Ids ids, float amount) {
  return {"sequence_bias", ProcessorKind::kTransform, [ids, amount](std::span<float> scores) {
            for (const TokenId id : ids) {
              scores[static_cast<size_t>(id)] += amount;
            }
          }};
}

// Brings banned tokens back, as remove_invalid_values does.
Stage revive() {
  return {"remove_invalid_values", ProcessorKind::kTransform, [](std::span<float> scores) {
            for (float& score : scores) {
              score = std::isnan(score) ? 0.0F : std::clamp(score, -1e30F, 1e30F);
            }
          }};
}

// What the record should say, in double and without any haste.
struct Reference {
  bool exists = false;
  double largest = 0;
  double sum = 0;

  explicit Reference(std::span<const float> row) {
    largest = static_cast<double>(*std::max_element(row.begin(), row.end()));
    const bool has_nan = std::any_of(row.begin(), row.end(), [](float x) { return std::isnan(x); });
    exists = !has_nan && std::isfinite(largest);
    for (const float score : row) {
      sum += std::exp(static_cast<double>(score) - largest);
    }
  }
  [[nodiscard]] double probability(float score) const {
    return exists ? std::exp(static_cast<double>(score) - largest) / sum : kNoNumber;
  }
  [[nodiscard]] double entropy(std::span<const float> row) const {
    double nats = exists ? 0 : kNoNumber;
    for (const float score : row) {
      const double p = probability(score);
      nats -= p > 0 ? p * std::log(p) : 0;
    }
    return nats;
  }
};

void expect_close(double found, double wanted, const char* what, double absolute = 0) {
  if (std::isnan(wanted) || std::isinf(wanted)) {
    EXPECT_TRUE(std::isnan(wanted) ? std::isnan(found) : found == wanted)
        << what << ": " << found << ", want " << wanted;
    return;
  }
  EXPECT_LE(std::abs(found - wanted), kTolerance * std::abs(wanted) + absolute)
      << what << ": " << found << ", want " << wanted;
}

bool is_alive(float score) {
  return score != kMinusInfinity;
}

int64_t rank_of(const Row& row, float score) {
  int64_t rank = 1;
  for (const float other : row) {
    rank += !std::isnan(score) && (other > score || std::isnan(other)) ? 1 : 0;
  }
  return rank;
}

Ids best_ids(const Row& row, int64_t n) {
  Ids ids(row.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](TokenId a, TokenId b) {
    const float x = row[static_cast<size_t>(a)];
    const float y = row[static_cast<size_t>(b)];
    return std::isnan(x) ? !std::isnan(y) : x > y;
  });
  ids.resize(static_cast<size_t>(std::min<int64_t>(n, static_cast<int64_t>(row.size()))));
  return ids;
}

void expect_stage(const TracedStage& found, const Stage& stage, const Row& raw, const Row& before,
                  const Row& after, const Ids& prompt, const Ids& answer) {
  const Reference reference(raw);
  int64_t survivors = 0;
  double mass = reference.exists ? 0 : kNoNumber;
  float cut = kPlusInfinity;
  int64_t changed = 0;
  int64_t in_prompt = 0;
  int64_t in_answer = 0;
  const auto has = [](const Ids& ids, size_t i) {
    return std::find(ids.begin(), ids.end(), static_cast<TokenId>(i)) != ids.end();
  };
  for (size_t i = 0; i < raw.size(); ++i) {
    if (is_alive(after[i])) {
      ++survivors;
      mass += reference.probability(raw[i]);
      cut = std::min(cut, before[i]);
      const bool same = before[i] == after[i] || (std::isnan(before[i]) && std::isnan(after[i]));
      changed += same ? 0 : 1;
      in_prompt += !same && has(prompt, i) ? 1 : 0;
      in_answer += !same && !has(prompt, i) && has(answer, i) ? 1 : 0;
    }
  }
  const auto alive_before = std::count_if(before.begin(), before.end(), is_alive);
  int64_t kept = 0;
  int64_t dropped = 0;
  for (size_t i = 0; i < raw.size(); ++i) {
    kept += before[i] == cut && is_alive(after[i]) ? 1 : 0;
    dropped += before[i] == cut && !is_alive(after[i]) ? 1 : 0;
  }
  EXPECT_EQ(found.name, stage.name());
  EXPECT_EQ(found.survivors, survivors);
  // A token below e^-87 of the best adds nothing to a mass: 150001 * e^-87 < 1e-32.
  expect_close(found.mass, mass, "mass", 1e-32);
  const bool has_cut =
      stage.kind() == ProcessorKind::kFilter && survivors < alive_before && std::isfinite(cut);
  EXPECT_EQ(std::isnan(found.cut_score), !has_cut);
  if (has_cut) {
    EXPECT_EQ(found.cut_score, static_cast<double>(cut));
  }
  EXPECT_EQ(found.tied_kept, has_cut ? kept : 0);
  EXPECT_EQ(found.tied_dropped, has_cut ? dropped : 0);
  const bool counted = stage.kind() == ProcessorKind::kTransform && stage.name() != "temperature";
  EXPECT_EQ(found.changed, counted ? changed : -1);
  EXPECT_EQ(found.changed_in_prompt, counted ? in_prompt : -1);
  EXPECT_EQ(found.changed_in_answer, counted ? in_answer : -1);
}

void expect_row_figures(const TracedStep& step, const Row& raw, const Row& scores) {
  const Reference reference(raw);
  const Reference final_reference(scores);
  const auto chosen = static_cast<size_t>(step.id);
  expect_close(step.raw_probability, reference.probability(raw[chosen]), "raw_probability");
  expect_close(step.probability, final_reference.probability(scores[chosen]), "probability");
  EXPECT_EQ(step.raw_rank, rank_of(raw, raw[chosen]));
  EXPECT_EQ(step.rank, rank_of(scores, scores[chosen]));
  // Entropy is a sum of |p log p|: a relative error of p is an absolute one of at most that share.
  expect_close(step.raw_entropy, reference.entropy(raw), "raw_entropy", kTolerance);
  expect_close(step.entropy, final_reference.entropy(scores), "entropy", kTolerance);
  expect_close(step.log_sum_exp,
               reference.exists ? reference.largest + std::log(reference.sum) : kNoNumber,
               "log_sum_exp", kTolerance);
  EXPECT_EQ(step.logits_hash, hash_logits(raw));
  Ids tied;
  const bool has_nan = std::isnan(step.largest_logit);
  for (size_t i = 0; i < raw.size(); ++i) {
    if (has_nan ? std::isnan(raw[i]) : raw[i] == step.largest_logit) {
      tied.push_back(static_cast<TokenId>(i));
    }
    EXPECT_FALSE(raw[i] > step.largest_logit);
    EXPECT_TRUE(has_nan || !std::isnan(raw[i]));
  }
  EXPECT_EQ(step.n_tied_at_max, static_cast<int64_t>(tied.size()));
  tied.resize(std::min<size_t>(tied.size(), 32));
  EXPECT_EQ(step.tied_at_max, tied);
}

void expect_tail(const TracedStep& step, const Row& raw) {
  Row tail = raw;
  for (const TracedCandidate& candidate : step.candidates) {
    tail[static_cast<size_t>(candidate.id)] = kMinusInfinity;
  }
  const Reference rest(tail);
  double wanted =
      rest.exists ? rest.largest + std::log(rest.sum) : -std::numeric_limits<double>::infinity();
  if (!Reference(raw).exists) {
    wanted = kNoNumber;
  }
  expect_close(step.tail_log_sum_exp, wanted, "tail_log_sum_exp", kTolerance);
}

void expect_draw(const TracedStep& step, const Row& scores, const std::optional<Draw>& draw) {
  if (!draw) {
    EXPECT_TRUE(std::isnan(step.draw) && std::isnan(step.draw_key) && std::isnan(step.draw_margin));
    EXPECT_EQ(step.draw_runner_up, -1);
    return;
  }
  const auto key = [&](size_t i) {
    return static_cast<double>(scores[i]) -
           std::log(draw_exponential(*draw, static_cast<TokenId>(i)));
  };
  TokenId second = -1;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (static_cast<TokenId>(i) != step.id && scores[i] > kMinusInfinity &&
        (second < 0 || key(i) > key(static_cast<size_t>(second)))) {
      second = static_cast<TokenId>(i);
    }
  }
  EXPECT_EQ(step.draw, draw_exponential(*draw, step.id));
  EXPECT_EQ(step.draw_key, key(static_cast<size_t>(step.id)));
  EXPECT_EQ(step.draw_runner_up, second);
  if (second >= 0) {
    EXPECT_EQ(step.draw_margin,
              key(static_cast<size_t>(step.id)) - key(static_cast<size_t>(second)));
    EXPECT_GE(step.draw_margin, 0);
  }
}

// One run of a tracer over a chain, each step compared with the reference.
class Comparison {
 public:
  Comparison(int64_t vocab_size, int64_t n_candidates, Ids prompt)
      : prompt_(std::move(prompt)),
        n_candidates_(n_candidates),
        tracer_({.vocab_size = vocab_size, .n_candidates = n_candidates}) {
    tracer_.begin_sequence(prompt_);
  }

  void step(const Row& raw, std::vector<Stage> chain, std::optional<Draw> draw) {
    Row scores = raw;
    std::vector<Row> rows = {scores};
    tracer_.begin_step(raw);
    for (size_t k = 0; k < chain.size(); ++k) {
      chain[k].apply(scores, {});
      tracer_.after_stage(static_cast<int64_t>(k), chain[k], scores);
      rows.push_back(scores);
    }
    TokenId id = arg_max(scores);
    if (draw) {
      if (const auto drawn = sample(scores, *draw); drawn) {
        id = *drawn;
      } else {
        draw.reset();
      }
    }
    const TracedStep& traced = tracer_.end_step(scores, id, draw);
    ASSERT_EQ(traced.stages.size(), chain.size());
    for (size_t k = 0; k < chain.size(); ++k) {
      SCOPED_TRACE("stage " + std::to_string(k));
      expect_stage(traced.stages[k], chain[k], raw, rows[k], rows[k + 1], prompt_, answer_);
    }
    EXPECT_EQ(traced.id, id);
    expect_row_figures(traced, raw, scores);
    expect_tail(traced, raw);
    expect_candidates(traced, raw, rows);
    expect_draw(traced, scores, draw);
    answer_.push_back(id);
  }

 private:
  void expect_candidates(const TracedStep& traced, const Row& raw, const std::vector<Row>& rows) {
    Ids wanted = best_ids(raw, n_candidates_);
    if (std::find(wanted.begin(), wanted.end(), traced.id) == wanted.end()) {
      wanted.push_back(traced.id);
    }
    const Reference reference(raw);
    const Reference final_reference(rows.back());
    ASSERT_EQ(traced.candidates.size(), wanted.size());
    for (size_t k = 0; k < wanted.size(); ++k) {
      const TracedCandidate& candidate = traced.candidates[k];
      const auto i = static_cast<size_t>(wanted[k]);
      ASSERT_EQ(candidate.id, wanted[k]) << "candidate " << k;
      expect_close(candidate.raw_probability, reference.probability(raw[i]), "raw_probability");
      expect_close(candidate.probability, final_reference.probability(rows.back()[i]),
                   "probability");
      int32_t dropped_by = -1;
      for (size_t stage = rows.size() - 1; stage > 0 && !is_alive(rows[stage][i]); --stage) {
        dropped_by = static_cast<int32_t>(stage) - 1;
      }
      EXPECT_EQ(candidate.dropped_by, dropped_by) << "candidate " << k;
      const auto in = [&](const Ids& ids) {
        return std::find(ids.begin(), ids.end(), wanted[k]) != ids.end();
      };
      EXPECT_EQ(candidate.in_prompt, in(prompt_));
      EXPECT_EQ(candidate.in_answer, in(answer_));
    }
  }

  Ids prompt_;
  Ids answer_;
  int64_t n_candidates_;
  StepTracer tracer_;
};

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int64_t whole(int64_t lowest, int64_t highest) {
    return std::uniform_int_distribution<int64_t>(lowest, highest)(engine_);
  }
  float normal(float width) { return std::normal_distribution<float>(0, width)(engine_); }
  Ids ids(int64_t n, int64_t vocab_size) {
    Ids ids;
    for (int64_t i = 0; i < n; ++i) {
      ids.push_back(static_cast<TokenId>(whole(0, vocab_size - 1)));
    }
    return ids;
  }
  // Random, peaked, flat, tied, with -inf, far apart.
  Row row(int64_t vocab_size, int64_t shape) {
    Row row(static_cast<size_t>(vocab_size));
    for (float& score : row) {
      score = shape == 2 ? 1.25F : normal(shape == 5 ? 100.0F : 3.0F);
      score = shape == 3 ? std::round(score) : score;
      score = shape == 4 && whole(0, 3) == 0 ? kMinusInfinity : score;
    }
    if (shape == 1) {
      row[static_cast<size_t>(whole(0, vocab_size - 1))] += 40;
    }
    return row;
  }
  Stage stage(int64_t vocab_size) {
    switch (whole(0, 5)) {
      case 0:
        return keep_at_least(std::round(normal(3)));
      case 1:
        return ban(ids(3, vocab_size));
      case 2:
        return divide(static_cast<float>(whole(1, 4)) / 2 + 0.1F);
      case 3:
        return bias(ids(4, vocab_size), normal(2));
      case 4:
        return keep_at_least(7.0F);
      default:
        return revive();
    }
  }

 private:
  std::mt19937 engine_;
};

TEST(StepTracer, AgreesWithDoubleArithmeticOverRandomChains) {
  for (const int64_t vocab_size : {1, 2, 7, 63, 64, 65, 129, 1000, 4096}) {
    for (uint32_t seed = 0; seed < 12; ++seed) {
      SCOPED_TRACE("vocabulary " + std::to_string(vocab_size) + ", seed " + std::to_string(seed));
      Random random(seed * 10007 + static_cast<uint32_t>(vocab_size));
      Comparison comparison(vocab_size, random.whole(0, 30), random.ids(5, vocab_size));
      for (uint32_t step = 0; step < 6; ++step) {
        SCOPED_TRACE("step " + std::to_string(step));
        std::vector<Stage> chain;
        for (int64_t n = random.whole(0, 4); n > 0; --n) {
          chain.push_back(random.stage(vocab_size));
        }
        const auto draw = step % 2 == 0 ? std::optional<Draw>({seed, 3, step}) : std::nullopt;
        comparison.step(random.row(vocab_size, step), chain, draw);
        if (HasFatalFailure() || HasNonfatalFailure()) {
          return;
        }
      }
    }
  }
}

TEST(StepTracer, AgreesWithDoubleArithmeticOverALargeVocabulary) {
  constexpr int64_t kVocabulary = 150001;
  Random random(5);
  Comparison comparison(kVocabulary, 20, random.ids(50, kVocabulary));
  comparison.step(random.row(kVocabulary, 0), {}, Draw{1, 0, 0});
  comparison.step(random.row(kVocabulary, 1), {divide(0.7F), keep_at_least(9)}, Draw{1, 0, 1});
  comparison.step(random.row(kVocabulary, 2), {bias({5}, 1), keep_at_least(2)}, Draw{1, 0, 2});
  comparison.step(random.row(kVocabulary, 3), {ban({1, 2}), divide(1.5F)}, {});
}

TEST(StepTracer, RowsWithoutADistributionAreRecorded) {
  Row one_nan = row_a();
  one_nan[2] = kNan;
  Row infinite = row_a();
  infinite[1] = kPlusInfinity;
  for (const Row& row : {one_nan, infinite, Row(4, kMinusInfinity), Row(4, kNan)}) {
    for (const int64_t n_candidates : {0, 2, 20}) {
      Comparison comparison(4, n_candidates, {0});
      comparison.step(row, {}, {});
      comparison.step(row, {ban({0}), divide(2)}, {});
      comparison.step(row, {bias({1}, 1)}, {});
    }
  }
}

TEST(StepTracer, NothingLeftNamesTheStageThatTookTokenZero) {
  Comparison comparison(4, 1, {});
  // arg_max answers with token 0, which is no candidate: its logit is the smallest.
  comparison.step({0, 1, 2, 3}, {ban({3}), ban({0}), ban({1, 2})}, {});
}

TEST(StepTracer, TiesAtACutAreCountedOnBothSides) {
  StepTracer tracer({.vocab_size = 6, .n_candidates = 6});
  tracer.begin_sequence({});
  const Row raw = {5, 3, 3, 3, 1, 3};
  tracer.begin_step(raw);
  Row scores = {5, 3, kMinusInfinity, 3, kMinusInfinity, kMinusInfinity};
  tracer.after_stage(0, ban({2, 4, 5}), scores);
  const TracedStep& step = tracer.end_step(scores, 0, {});
  EXPECT_EQ(step.stages[0].cut_score, 3);
  EXPECT_EQ(step.stages[0].tied_kept, 2);
  EXPECT_EQ(step.stages[0].tied_dropped, 2);
}

TEST(StepTracer, BeamSearchEntersWithOtherScoresThanTheLogits) {
  StepTracer tracer({.vocab_size = 4, .n_candidates = 4});
  tracer.begin_sequence({});
  const Row raw = row_a();
  Row scores;
  for (const float logit : raw) {
    scores.push_back(logit - 2.4401897F);
  }
  const Row entering = scores;
  tracer.begin_step(raw, entering);
  scores[3] = kMinusInfinity;
  tracer.after_stage(0, ban({3}), scores);
  const TracedStep& step = tracer.end_step(scores, 0, {});
  EXPECT_EQ(step.stages[0].cut_score, static_cast<double>(entering[2]));
  EXPECT_EQ(step.stages[0].tied_kept, 1);
  EXPECT_NEAR(step.stages[0].mass, 1 - 0.0320586, 1e-6);
  EXPECT_EQ(step.logit, 2);
  EXPECT_EQ(step.score, entering[0]);
}

TEST(StepTracer, ANewSequenceForgetsTheAnswer) {
  StepTracer tracer({.vocab_size = 4, .n_candidates = 4});
  const Row row = row_a();
  tracer.begin_sequence(Ids{1});
  tracer.begin_step(row);
  tracer.end_step(row, 0, {});
  tracer.begin_step(row);
  EXPECT_TRUE(tracer.end_step(row, 2, {}).candidates[0].in_answer);
  tracer.begin_sequence(Ids{3});
  tracer.begin_step(row);
  const TracedStep& step = tracer.end_step(row, 0, {});
  EXPECT_FALSE(step.candidates[0].in_answer);
  EXPECT_FALSE(step.candidates[1].in_prompt);
  EXPECT_TRUE(step.candidates[3].in_prompt);
}

TEST(StepTracer, KeepsTheWholeRowWhenAsked) {
  StepTracer tracer({.vocab_size = 4, .n_candidates = 0, .full_rows = true});
  const Row row = row_a();
  tracer.begin_sequence({});
  tracer.begin_step(row);
  EXPECT_EQ(tracer.end_step(row, 1, {}).logits, row);
}

TEST(HashLogits, IsTheWrittenDefinition) {
  // Recorded from an independent reading of the definition in step_tracer.h.
  EXPECT_EQ(hash_logits(Row{}), 0xcd6c1e6377fdbd7dULL);
  EXPECT_EQ(hash_logits(Row{1}), 0x358c31acad97e23fULL);
  Row row;
  for (int i = 0; i < 37; ++i) {
    row.push_back(static_cast<float>(i) / 4 - 3);
  }
  EXPECT_EQ(hash_logits(row), 0xdf2afd7f610b66cULL);
}

TEST(HashLogits, EveryLogitCounts) {
  Row row(67, 0.5F);
  const uint64_t hash = hash_logits(row);
  for (float& logit : row) {
    logit = std::nextafter(logit, 1.0F);
    EXPECT_NE(hash_logits(row), hash);
    logit = 0.5F;
  }
  EXPECT_EQ(hash_logits(row), hash);
  row.push_back(0);
  EXPECT_NE(hash_logits(row), hash);
}

}  // namespace
}  // namespace logitlab
