// What the figures of a study say, in sentences: each is true by them, none says more.
#pragma once

#include "lab/measures/study_results.h"

namespace logitlab {

// Fills headline, findings and warnings from the rest of `results`.
void add_findings(StudyResults* results);

}  // namespace logitlab
