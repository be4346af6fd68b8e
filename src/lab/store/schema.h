// The tables of the store and every statement on them: all SQL of the project stands in schema.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "lab/store/sqlite.h"

namespace logitlab {

// "logi": what PRAGMA application_id says of our files.
inline constexpr int64_t kStoreApplicationId = 0x6c6f6769;

// One script a version, from an empty file on. Scripts are never edited, only added.
[[nodiscard]] std::span<const std::string_view> store_migrations();

// An empty file, or a store that migrations up to `last_version` know. kUnsupported: a newer
// version; kDataLoss: a database of another program. Changes nothing.
[[nodiscard]] Status require_store(Sqlite* database, size_t last_version);

// Brings a file from the version it has (PRAGMA user_version) to the last one, each step a
// transaction; two processes may do it at once. An empty file is version 0. Errors as
// require_store.
[[nodiscard]] Status migrate(Sqlite* database, std::span<const std::string_view> migrations);

enum class StoreQuery {
  kInsertStudy,
  kFinishStudy,
  kSetReading,
  kStudies,
  kStudy,
  kParts,
  kDeleteStudy,
  kInsertRun,
  kInsertTrace,
  kRun,
  kRuns,        // in order
  kNewestRuns,  // with a limit
  kTrace,
  kRunIds,
  kFinishedRuns,
  kDeleteRun,
  kCount,
};
[[nodiscard]] std::string sql_of(StoreQuery query);

}  // namespace logitlab
