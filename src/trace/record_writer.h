// The lines of a trace: every record as one JSON object and a line break, as
// docs/trace.schema.json describes them.
#pragma once

#include <fmt/format.h>

#include "logitlab/trace.h"

namespace logitlab {

// Appends to `out`; allocates only where it has to grow. RunTrace::config_json must be JSON or
// empty (CHECK).
void append_line(const RunTrace& run, fmt::memory_buffer* out);
void append_line(const TracedStep& step, fmt::memory_buffer* out);
void append_line(const TracedBeamStep& step, fmt::memory_buffer* out);
void append_line(const RunEnd& end, fmt::memory_buffer* out);

}  // namespace logitlab
