#include "sampling/processors/sequence_bias.h"

#include <algorithm>
#include <limits>
#include <map>

#include "sampling/row_edits.h"

namespace logitlab {
namespace {

bool can_complete(const TokenIds& sequence, std::span<const TokenId> ids) {
  const size_t n_before = sequence.size() - 1;
  if (n_before == 0) {
    return true;
  }
  return sequence.size() <= ids.size() && std::equal(sequence.begin(), sequence.end() - 1,
                                                     ids.end() - static_cast<int64_t>(n_before));
}

std::vector<SequenceBias> as_bans(const std::vector<TokenIds>& words, const TokenIds& end_ids) {
  std::vector<SequenceBias> bans;
  for (const TokenIds& ids : words) {
    if (ids.size() != 1 || std::ranges::find(end_ids, ids.front()) == end_ids.end()) {
      bans.push_back({ids, -std::numeric_limits<double>::infinity()});
    }
  }
  return bans;
}

}  // namespace

SequenceBiasProcessor::SequenceBiasProcessor(const std::vector<SequenceBias>& biases) {
  // The last of several equal sequences counts, in the place of the first.
  std::map<TokenIds, size_t> places;
  std::vector<SequenceBias> distinct;
  for (const SequenceBias& entry : biases) {
    const auto [place, is_new] = places.try_emplace(entry.ids, distinct.size());
    if (is_new) {
      distinct.push_back(entry);
    } else {
      distinct[place->second].bias = entry.bias;
    }
  }
  // Single tokens first: the order of the sums is that of transformers.
  for (const bool wants_single : {true, false}) {
    for (const SequenceBias& entry : distinct) {
      if ((entry.ids.size() == 1) == wants_single) {
        biases_.push_back(entry);
      }
    }
  }
  touched_.reserve(biases_.size());
}

void SequenceBiasProcessor::apply(std::span<float> scores, const SequenceView& sequence) {
  sums_.resize(scores.size());
  touched_.clear();
  for (const SequenceBias& entry : biases_) {
    if (is_in_row(scores, entry.ids.back()) && can_complete(entry.ids, sequence.ids)) {
      sums_[static_cast<size_t>(entry.ids.back())] += static_cast<float>(entry.bias);
      touched_.push_back(entry.ids.back());
    }
  }
  for (const TokenId id : touched_) {
    scores[static_cast<size_t>(id)] += sums_[static_cast<size_t>(id)];
    sums_[static_cast<size_t>(id)] = 0;  // so an id that stands twice is added to once
  }
}

std::unique_ptr<LogitsProcessor> SequenceBiasProcessor::clone() const {
  return std::make_unique<SequenceBiasProcessor>(*this);
}

BadWords::BadWords(const std::vector<TokenIds>& bad_words_ids, const TokenIds& end_ids)
    : bans_(as_bans(bad_words_ids, end_ids)) {}

void BadWords::apply(std::span<float> scores, const SequenceView& sequence) {
  bans_.apply(scores, sequence);
}

std::unique_ptr<LogitsProcessor> BadWords::clone() const {
  return std::make_unique<BadWords>(*this);
}

}  // namespace logitlab
