#include "sampling/row_statistics.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "base/check.h"
#include "sampling/row_kernels.h"
#include "sampling/selection.h"

namespace logitlab {
namespace {

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();
constexpr float kPlusInf = std::numeric_limits<float>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kBlock = kRowBlock;

size_t n_blocks(size_t n) {
  return (n + kBlock - 1) / kBlock;
}

// The scores behind the whole blocks, filled up with -inf, which no sum and no maximum notices.
std::array<float, kBlock> last_block(std::span<const float> row) {
  std::array<float, kBlock> rest;
  rest.fill(kMinusInf);
  const size_t begin = row.size() / kBlock * kBlock;
  std::copy(row.begin() + static_cast<std::ptrdiff_t>(begin), row.end(), rest.begin());
  return rest;
}

// Calls visit(block, pointer to kBlock scores) for the whole row.
template <typename Visit>
void for_each_block(std::span<const float> row, const Visit& visit) {
  const size_t whole = row.size() / kBlock;
  for (size_t b = 0; b < whole; ++b) {
    visit(b, row.data() + b * kBlock);
  }
  if (row.size() % kBlock != 0) {
    const std::array<float, kBlock> rest = last_block(row);
    visit(whole, rest.data());
  }
}

// Four lanes at a time, which every x86-64 and ARM has. Written out, since compilers give up on the
// branches and the mixed widths of these loops.
using Floats [[gnu::vector_size(16)]] = float;
using Ints [[gnu::vector_size(16)]] = int32_t;
constexpr size_t kWidth = 4;

Floats load(const float* values) {
  Floats lanes;
  std::memcpy(&lanes, values, sizeof lanes);
  return lanes;
}

Floats all(float value) {
  return Floats{value, value, value, value};
}

Floats where(Ints mask, Floats yes) {
  return std::bit_cast<Floats>(mask & std::bit_cast<Ints>(yes));
}

// The sum of a block: float32 lanes with five additions between a term and the total, so a relative
// error below 5 * 2^-24; blocks are added in double.
class BlockSum {
 public:
  void add(size_t lane, Floats terms) { lanes_[lane] += terms; }
  [[nodiscard]] double total() const {
    const Floats four = (lanes_[0] + lanes_[1]) + (lanes_[2] + lanes_[3]);
    return (static_cast<double>(four[0]) + static_cast<double>(four[1])) +
           (static_cast<double>(four[2]) + static_cast<double>(four[3]));
  }

 private:
  std::array<Floats, 4> lanes_{};
};

}  // namespace

RowStatistics::RowStatistics(int64_t vocab_size) {
  CHECK(vocab_size >= 1) << vocab_size;
  const size_t blocks = n_blocks(static_cast<size_t>(vocab_size));
  exponentials_.resize(blocks * kBlock);
  block_maxima_.resize(blocks);
  block_sums_.resize(blocks);
  has_excluded_.resize(blocks);
  sorted_maxima_.reserve(blocks);
  is_excluded_.resize(static_cast<size_t>(vocab_size));
}

void RowStatistics::measure(std::span<const float> row) {
  CHECK(row.size() == is_excluded_.size()) << row.size() << " scores, want " << is_excluded_.size();
  row_ = row;
  find_maxima();
  exists_ = !has_nan_ && std::isfinite(largest_);
  sum_ = kNan;
  weighted_ = kNan;
  if (exists_) {
    sum_exponentials();
  }
}

void RowStatistics::find_maxima() {
  RowMaxima found;
  const size_t whole = row_.size() / kBlock;
  logitlab::find_maxima(row_.data(), whole, block_maxima_.data(), &found);
  if (whole < block_maxima_.size()) {
    const std::array<float, kBlock> rest = last_block(row_);
    logitlab::find_maxima(rest.data(), 1, &block_maxima_[whole], &found);
  }
  n_alive_ = found.n_alive;
  has_nan_ = found.has_nan;
  largest_ = has_nan_ ? std::numeric_limits<float>::quiet_NaN()
                      : *std::max_element(block_maxima_.begin(), block_maxima_.end());
}

void RowStatistics::sum_exponentials() {
  RowSums sums;
  const size_t whole = row_.size() / kBlock;
  logitlab::sum_exponentials(row_.data(), whole, largest_, exponentials_.data(), block_sums_.data(),
                             &sums);
  if (whole < block_sums_.size()) {
    const std::array<float, kBlock> rest = last_block(row_);
    logitlab::sum_exponentials(rest.data(), 1, largest_, &exponentials_[whole * kBlock],
                               &block_sums_[whole], &sums);
  }
  sum_ = sums.sum;
  weighted_ = sums.weighted;
}

double RowStatistics::log_sum_exp() const {
  return exists_ ? static_cast<double>(largest_) + std::log(sum_) : kNan;
}

double RowStatistics::entropy() const {
  // -sum(p log p) with log p = difference - log(sum). The difference of two rounded sums may come
  // out just below zero for a row with one sure token.
  return exists_ ? std::max(0.0, std::log(sum_) - weighted_ / sum_) : kNan;
}

double RowStatistics::probability(float score) const {
  return exists_ ? std::exp(static_cast<double>(score) - static_cast<double>(largest_)) / sum_
                 : kNan;
}

int64_t RowStatistics::tied_at_largest(int64_t limit, std::vector<TokenId>* ids) const {
  ids->clear();
  int64_t n = 0;
  for (size_t b = 0; b < block_maxima_.size(); ++b) {
    if (!has_nan_ && block_maxima_[b] != largest_) {
      continue;
    }
    const size_t end = std::min(row_.size(), (b + 1) * kBlock);
    for (size_t i = b * kBlock; i < end; ++i) {
      if (row_[i] == largest_ || (has_nan_ && std::isnan(row_[i]))) {
        ++n;
        if (n <= limit) {
          ids->push_back(static_cast<TokenId>(i));
        }
      }
    }
  }
  return n;
}

void RowStatistics::top(int64_t n, std::vector<TokenId>* ids) const {
  n = std::min(n, static_cast<int64_t>(row_.size()));
  // Block maxima leave NaN out, and they cut nothing off when there are fewer blocks than ids.
  if (n <= 0 || has_nan_ || n >= static_cast<int64_t>(block_maxima_.size())) {
    top_ids(row_, n, ids);
    return;
  }
  // n blocks hold a score of at least the n-th largest maximum, so no smaller score is wanted.
  sorted_maxima_.assign(block_maxima_.begin(), block_maxima_.end());
  const auto nth = sorted_maxima_.begin() + static_cast<std::ptrdiff_t>(n - 1);
  std::nth_element(sorted_maxima_.begin(), nth, sorted_maxima_.end(), std::greater<>());
  const float threshold = *nth;
  ids->clear();
  for (size_t b = 0; b < block_maxima_.size(); ++b) {
    if (block_maxima_[b] < threshold) {
      continue;
    }
    const size_t end = std::min(row_.size(), (b + 1) * kBlock);
    for (size_t i = b * kBlock; i < end; ++i) {
      if (row_[i] >= threshold) {
        ids->push_back(static_cast<TokenId>(i));
      }
    }
  }
  const auto goes_first = [this](TokenId a, TokenId b) {
    const float score_a = row_[static_cast<size_t>(a)];
    const float score_b = row_[static_cast<size_t>(b)];
    return score_a != score_b ? score_a > score_b : a < b;
  };
  std::nth_element(ids->begin(), ids->begin() + (n - 1), ids->end(), goes_first);
  ids->resize(static_cast<size_t>(n));
  std::sort(ids->begin(), ids->end(), goes_first);
}

double RowStatistics::tail_log_sum_exp(std::span<const TokenId> ids) const {
  if (!exists_) {
    return kNan;
  }
  for (const TokenId id : ids) {
    is_excluded_[static_cast<size_t>(id)] = 1;
    has_excluded_[static_cast<size_t>(id) / kBlock] = 1;
  }
  // Block by block, not total minus candidates: the tail of a peaked row would drown in the
  // difference.
  double sum = 0;
  for (size_t b = 0; b < block_sums_.size(); ++b) {
    if (has_excluded_[b] == 0) {
      sum += block_sums_[b];
      continue;
    }
    const size_t begin = b * kBlock;
    const size_t end = std::min(row_.size(), begin + kBlock);
    for (size_t i = begin; i < end; ++i) {
      sum += is_excluded_[i] == 0 ? static_cast<double>(exponentials_[i]) : 0.0;
    }
  }
  double largest = static_cast<double>(largest_);
  // Exponentials end at e^-87; beyond, the tail is taken from its own maximum.
  if (sum < 1e-30) {
    float tail_largest = kMinusInf;
    for (size_t i = 0; i < row_.size(); ++i) {
      if (is_excluded_[i] == 0) {
        tail_largest = std::max(tail_largest, row_[i]);
      }
    }
    largest = static_cast<double>(tail_largest);
    sum = 0;
    for (size_t i = 0; i < row_.size() && tail_largest > kMinusInf; ++i) {
      sum += is_excluded_[i] == 0 ? std::exp(static_cast<double>(row_[i]) - largest) : 0.0;
    }
  }
  for (const TokenId id : ids) {
    is_excluded_[static_cast<size_t>(id)] = 0;
    has_excluded_[static_cast<size_t>(id) / kBlock] = 0;
  }
  return sum > 0 ? largest + std::log(sum) : -std::numeric_limits<double>::infinity();
}

double RowStatistics::alive_mass(std::span<const float> scores) const {
  if (!exists_) {
    return kNan;
  }
  double sum = 0;
  for_each_block(scores, [&](size_t b, const float* block) {
    const float* terms = exponentials_.data() + b * kBlock;
    BlockSum alive;
    for (size_t i = 0; i < kBlock; i += kWidth) {
      alive.add(i / kWidth % 4, where(load(block + i) != all(kMinusInf), load(terms + i)));
    }
    sum += alive.total();
  });
  return sum / sum_;
}

double RowStatistics::mass(std::span<const TokenId> ids) const {
  if (!exists_) {
    return kNan;
  }
  double sum = 0;
  for (const TokenId id : ids) {
    sum += static_cast<double>(exponentials_[static_cast<size_t>(id)]);
  }
  return sum / sum_;
}

int64_t rank_in(std::span<const float> row, float score) {
  if (std::isnan(score)) {
    return 1;
  }
  // NaN is not at most anything, so that it counts as before.
  return 1 + static_cast<int64_t>(row.size()) - count_at_most(row, score);
}

int64_t count_alive(std::span<const float> row) {
  return static_cast<int64_t>(row.size()) - count_equal(row, kMinusInf);
}

float lowest_alive(std::span<const float> row) {
  std::array<Floats, 2> lowest = {all(kPlusInf), all(kPlusInf)};
  for_each_block(row, [&](size_t, const float* scores) {
    for (size_t i = 0; i < kBlock; i += kWidth) {
      const Floats lanes = load(scores + i);
      const Floats alive = lanes == all(kMinusInf) ? all(kPlusInf) : lanes;
      Floats& least = lowest[i / kWidth % 2];
      least = alive < least ? alive : least;
    }
  });
  const Floats least = lowest[0] < lowest[1] ? lowest[0] : lowest[1];
  return std::min(std::min(least[0], least[1]), std::min(least[2], least[3]));
}

void alive_ids(std::span<const float> row, std::vector<TokenId>* ids) {
  ids->clear();
  for_each_block(row, [&](size_t b, const float* scores) {
    int32_t alive = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      alive += scores[i] == kMinusInf ? 0 : 1;
    }
    for (size_t i = 0; i < kBlock && alive > 0; ++i) {
      if (scores[i] != kMinusInf) {
        ids->push_back(static_cast<TokenId>(b * kBlock + i));
        --alive;
      }
    }
  });
}

void changed_ids(std::span<const float> before, std::span<const float> after,
                 std::vector<TokenId>* ids) {
  CHECK(before.size() == after.size()) << before.size() << " " << after.size();
  ids->clear();
  for (size_t begin = 0; begin < after.size(); begin += kBlock) {
    const size_t end = std::min(after.size(), begin + kBlock);
    uint32_t difference = 0;
    for (size_t i = begin; i < end; ++i) {
      difference |= std::bit_cast<uint32_t>(before[i]) ^ std::bit_cast<uint32_t>(after[i]);
    }
    for (size_t i = begin; i < end && difference != 0; ++i) {
      if (std::bit_cast<uint32_t>(before[i]) != std::bit_cast<uint32_t>(after[i]) &&
          after[i] != kMinusInf) {
        ids->push_back(static_cast<TokenId>(i));
      }
    }
  }
}

}  // namespace logitlab
