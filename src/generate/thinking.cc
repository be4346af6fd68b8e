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

}  // namespace logitlab
