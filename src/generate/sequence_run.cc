#include "generate/sequence_run.h"

#include "base/check.h"

namespace logitlab {

Result<TokenId> choose_token(std::span<const float> scores, const std::optional<Draw>& draw) {
  if (draw) {
    return sample(scores, *draw);
  }
  return arg_max(scores);
}

std::optional<Draw> draw_of(const GenerationConfig& config, uint32_t sequence_index, int64_t step) {
  if (!config.do_sample.value_or(false)) {
    return std::nullopt;
  }
  return Draw{config.seed.value_or(0), sequence_index, static_cast<uint32_t>(step)};
}

SequenceRun::SequenceRun(int64_t prompt_index, std::span<const TokenId> prompt,
                         const std::optional<ThinkingIds>& thinking)
    : prompt_index_(prompt_index),
      prompt_length_(static_cast<int64_t>(prompt.size())),
      ids_(prompt.begin(), prompt.end()),
      thinking_(thinking, prompt) {}

bool SequenceRun::push(TokenId id, const StoppingCriteria& stopping) {
  stop_ = stopping.check(ids_, id, step() + 1);
  ids_.push_back(id);
  return thinking_.push(id, stopping.is_end_token(id));
}

void SequenceRun::cancel() {
  if (!stop_) {
    stop_ = Stop{StopReason::kCancelled, ""};
  }
}

SequenceResult SequenceRun::result() const {
  CHECK(stop_.has_value()) << "a sequence that has not ended";
  SequenceResult result;
  result.prompt = prompt_index_;
  result.ids.assign(generated().begin(), generated().end());
  result.stop_reason = stop_->reason;
  result.stop_id = result.stop_reason == StopReason::kEos ? result.ids.back() : -1;
  result.stop_string = stop_->text;
  result.thinking_tokens = thinking_.thinking_tokens();
  result.answer_tokens = thinking_.answer_tokens();
  result.is_thinking_open = thinking_.is_open();
  return result;
}

}  // namespace logitlab
