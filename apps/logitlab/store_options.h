// The flag that says which store of runs is meant.
#pragma once

#include <memory>
#include <string>

#include "command.h"
#include "lab/store/store.h"

namespace logitlab {

struct StoreOptions {
  std::string path;  // empty: logitlab.db in $LOGITLAB_HOME

  // --store.
  void declare(CLI::App& app);
  // Errors as Store::open.
  [[nodiscard]] Result<std::unique_ptr<Store>> open() const;
};

}  // namespace logitlab
