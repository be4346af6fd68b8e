// How often two distributions choose differently: with the same random draw, and independently.
#pragma once

#include <span>

namespace logitlab {

struct Interval {
  double low = 0;
  double high = 0;
};

// One token in both distributions, as weights >= 0 that need not add up to 1.
struct CoupledToken {
  double first = 0;
  double second = 0;
  bool is_sure = true;  // false: the second weight may also be 0
};

// What is not among the tokens: no more is known than these weights.
struct CoupledRest {
  double first = 0;
  double second_low = 0;
  double second_high = 0;
};

struct ChoiceDifference {
  Interval shared;       // with one draw for both, as sampling/sampler.h defines it
  Interval independent;  // with a draw for each
};

// The probability that the two choices differ; a point (low == high, up to rounding) when every
// token is sure and the rest is empty. O(n log n) then, O(n^2) otherwise.
//
// With p and q the two distributions and E_i independent exponentials of mean 1, the choices are
// arg-min E_i / p_i and arg-min E_i / q_i. Both are i when E_j >= E_i max(p_j / p_i, q_j / q_i) for
// every j other than i. Given E_i = t that has the probability prod_j exp(-t r_ij), with r_ij the
// maximum; integrated over exp(-t) dt it is 1 / (1 + sum_{j != i} r_ij), and r_ii is 1. So
//   P(equal) = sum_i 1 / sum_j max(p_j / p_i, q_j / q_i),
// in which the scale of p and of q cancels. Independently it is sum_i p_i q_i.
[[nodiscard]] ChoiceDifference choice_difference(std::span<const CoupledToken> tokens,
                                                 const CoupledRest& rest);

}  // namespace logitlab
