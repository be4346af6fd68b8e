// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011): a counter-based generator. The same counter and key give the same four words on every
// machine.
#pragma once

#include <array>
#include <cstdint>

namespace logitlab {

using PhiloxBlock = std::array<uint32_t, 4>;

[[nodiscard]] PhiloxBlock philox4x32(const PhiloxBlock& counter,
                                     const std::array<uint32_t, 2>& key);

}  // namespace logitlab
