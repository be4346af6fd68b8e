// What a decode step on a device moves and takes, from the phases of its profile.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/device_model.h"

namespace logitlab {

struct DeviceProfile {
  std::vector<DevicePhase> phases;  // kinds of phases; the step as a whole is not among them
  double step_microseconds = 0;     // of all in one graph; 0: not measured

  // As DeviceModel::profile returns them.
  [[nodiscard]] static DeviceProfile from(std::vector<DevicePhase> measured);

  // The kinds added up, under the name "sum". What phases take one by one is more than the step:
  // in its graph a phase starts while the one before it ends.
  [[nodiscard]] DevicePhase sum() const;
};

}  // namespace logitlab
