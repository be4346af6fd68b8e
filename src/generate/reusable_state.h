// A decode state that goes back to where a new prompt agrees with what it holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "logitlab/types.h"
#include "state/decode_state.h"

namespace logitlab {

// The state of one conversation. Where the state can truncate, any common start is kept. Where it
// cannot (Mamba layers), snapshots of earlier moments are kept, at most kMostSnapshots. All of them
// hold a start of the ids that the state holds, so a snapshot costs one copy of what the Mamba
// layers keep and, of keys and values, at most the pages that it does not share: the last one of
// each layer. One-thread.
class ReusableState {
 public:
  static constexpr size_t kMostSnapshots = 4;

  explicit ReusableState(DecodeState fresh) : state_(std::move(fresh)) {}

  // Makes state() hold the longest known start of `ids` that is shorter than all of them: the last
  // one must go through the model, whose logits are wanted. Forgets what agrees with `ids` no more.
  // Returns the length of the state.
  int64_t take_back(std::span<const TokenId> ids);

  // The state to run the model with, after take_back.
  [[nodiscard]] DecodeState& state() { return state_; }
  // The model has been run: state() holds the first state().length() of `ids` now (CHECK: there
  // are as many), and those that it held at the last take_back are the same still.
  void hold(std::span<const TokenId> ids);
  // Keeps a fork of the state of an earlier moment, after hold(): of the first snapshot.length() of
  // the ids held. When there are too many, the one that is closest behind another goes.
  void keep(DecodeState snapshot);
  // Forgets everything.
  void clear();

  [[nodiscard]] bool wants_snapshots() const { return !state_.can_truncate(); }
  [[nodiscard]] size_t n_snapshots() const { return snapshots_.size(); }

 private:
  DecodeState state_;
  std::vector<TokenId> held_;           // what state_ holds
  std::vector<DecodeState> snapshots_;  // by length, no two of one length
};

}  // namespace logitlab
