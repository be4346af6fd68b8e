#include "generate/thinking.h"

namespace logitlab {

ThinkingCounter::ThinkingCounter(std::optional<ThinkingIds> ids, std::span<const TokenId> prompt)
    : ids_(ids) {
  if (!ids_) {
    return;
  }
  for (const TokenId id : prompt) {
    if (id == ids_->open) {
      is_open_ = true;
    } else if (id == ids_->close) {
      is_open_ = false;
    }
  }
}

bool ThinkingCounter::push(TokenId id, bool is_end) {
  if (is_end) {
    return false;
  }
  bool is_inside = is_open_;
  if (ids_ && id == ids_->open) {
    is_open_ = true;
    is_inside = true;
  } else if (ids_ && id == ids_->close) {
    is_open_ = false;
  }
  ++(is_inside ? thinking_tokens_ : answer_tokens_);
  return is_inside;
}

std::string_view name(ThinkingOutcome outcome) {
  switch (outcome) {
    case ThinkingOutcome::kNone:
      return "";
    case ThinkingOutcome::kAnswered:
      return "answered";
    case ThinkingOutcome::kSaidNothing:
      return "said_nothing";
    case ThinkingOutcome::kCut:
      return "cut_in_thinking";
    case ThinkingOutcome::kBrokenOff:
      return "ended_in_thinking";
  }
  return "";
}

ThinkingOutcome thinking_outcome(const SequenceResult& sequence, bool answer_is_blank) {
  if (sequence.is_thinking_open) {
    return sequence.stop_reason == StopReason::kLength ? ThinkingOutcome::kCut
                                                       : ThinkingOutcome::kBrokenOff;
  }
  if (sequence.thinking_tokens == 0) {
    return ThinkingOutcome::kNone;
  }
  return answer_is_blank ? ThinkingOutcome::kSaidNothing : ThinkingOutcome::kAnswered;
}

}  // namespace logitlab
