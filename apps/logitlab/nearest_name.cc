#include "nearest_name.h"

#include <algorithm>

#include "base/edit_distance.h"

namespace logitlab {

std::string nearest_name(std::string_view wrong, const std::vector<std::string>& names) {
  constexpr size_t kLongest = 64;  // the distance takes time and room by length
  if (wrong.size() < 2 || wrong.size() > kLongest) {
    return "";
  }
  std::string best;
  size_t best_distance = std::max<size_t>(1, wrong.size() / 3) + 1;
  for (const std::string& name : names) {
    const bool is_start = name.compare(0, wrong.size(), wrong) == 0;
    const size_t distance = is_start ? 0 : edit_distance(wrong, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = name;
    }
  }
  return best;
}

}  // namespace logitlab
