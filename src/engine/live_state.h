// Decode states of many branches, and what they take together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "base/error.h"
#include "models/model.h"

namespace logitlab {

// Bytes of all states that live, and the most there were.
struct StateLedger {
  size_t live = 0;
  size_t peak = 0;
};

// A state that is counted while it lives. Counted as if it shared nothing: what it will need once
// it and those that it was forked from have been written.
class LiveState {
 public:
  LiveState(DecodeState state, size_t bytes, StateLedger* ledger)
      : state_(std::move(state)), ledger_(ledger) {
    set_bytes(bytes);
  }
  LiveState(LiveState&& other) noexcept
      : state_(std::move(other.state_)),
        ledger_(other.ledger_),
        bytes_(std::exchange(other.bytes_, 0)) {}
  LiveState& operator=(LiveState&&) = delete;
  ~LiveState() { ledger_->live -= bytes_; }

  [[nodiscard]] DecodeState& state() { return state_; }
  [[nodiscard]] LiveState fork() const { return {state_.fork(), bytes_, ledger_}; }
  void set_bytes(size_t bytes) {
    ledger_->live = ledger_->live - bytes_ + bytes;
    ledger_->peak = std::max(ledger_->peak, ledger_->live);
    bytes_ = bytes;
  }

 private:
  DecodeState state_;
  StateLedger* ledger_;
  size_t bytes_ = 0;
};

// Runs generated tokens through the model one at a time, as they were made: a chunk of several
// could give other bits. Errors as Model::forward.
[[nodiscard]] Status replay_tokens(ExecContext& context, const Model& model,
                                   std::span<const TokenId> ids, DecodeState* state);

}  // namespace logitlab
