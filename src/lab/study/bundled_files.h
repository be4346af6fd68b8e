// The texts of labs/studies/*.yaml; the build writes the source.
#pragma once

#include <span>

#include "lab/study/study_file.h"

namespace logitlab {

// By file name. Static data.
[[nodiscard]] std::span<const BundledStudy> bundled_files();

}  // namespace logitlab
