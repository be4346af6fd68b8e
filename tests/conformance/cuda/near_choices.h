// The reference with the choices of experts that another program made: near a tie both of two
// choices are right, and all that follows from them.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "small_model.h"

namespace logitlab {

// Squared error of a row over its squares.
[[nodiscard]] double row_error(std::span<const float> got, std::span<const float> want);

// By how many standard deviations of what it does to two experts an input's error may turn their
// order. Of the choices of these tests, some hundreds, one in 16,000 goes further.
inline constexpr double kTurnedDeviations = 4;

// Which sets of experts a mixture may choose for a row when its input is off by `error` (2-norm,
// relative): all experts that lead every one left out by more than the error explains are in each
// set, and what trails every chosen one by more is in none. A set is given by who must be barred;
// the first bars nobody.
[[nodiscard]] std::vector<std::vector<Barred>> choices_within(const RowChoice& choice,
                                                              double error);

struct Agreement {
  std::vector<double> errors;  // of each row
  size_t n_turned = 0;         // rows whose choices are not those of the reference
};

// Follows `got`, [ids, vocab_size], row by row: of all choices within the errors of the mixtures'
// inputs it takes those that come nearest to the row and goes on from their state. layer_error:
// squared relative error that each layer adds to the residual; an input has that of the layers
// before it, and `own_error`, the program's rounding of the router's input itself.
[[nodiscard]] Agreement follow(const SmallModel& model, ExecContext& context,
                               std::span<const TokenId> ids, std::span<const float> got,
                               double layer_error, double own_error);

}  // namespace logitlab
