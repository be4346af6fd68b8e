#include "backend/device_profile.h"

#include <utility>

namespace logitlab {

DeviceProfile DeviceProfile::from(std::vector<DevicePhase> measured) {
  DeviceProfile profile;
  for (DevicePhase& phase : measured) {
    if (phase.name == kDeviceWholeStep) {
      profile.step_microseconds = phase.microseconds;
    } else {
      profile.phases.push_back(std::move(phase));
    }
  }
  return profile;
}

DevicePhase DeviceProfile::sum() const {
  DevicePhase sum{"sum", 0, 0, 0};
  for (const DevicePhase& phase : phases) {
    sum.count += phase.count;
    sum.bytes += phase.bytes;
    sum.microseconds += phase.microseconds;
  }
  return sum;
}

}  // namespace logitlab
