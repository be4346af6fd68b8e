#include "generate/prompt_run.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "sampling/logits_dtype.h"

namespace logitlab {
namespace {

Status check_prompt(std::span<const TokenId> ids, int64_t vocab_size) {
  if (ids.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the prompt is empty; want at least one token id");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return fail(ErrorCode::kInvalidArgument,
                  "prompt: token id {} at position {} is outside the vocabulary, want 0 to {}",
                  ids[i], i, vocab_size - 1);
    }
  }
  return {};
}

}  // namespace

Result<Logits> RunSettings::forward(std::span<const SequenceChunk> batch) const {
  ASSIGN_OR_RETURN(Logits logits, model.forward(context, batch));
  round_logits(logits.values, config.logits_dtype.value_or(LogitsDtype::kFloat32));
  return logits;
}

Result<std::vector<PromptRun>> plan_prompts(const RunSettings& settings,
                                            std::span<const PromptInput> prompts,
                                            bool may_use_callers_state) {
  if (prompts.empty()) {
    return fail(ErrorCode::kInvalidArgument, "no prompt; want at least one");
  }
  const ModelConfig& model_config = settings.model.config();
  const std::optional<int64_t> max_positions =
      model_config.max_position_embeddings > 0
          ? std::optional<int64_t>(model_config.max_position_embeddings)
          : std::nullopt;
  std::vector<PromptRun> runs;
  runs.reserve(prompts.size());
  for (const PromptInput& prompt : prompts) {
    RETURN_IF_ERROR(check_prompt(prompt.ids, model_config.vocab_size));
    PromptRun run;
    run.index = static_cast<int64_t>(runs.size());
    run.ids = prompt.ids;
    run.mark = prompt.mark;
    run.at_mark = prompt.at_mark;
    ASSIGN_OR_RETURN(run.lengths, resolve_lengths(settings.config, run.length(), max_positions));
    if (prompt.state == nullptr) {
      run.own_state = settings.model.make_state();
    } else if (may_use_callers_state) {
      run.callers_state = prompt.state;
    } else {
      run.own_state = prompt.state->fork();
    }
    run.reused = run.state()->length();
    CHECK(run.reused < run.length())
        << "state of " << run.reused << " positions, prompt of " << run.length();
    runs.push_back(std::move(run));
  }
  return runs;
}

Status check_room(const RunSettings& settings, std::span<const PromptRun> runs,
                  size_t available_bytes) {
  const GenerationConfig& config = settings.config;
  const Model& model = settings.model;
  const bool has_beams = is_beam_search(config);
  const int64_t copies = has_beams ? *config.num_beams : config.num_return_sequences.value_or(1);
  // A sequence has a state of its own, whose newest page it shares with no other, and a row of
  // logits; beam search keeps a second row. In double: no setting overflows it. States on a device
  // are the device's to refuse.
  const bool has_states = model.device_model() == nullptr;
  const auto row_bytes = static_cast<double>(model.config().vocab_size) * sizeof(float);
  const auto state_bytes = [&](int64_t n) {
    return has_states ? static_cast<double>(model.state_bytes(n)) : 0.0;
  };
  const double each = state_bytes(1) + row_bytes * (has_beams ? 2 : 1);
  double needed = each * static_cast<double>(copies) * static_cast<double>(runs.size());
  for (const PromptRun& run : runs) {
    needed += run.reused > 0 ? 0.0 : state_bytes(run.length());
  }
  if (available_bytes == 0 || needed <= static_cast<double>(available_bytes)) {
    return {};
  }
  constexpr double kGiB = 1U << 30U;
  const auto available = static_cast<double>(available_bytes);
  const std::string subject =
      copies > 1 ? fmt::format("{}: {}", has_beams ? "num_beams" : "num_return_sequences", copies)
                 : fmt::format("prompt: {} tokens", runs.front().length());
  return fail(ErrorCode::kResourceExhausted,
              "{} found, {} prompt{}: states and logits need {:.2f} GiB of memory at the first "
              "step, {:.2f} GiB are available, {:.2f} GiB are missing",
              subject, runs.size(), runs.size() == 1 ? "" : "s", needed / kGiB, available / kGiB,
              (needed - available) / kGiB);
}

Result<bool> prefill(const RunSettings& settings, std::vector<PromptRun>* prompts) {
  constexpr std::string_view kWhat = "reading the prompt";
  ProgressSink& progress =
      settings.options.progress != nullptr ? *settings.options.progress : null_progress();
  const auto chunk = static_cast<size_t>(settings.prefill_chunk());
  uint64_t total = 0;
  uint64_t done = 0;
  for (const PromptRun& prompt : *prompts) {
    total += prompt.ids.size();
    done += static_cast<uint64_t>(prompt.reused);
  }
  for (PromptRun& prompt : *prompts) {
    auto at = static_cast<size_t>(prompt.state()->length());
    while (at < prompt.ids.size()) {
      if (settings.is_cancelled()) {
        progress.finish(kWhat);
        return false;
      }
      const auto mark = static_cast<size_t>(prompt.mark);
      const bool stops_at_mark = prompt.at_mark != nullptr && at < mark && mark < prompt.ids.size();
      const size_t n = std::min(chunk, (stops_at_mark ? mark : prompt.ids.size()) - at);
      const bool is_last = at + n == prompt.ids.size();
      const SequenceChunk part{prompt.state(), prompt.ids.subspan(at, n),
                               is_last ? LogitRows::kLast : LogitRows::kNone};
      ASSIGN_OR_RETURN(Logits logits, settings.forward({&part, 1}));
      at += n;
      done += n;
      if (prompt.at_mark != nullptr && at == mark) {
        *prompt.at_mark = prompt.state()->fork();
      }
      progress.update(kWhat, done, total, "tokens");
      if (is_last) {
        prompt.logits = std::move(logits.values);
      }
    }
  }
  progress.finish(kWhat);
  return true;
}

}  // namespace logitlab
