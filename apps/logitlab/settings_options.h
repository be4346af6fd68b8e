// The flags of generation, made from the one table of settings (sampling/generation_fields.h).
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "base/json.h"
#include "command.h"
#include "logitlab/generation_config.h"
#include "sampling/effective_config.h"

namespace logitlab {

class SettingsOptions {
 public:
  // One flag a setting, grouped as the table groups them.
  void declare(CLI::App& app);
  // What was given. kInvalidArgument as set_field.
  [[nodiscard]] Result<GenerationConfig> config() const;

 private:
  struct Given {
    std::string name;
    std::vector<std::string> words;  // of every time that the flag was given
  };
  std::deque<Given> given_;  // addresses stay
};

// {"temperature": {"value": 0.7, "origin": "given"}, ...} for every setting that has a value.
[[nodiscard]] Json json_of(const EffectiveConfig& effective);

}  // namespace logitlab
