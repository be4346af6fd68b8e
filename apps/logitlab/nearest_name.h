// "Did you mean": the closest of the names that exist.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace logitlab {

// Empty when nothing is close: more than a third of the letters would have to change.
[[nodiscard]] std::string nearest_name(std::string_view wrong,
                                       const std::vector<std::string>& names);

}  // namespace logitlab
