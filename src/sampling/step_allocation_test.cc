// Replaces operator new of the test binary, to count what a step asks for.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"
#include "sampling/sampler.h"
#include "sampling/step_tracer.h"
#include "trace/trace_file.h"

namespace {

std::atomic<int64_t> g_allocations{
    0};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

void* counted_allocation(size_t bytes) {
  ++g_allocations;
  void* pointer = std::malloc(bytes == 0 ? 1 : bytes);
  if (pointer == nullptr) {
    throw std::bad_alloc();
  }
  return pointer;
}

}  // namespace

void* operator new(size_t bytes) {
  return counted_allocation(bytes);
}
void* operator new[](size_t bytes) {
  return counted_allocation(bytes);
}
// Sorting algorithms ask in this way, and free with the plain delete.
void* operator new(size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  ++g_allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void* operator new[](size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  ++g_allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* pointer) noexcept {
  std::free(pointer);
}
void operator delete[](void* pointer) noexcept {
  std::free(pointer);
}
void operator delete(void* pointer, size_t /*bytes*/) noexcept {
  std::free(pointer);
}
void operator delete[](void* pointer, size_t /*bytes*/) noexcept {
  std::free(pointer);
}

namespace logitlab {
namespace {

constexpr int64_t kVocabulary = 5000;

// Logits that differ at every step, with ties, the same on every machine. The first row is flat:
// all tokens pass every filter, which makes the processors' buffers as large as they get.
void fill_row(uint32_t step, std::vector<float>* row) {
  uint32_t state = step * 2654435761U + 1;
  for (float& logit : *row) {
    state = state * 1664525U + 1013904223U;
    logit = step == 0 ? 1.0F : static_cast<float>(state >> 24) / 16.0F;
  }
}

// Allocations of every step of chain, draw, tracer and file.
std::vector<int64_t> allocations_of(const GenerationConfig& given, bool full_rows) {
  const GenerationConfig config = merge_generation_config(given, {}).config;
  auto chain = build_chain(config, {.vocab_size = kVocabulary, .prompt_length = 3});
  EXPECT_TRUE(chain) << chain.error().message;
  auto file = TraceFileWriter::create("/dev/null");
  EXPECT_TRUE(file) << file.error().message;
  StepTracer tracer({.vocab_size = kVocabulary, .full_rows = full_rows});
  std::vector<TokenId> ids = {1, 2, 3};
  ids.reserve(100);
  tracer.begin_sequence(ids);
  (*file)->begin({});
  std::vector<float> row(kVocabulary);
  std::vector<float> scores(kVocabulary);
  std::vector<int64_t> counts;
  for (uint32_t step = 0; step < 12; ++step) {
    fill_row(step, &row);
    const int64_t before = g_allocations.load();
    scores = row;
    tracer.begin_step(row);
    chain->apply(scores, {.ids = ids, .prompt_length = 3}, &tracer);
    const Draw draw{1, 0, step};
    const bool samples = config.do_sample.value_or(false);
    const auto id = samples ? sample(scores, draw) : arg_max(scores);
    TracedStep& traced =
        tracer.end_step(scores, *id, samples ? std::optional<Draw>(draw) : std::nullopt);
    traced.step = step;
    (*file)->step(traced);
    chain->accept(*id);
    counts.push_back(g_allocations.load() - before);
    ids.push_back(*id);
  }
  return counts;
}

void expect_none_after_the_first(const GenerationConfig& config, bool full_rows) {
  const std::vector<int64_t> counts = allocations_of(config, full_rows);
  for (size_t step = 1; step < counts.size(); ++step) {
    EXPECT_EQ(counts[step], 0) << "step " << step;
  }
}

TEST(StepAllocation, IsSeenByTheCounter) {
  const int64_t before = g_allocations.load();
  const std::vector<float> some(100);
  EXPECT_EQ(g_allocations.load(), before + 1) << some.size();
}

TEST(StepAllocation, AUsualDrawAllocatesNothingAfterTheFirstStep) {
  GenerationConfig config;
  config.do_sample = true;
  config.temperature = 0.7;
  config.top_p = 0.9;
  expect_none_after_the_first(config, false);
  config.repetition_penalty = 1.1;
  config.encoder_repetition_penalty = 1.1;  // a name too long for a string's own memory
  config.min_p = 0.01;
  expect_none_after_the_first(config, true);
}

TEST(StepAllocation, GreedyAllocatesNothingAfterTheFirstStep) {
  expect_none_after_the_first({}, false);
}

TEST(StepAllocation, EveryTokenAliveAllocatesNothingAfterTheFirstStep) {
  GenerationConfig config;
  config.do_sample = true;
  config.top_k = 0;
  expect_none_after_the_first(config, false);
}

// All that act on their own; each of them once, so that none hides behind what another left.
TEST(StepAllocation, NoProcessorAllocatesAfterTheFirstStep) {
  const auto config_with = [](auto set) {
    GenerationConfig config;
    config.do_sample = true;
    config.top_k = 0;
    config.eos_token_id = {1, 2};
    set(config);
    return config;
  };
  using Config = GenerationConfig;
  const std::vector<Config> configs = {
      config_with([](Config& c) { c.typical_p = 0.5; }),
      config_with([](Config& c) { c.top_h = 0.5; }),
      config_with([](Config& c) { c.epsilon_cutoff = 1e-4; }),
      config_with([](Config& c) { c.eta_cutoff = 1e-4; }),
      config_with([](Config& c) { c.frequency_penalty = 0.5; }),
      config_with([](Config& c) { c.presence_penalty = 0.5; }),
      config_with([](Config& c) {
        c.logit_bias = std::vector<TokenBias>{{3, 1}};
      }),
      config_with([](Config& c) {
        c.sequence_bias = std::vector<SequenceBias>{{{3}, 1}};
      }),
      config_with([](Config& c) {
        c.bad_words_ids = std::vector<TokenIds>{{3}, {2, 3}};
      }),
      config_with([](Config& c) { c.no_repeat_ngram_size = 1; }),
      config_with([](Config& c) { c.encoder_no_repeat_ngram_size = 1; }),
      config_with([](Config& c) { c.min_new_tokens = 20; }),
      config_with([](Config& c) { c.suppress_tokens = TokenIds{5}; }),
      config_with([](Config& c) { c.begin_suppress_tokens = TokenIds{5}; }),
      config_with([](Config& c) { c.forced_eos_token_id = TokenIds{5}; }),
      config_with([](Config& c) {
        c.exponential_decay_length_penalty = ExponentialDecay{.start = 1, .factor = 1.1};
      }),
      config_with([](Config& c) { c.remove_invalid_values = true; }),
      config_with([](Config& c) { c.renormalize_logits = true; }),
  };
  for (const Config& config : configs) {
    SCOPED_TRACE(dump_json(to_json(config)));
    expect_none_after_the_first(config, false);
  }
}

}  // namespace
}  // namespace logitlab
