#include "lab/coupling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace logitlab {
namespace {

Interval differing(double equal_low, double equal_high) {
  return {std::clamp(1 - equal_high, 0.0, 1.0), std::clamp(1 - equal_low, 0.0, 1.0)};
}

// Sorted by p / q, max(p_j / p_i, q_j / q_i) is the first ratio on one side of i and the second one
// on the other.
double equal_when_all_is_known(std::span<const CoupledToken> tokens) {
  std::vector<CoupledToken> sorted(tokens.begin(), tokens.end());
  const auto ratio = [](const CoupledToken& token) {
    return token.second > 0 ? token.first / token.second : std::numeric_limits<double>::infinity();
  };
  std::sort(sorted.begin(), sorted.end(),
            [&ratio](const CoupledToken& a, const CoupledToken& b) { return ratio(a) > ratio(b); });
  double second_after = 0;
  for (const CoupledToken& token : sorted) {
    second_after += token.second;
  }
  double first_before = 0;
  double equal = 0;
  for (const CoupledToken& token : sorted) {
    second_after -= token.second;
    first_before += token.first;
    if (token.first > 0 && token.second > 0) {
      equal += 1 / (first_before / token.first + std::max(second_after, 0.0) / token.second);
    }
  }
  return equal;
}

Interval equal_bounds(std::span<const CoupledToken> tokens, const CoupledRest& rest) {
  Interval equal;
  for (const CoupledToken& own : tokens) {
    if (own.first <= 0 || own.second <= 0) {
      continue;
    }
    double largest = rest.first / own.first + rest.second_high / own.second;
    double smallest = std::max(rest.first / own.first, rest.second_low / own.second);
    for (const CoupledToken& other : tokens) {
      const double by_first = other.first / own.first;
      const double both = std::max(by_first, other.second / own.second);
      largest += both;
      smallest += other.is_sure || &other == &own ? both : by_first;
    }
    equal.low += own.is_sure ? 1 / largest : 0;
    equal.high += 1 / smallest;
  }
  return equal;
}

}  // namespace

ChoiceDifference choice_difference(std::span<const CoupledToken> tokens, const CoupledRest& rest) {
  double first = rest.first;
  double sure_second = 0;
  double all_second = 0;
  bool is_known = rest.first <= 0 && rest.second_high <= 0;
  std::vector<CoupledToken> present;
  for (const CoupledToken& token : tokens) {
    if (token.first <= 0 && token.second <= 0) {
      continue;
    }
    present.push_back(token);
    first += token.first;
    all_second += token.second;
    sure_second += token.is_sure ? token.second : 0;
    is_known = is_known && token.is_sure;
  }
  if (!(first > 0) || !(all_second + rest.second_high > 0)) {
    return {{0, 1}, {0, 1}};
  }
  // Both choices can fall on one and the same token of the rest, at most as often as either falls
  // there.
  const double first_rest = rest.first / first;
  const double second_rest =
      rest.second_high > 0 ? rest.second_high / (sure_second + rest.second_high) : 0;
  const double rest_equal = std::min(first_rest, second_rest);

  ChoiceDifference result;
  if (is_known) {
    const double equal = equal_when_all_is_known(present);
    result.shared = differing(equal, equal);
  } else {
    const Interval equal = equal_bounds(present, rest);
    result.shared = differing(equal.low, equal.high + rest_equal);
  }
  Interval independent;
  for (const CoupledToken& token : present) {
    const double p = token.first / first;
    if (token.second <= 0) {
      continue;
    }
    const double others_low = sure_second - (token.is_sure ? token.second : 0) + rest.second_low;
    independent.low += token.is_sure ? p * token.second / (all_second + rest.second_high) : 0;
    independent.high += p * token.second / (token.second + others_low);
  }
  result.independent = differing(independent.low, independent.high + rest_equal);
  return result;
}

}  // namespace logitlab
