#include "generate/reusable_state.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace logitlab {

int64_t ReusableState::take_back(std::span<const TokenId> ids) {
  CHECK(!ids.empty()) << "a prompt of no ids";
  const auto ends = std::mismatch(held_.begin(), held_.end(), ids.begin(), ids.end());
  const auto common = std::min(ends.first - held_.begin(), static_cast<int64_t>(ids.size()) - 1);
  while (!snapshots_.empty() && snapshots_.back().length() > common) {
    snapshots_.pop_back();
  }
  if (state_.can_truncate()) {
    state_.truncate(common);
  } else if (state_.length() <= common) {
    // The prompt that comes now may be taken back in its turn.
    if (state_.length() > 0) {
      keep(state_.fork());
    }
  } else if (snapshots_.empty()) {
    state_.truncate(0);
  } else {
    state_.restore(snapshots_.back());
  }
  held_.resize(static_cast<size_t>(state_.length()));
  return state_.length();
}

void ReusableState::hold(std::span<const TokenId> ids) {
  const auto length = static_cast<size_t>(state_.length());
  CHECK(length <= ids.size()) << "a state of " << length << " positions, " << ids.size() << " ids";
  held_.assign(ids.begin(), ids.begin() + static_cast<int64_t>(length));
}

void ReusableState::keep(DecodeState snapshot) {
  CHECK(snapshot.length() <= state_.length())
      << "a snapshot of " << snapshot.length() << " positions, a state of " << state_.length();
  const auto at = std::lower_bound(
      snapshots_.begin(), snapshots_.end(), snapshot.length(),
      [](const DecodeState& one, int64_t length) { return one.length() < length; });
  if (at != snapshots_.end() && at->length() == snapshot.length()) {
    return;
  }
  snapshots_.insert(at, std::move(snapshot));
  if (snapshots_.size() <= kMostSnapshots) {
    return;
  }
  // The way back grows least without the one whose predecessor is nearest. The longest stays: a
  // conversation goes on from its end.
  size_t dropped = 0;
  int64_t least = snapshots_[0].length();
  for (size_t i = 1; i + 1 < snapshots_.size(); ++i) {
    const int64_t gap = snapshots_[i].length() - snapshots_[i - 1].length();
    if (gap < least) {
      least = gap;
      dropped = i;
    }
  }
  snapshots_.erase(snapshots_.begin() + static_cast<int64_t>(dropped));
}

void ReusableState::clear() {
  snapshots_.clear();
  state_.truncate(0);
  held_.clear();
}

}  // namespace logitlab
