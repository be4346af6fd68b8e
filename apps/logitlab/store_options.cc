#include "store_options.h"

#include <CLI/CLI.hpp>

namespace logitlab {

void StoreOptions::declare(CLI::App& app) {
  app.add_option("--store", path,
                 "SQLite file that holds studies and runs. Default: logitlab.db in "
                 "$LOGITLAB_HOME.")
      ->type_name("FILE")
      ->group("Store");
}

Result<std::unique_ptr<Store>> StoreOptions::open() const {
  return Store::open(path.empty() ? default_store_path() : path);
}

}  // namespace logitlab
