// The figures of a study for a terminal: the answer first, then tables, then what follows.
#pragma once

#include <span>

#include "lab/measures/study_results.h"
#include "terminal.h"

namespace logitlab {

void print_study(Terminal* terminal, const StudyResults& results);

// A course: every question with its answer, then what all of it cost.
void print_course(Terminal* terminal, const Study& course, std::span<const StudyResults> results);

}  // namespace logitlab
