// How far a misspelled name is from one that exists.
#pragma once

#include <cstddef>
#include <string_view>

namespace logitlab {

// Levenshtein's distance: bytes to insert, delete or replace. Takes time a.size() * b.size():
// callers cap the lengths of foreign names.
[[nodiscard]] size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace logitlab
