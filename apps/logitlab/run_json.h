// Stored runs and studies as JSON: what runs, show, compare and export share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "lab/store/store.h"
#include "store_options.h"

namespace logitlab {

// For commands that change nothing: no file is made.
[[nodiscard]] Result<std::unique_ptr<Store>> open_to_read(const StoreOptions& options);

// Everything but the trace; settings and execution as objects, the hash as 16 hexadecimal digits.
[[nodiscard]] Json json_of(const RunRecord& run);
// "runs" is their number.
[[nodiscard]] Json json_of(const StudyRecord& study);

// "temperature: 0.7 -> 1" for every setting of two runs that differs, the execution's as well.
[[nodiscard]] std::vector<std::string> setting_differences(const RunRecord& first,
                                                           const RunRecord& second);

}  // namespace logitlab
