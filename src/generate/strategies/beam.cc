#include "generate/strategies/beam.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/env.h"
#include "generate/guidance_source.h"
#include "generate/strategies/beam_search.h"
#include "generate/thinking.h"
#include "sampling/processor_chain.h"
#include "sampling/selection.h"

namespace logitlab {
namespace {

constexpr std::string_view kWhat = "searching";

int64_t n_end_tokens(const GenerationConfig& config) {
  return config.eos_token_id ? static_cast<int64_t>(config.eos_token_id->size()) : 0;
}

// What a step looks at, over the number of beams.
int64_t candidates_of_a_beam(const GenerationConfig& config) {
  return std::max<int64_t>(2, 1 + n_end_tokens(config));
}

BeamSettings beam_settings(const RunSettings& settings, const PromptRun& prompt) {
  const GenerationConfig& config = settings.config;
  BeamSettings beams;
  beams.vocab_size = settings.model.config().vocab_size;
  beams.n_beams = config.num_beams.value_or(1);
  beams.n_candidates = candidates_of_a_beam(config) * beams.n_beams;
  beams.max_new_tokens = prompt.lengths.max_new_tokens;
  beams.early_stopping = config.early_stopping.value_or(EarlyStopping::kFalse);
  beams.length_penalty = config.length_penalty.value_or(1);
  if (config.do_sample.value_or(false)) {
    beams.draw = Draw{config.seed.value_or(0),
                      settings.options.sequence_index + static_cast<uint32_t>(prompt.index), 0};
  }
  return beams;
}

// The search of one prompt with the states of its running beams.
struct PromptSearch {
  PromptRun* prompt = nullptr;
  BeamSearch search;
  // Per place among the beams. A chain must not remember tokens: its place changes the hypothesis.
  std::vector<ProcessorChain> chains;
  std::vector<DecodeState> states;  // as search.running(); empty before the first step
  StoppingCriteria stopping;
};

class BeamRun {
 public:
  BeamRun(const RunSettings& settings, std::vector<PromptRun>* prompts, RunTracer* tracer)
      : settings_(settings), prompts_(*prompts), tracer_(*tracer) {}

  Status run(GenerationResult* result);

 private:
  Status make_searches();
  Status step();
  // One step of one search; logits: [rows, vocab_size] of its beams, one row for all at first.
  void advance(PromptSearch* search, const float* logits, bool is_first);
  static void reorder(PromptSearch* search);
  [[nodiscard]] bool is_done() const;
  void store(GenerationResult* result) const;
  [[nodiscard]] std::string why(bool was_cancelled) const;

  const RunSettings& settings_;
  std::vector<PromptRun>& prompts_;
  RunTracer& tracer_;
  GuidanceRows guidance_;
  std::vector<PromptSearch> searches_;
  std::vector<SequenceChunk> batch_;
  std::vector<GuidanceRows::Chosen> chosen_;
  std::vector<float> table_;  // [n_beams, vocab_size]
  int64_t steps_ = 0;
};

Status BeamRun::make_searches() {
  const GenerationConfig& config = settings_.config;
  const int64_t n = config.num_beams.value_or(1);
  ASSIGN_OR_RETURN(guidance_, GuidanceRows::make(settings_, prompts_, n));
  for (PromptRun& prompt : prompts_) {
    const StoppingCriteria stopping(config, prompt.lengths.max_new_tokens, settings_.start,
                                    settings_.stop_texts);
    std::vector<ProcessorChain> chains;
    for (int64_t beam = 0; beam < n; ++beam) {
      ChainOptions options;
      options.vocab_size = settings_.model.config().vocab_size;
      options.min_tokens_to_keep = candidates_of_a_beam(config);
      options.prompt_length = prompt.length();
      options.max_length = prompt.length() + prompt.lengths.max_new_tokens;
      options.guidance = guidance_.row(static_cast<size_t>(prompt.index * n + beam));
      options.thinking = settings_.options.thinking;
      options.callers = settings_.options.processors;
      ASSIGN_OR_RETURN(ProcessorChain chain, build_chain(config, options));
      chains.push_back(std::move(chain));
    }
    searches_.push_back({&prompt,
                         BeamSearch(beam_settings(settings_, prompt), prompt.ids, stopping),
                         std::move(chains),
                         {},
                         stopping});
  }
  return {};
}

// Forks the state of every parent but for its last child, which takes it.
void BeamRun::reorder(PromptSearch* search) {
  std::vector<DecodeState> old;
  if (search->states.empty()) {
    old.push_back(search->prompt->state()->fork());
  } else {
    old = std::move(search->states);
  }
  // Before the first step all beams are the prompt and share one state.
  const auto source = [&](const Beam& beam) {
    return old.size() == 1 ? size_t{0} : static_cast<size_t>(beam.parents.back());
  };
  std::vector<int64_t> children(old.size(), 0);
  for (const Beam& beam : search->search.running()) {
    ++children[source(beam)];
  }
  std::vector<DecodeState> next;
  next.reserve(search->search.running().size());
  for (const Beam& beam : search->search.running()) {
    const size_t parent = source(beam);
    const bool is_last_child = --children[parent] == 0;
    next.push_back(is_last_child ? std::move(old[parent]) : old[parent].fork());
  }
  search->states = std::move(next);
}

void BeamRun::advance(PromptSearch* search, const float* logits, bool is_first) {
  const auto vocab_size = static_cast<size_t>(settings_.model.config().vocab_size);
  const std::vector<Beam>& running = search->search.running();
  table_.resize(running.size() * vocab_size);
  for (size_t beam = 0; beam < running.size(); ++beam) {
    const float* raw = is_first ? logits : logits + beam * vocab_size;
    const std::span<float> row = std::span(table_).subspan(beam * vocab_size, vocab_size);
    std::copy(raw, raw + vocab_size, row.begin());
    log_softmax_float32(row);
    search->chains[beam].apply(row, {running[beam].ids, search->prompt->length()});
  }
  search->search.advance(table_);
  if (tracer_.is_on()) {
    TracedBeamStep& traced = search->search.traced();
    traced.prompt = search->prompt->index;
    traced.step = steps_;
    tracer_.beam_step(traced);
  }
  if (!search->search.is_done()) {
    reorder(search);
  }
}

bool BeamRun::is_done() const {
  return std::all_of(searches_.begin(), searches_.end(),
                     [](const PromptSearch& search) { return search.search.is_done(); });
}

Status BeamRun::step() {
  if (steps_ == 0) {
    for (PromptSearch& search : searches_) {
      advance(&search, search.prompt->logits.data(), true);
    }
    return {};
  }
  batch_.clear();
  chosen_.clear();
  const auto n = static_cast<size_t>(settings_.config.num_beams.value_or(1));
  for (size_t i = 0; i < searches_.size(); ++i) {
    PromptSearch& search = searches_[i];
    if (search.search.is_done()) {
      continue;
    }
    const std::vector<Beam>& running = search.search.running();
    for (size_t beam = 0; beam < n; ++beam) {
      const std::span<const TokenId> newest = std::span(running[beam].ids).last(1);
      batch_.push_back({&search.states[beam], newest, LogitRows::kLast});
      chosen_.push_back({i * n + beam, newest.front()});
    }
  }
  ASSIGN_OR_RETURN(const Logits logits, settings_.forward(batch_));
  RETURN_IF_ERROR(guidance_.advance(settings_, chosen_));
  int64_t row = 0;
  for (PromptSearch& search : searches_) {
    if (!search.search.is_done()) {
      advance(&search, logits.row(row).data(), false);
      row += static_cast<int64_t>(n);
    }
  }
  return {};
}

void BeamRun::store(GenerationResult* result) const {
  for (const PromptSearch& search : searches_) {
    const auto prompt_length = search.prompt->length();
    for (const Beam& beam : search.search.best(settings_.config.num_return_sequences.value_or(1))) {
      SequenceResult one;
      one.prompt = search.prompt->index;
      one.ids.assign(beam.ids.begin() + prompt_length, beam.ids.end());
      one.stop_reason = beam.stop ? beam.stop->reason : StopReason::kCancelled;
      one.stop_id = one.stop_reason == StopReason::kEos ? one.ids.back() : -1;
      one.stop_string = beam.stop ? beam.stop->text : "";
      one.beam_score = beam.score;
      one.beam_indices = beam.parents;
      ThinkingCounter thinking(settings_.options.thinking, search.prompt->ids);
      for (const TokenId id : one.ids) {
        thinking.push(id, search.stopping.is_end_token(id));
      }
      one.thinking_tokens = thinking.thinking_tokens();
      one.answer_tokens = thinking.answer_tokens();
      one.is_thinking_open = thinking.is_open();
      result->sequences.push_back(std::move(one));
    }
  }
}

std::string BeamRun::why(bool was_cancelled) const {
  std::string text;
  for (const PromptSearch& search : searches_) {
    const std::string_view reason =
        was_cancelled && !search.search.is_done() ? "cancelled" : search.search.why();
    text += searches_.size() == 1 ? std::string(reason)
                                  : fmt::format("{}prompt {}: {}", text.empty() ? "" : "; ",
                                                search.prompt->index, reason);
  }
  return text;
}

Status BeamRun::run(GenerationResult* result) {
  RETURN_IF_ERROR(make_searches());
  ProgressSink& progress =
      settings_.options.progress != nullptr ? *settings_.options.progress : null_progress();
  int64_t longest = 0;
  for (const PromptRun& prompt : prompts_) {
    longest = std::max(longest, prompt.lengths.max_new_tokens);
  }
  bool was_cancelled = false;
  while (!is_done() && !was_cancelled) {
    RETURN_IF_ERROR(step());
    ++steps_;
    if (steps_ == 1) {
      result->first_token_seconds = monotonic_seconds() - settings_.start;
    }
    progress.update(kWhat, static_cast<uint64_t>(steps_), static_cast<uint64_t>(longest), "steps");
    was_cancelled = !is_done() && settings_.is_cancelled();
  }
  progress.finish(kWhat);
  result->decode_seconds = monotonic_seconds() - settings_.start - result->first_token_seconds;
  result->beam_stop = why(was_cancelled);
  store(result);
  return {};
}

}  // namespace

Status check_beams(const GenerationConfig& config, int64_t vocab_size) {
  const int64_t wanted = candidates_of_a_beam(config);
  if (vocab_size < wanted) {
    return fail(ErrorCode::kInvalidArgument,
                "num_beams: {} found with {} end tokens, which ask for {} continuations of every "
                "beam, and a vocabulary of {}; set fewer end tokens",
                config.num_beams.value_or(1), n_end_tokens(config), wanted, vocab_size);
  }
  return {};
}

Status run_beams(const RunSettings& settings, std::vector<PromptRun>* prompts, RunTracer* tracer,
                 GenerationResult* result) {
  return BeamRun(settings, prompts, tracer).run(result);
}

}  // namespace logitlab
