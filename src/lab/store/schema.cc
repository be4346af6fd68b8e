#include "lab/store/schema.h"

#include <array>

#include <fmt/format.h>

#include "base/check.h"

namespace logitlab {
namespace {

// Hashes and seeds are 64 unsigned bits kept in SQLite's signed integers. What a model or a user
// wrote is a blob, since it may hold NUL and bytes that are not UTF-8. Traces have a table of their
// own, so that a list of runs never walks over them.
constexpr std::string_view kVersion1 = R"sql(
CREATE TABLE study (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  parent INTEGER REFERENCES study (id) ON DELETE CASCADE,
  name TEXT NOT NULL CHECK (name <> ''),
  source BLOB NOT NULL,
  overrides TEXT NOT NULL CHECK (overrides GLOB '[[]*]'),
  created TEXT NOT NULL CHECK (created GLOB '[0-9]*-[0-9]*-[0-9]*T[0-9]*:[0-9]*:[0-9]*Z'),
  status TEXT NOT NULL CHECK (status IN ('running', 'done', 'interrupted')),
  model TEXT NOT NULL,
  model_hash TEXT NOT NULL,
  device TEXT NOT NULL,
  isa TEXT NOT NULL,
  build TEXT NOT NULL,
  command BLOB NOT NULL,
  threads INTEGER NOT NULL CHECK (threads >= 0),
  prompt_tokens_asked INTEGER NOT NULL CHECK (prompt_tokens_asked >= 0),
  new_tokens_asked INTEGER NOT NULL CHECK (new_tokens_asked >= 0),
  prefill_tokens INTEGER NOT NULL CHECK (prefill_tokens >= 0),
  decode_rows INTEGER NOT NULL CHECK (decode_rows >= 0),
  replayed_rows INTEGER NOT NULL CHECK (replayed_rows >= 0),
  forward_passes INTEGER NOT NULL CHECK (forward_passes >= 0),
  peak_state_bytes INTEGER NOT NULL CHECK (peak_state_bytes >= 0),
  prefill_seconds REAL NOT NULL CHECK (prefill_seconds >= 0),
  seconds REAL NOT NULL CHECK (seconds >= 0),
  peak_memory_bytes INTEGER NOT NULL CHECK (peak_memory_bytes >= 0),
  reading BLOB NOT NULL,
  extras BLOB NOT NULL
) STRICT;
CREATE INDEX study_parent ON study (parent) WHERE parent IS NOT NULL;

CREATE TABLE run (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  study INTEGER REFERENCES study (id) ON DELETE CASCADE,
  run_index INTEGER NOT NULL CHECK (run_index >= 0),
  prompt_name TEXT NOT NULL,
  setting_name TEXT NOT NULL,
  repetition INTEGER NOT NULL CHECK (repetition >= 0),
  seed INTEGER NOT NULL,
  is_control INTEGER NOT NULL CHECK (is_control IN (0, 1)),
  config TEXT NOT NULL CHECK (config = '' OR config GLOB '{*}'),
  execution TEXT NOT NULL CHECK (execution = '' OR execution GLOB '{*}'),
  prompt_ids BLOB NOT NULL CHECK (length(prompt_ids) % 4 = 0),
  ids BLOB NOT NULL CHECK (length(ids) % 4 = 0),
  text BLOB NOT NULL,
  stop_reason TEXT NOT NULL,
  stop_id INTEGER NOT NULL CHECK (stop_id >= -1),
  thinking_tokens INTEGER NOT NULL CHECK (thinking_tokens >= 0),
  answer_tokens INTEGER NOT NULL CHECK (answer_tokens >= 0),
  hash INTEGER NOT NULL,
  seconds REAL NOT NULL CHECK (seconds >= 0),
  trace_bytes INTEGER NOT NULL CHECK (trace_bytes >= 0)
) STRICT;
CREATE UNIQUE INDEX run_of_study ON run (study, run_index) WHERE study IS NOT NULL;

CREATE TABLE trace (
  run INTEGER PRIMARY KEY REFERENCES run (id) ON DELETE CASCADE,
  zstd BLOB NOT NULL CHECK (length(zstd) > 0)
) STRICT;
)sql";

constexpr std::array<std::string_view, 1> kMigrations = {kVersion1};

constexpr std::string_view kStudyColumns =
    "id, coalesce(parent, 0), name, source, overrides, created, status, model, model_hash, device, "
    "isa, build, command, threads, prompt_tokens_asked, new_tokens_asked, prefill_tokens, "
    "decode_rows, replayed_rows, forward_passes, peak_state_bytes, prefill_seconds, seconds, "
    "peak_memory_bytes, reading, extras, (SELECT count(*) FROM run WHERE run.study = study.id)";

constexpr std::string_view kRunColumns =
    "id, coalesce(study, 0), run_index, prompt_name, setting_name, repetition, seed, is_control, "
    "config, execution, prompt_ids, ids, text, stop_reason, stop_id, thinking_tokens, "
    "answer_tokens, hash, seconds, trace_bytes";

// ?1: a study or NULL; ?2: a model's hash or NULL.
constexpr std::string_view kRunFilter =
    "(?1 IS NULL OR study = ?1) AND "
    "(?2 IS NULL OR study IN (SELECT id FROM study WHERE model_hash = ?2))";

}  // namespace

Status require_store(Sqlite* database, size_t last_version) {
  // One statement, so that no other process makes the store between two questions.
  ASSIGN_OR_RETURN(SqliteStatement header,
                   database->prepare("SELECT (SELECT count(*) FROM sqlite_schema), "
                                     "(SELECT application_id FROM pragma_application_id), "
                                     "(SELECT user_version FROM pragma_user_version)"));
  ASSIGN_OR_RETURN([[maybe_unused]] const bool has_row, header.step());
  const bool empty = header.integer() == 0;
  const int64_t application = header.integer();
  const int64_t version = header.integer();
  if (application != kStoreApplicationId && (application != 0 || version != 0 || !empty)) {
    return fail(ErrorCode::kDataLoss,
                "{}: found a database of another program, want a store of logitlab; name another "
                "with --store",
                database->path());
  }
  if (version < 0 || version > static_cast<int64_t>(last_version)) {
    return fail(ErrorCode::kUnsupported,
                "{}: found a store of version {}, want at most {}; a newer logitlab made it: use "
                "that one, or name another store with --store",
                database->path(), version, last_version);
  }
  return {};
}

std::span<const std::string_view> store_migrations() {
  return kMigrations;
}

Status migrate(Sqlite* database, std::span<const std::string_view> migrations) {
  RETURN_IF_ERROR(require_store(database, migrations.size()));
  ASSIGN_OR_RETURN(int64_t version, database->integer("PRAGMA user_version"));
  while (version < static_cast<int64_t>(migrations.size())) {
    ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::begin(database));
    // Another process may have been faster.
    ASSIGN_OR_RETURN(version, database->integer("PRAGMA user_version"));
    RETURN_IF_ERROR(require_store(database, migrations.size()));
    if (version < static_cast<int64_t>(migrations.size())) {
      RETURN_IF_ERROR(database->execute(migrations[static_cast<size_t>(version)]));
      ++version;
      RETURN_IF_ERROR(
          database->execute(fmt::format("PRAGMA user_version = {}; PRAGMA "
                                        "application_id = {}",
                                        version, kStoreApplicationId)));
    }
    RETURN_IF_ERROR(transaction.commit());
  }
  return {};
}

std::string sql_of(StoreQuery query) {
  switch (query) {
    case StoreQuery::kInsertStudy:
      return "INSERT INTO study (parent, name, source, overrides, created, status, model, "
             "model_hash, device, isa, build, command, threads, prompt_tokens_asked, "
             "new_tokens_asked, prefill_tokens, decode_rows, replayed_rows, forward_passes, "
             "peak_state_bytes, prefill_seconds, seconds, peak_memory_bytes, reading, extras) "
             "VALUES (nullif(?1, 0), ?2, ?3, ?4, "
             "CASE ?5 WHEN '' THEN strftime('%Y-%m-%dT%H:%M:%SZ', 'now') ELSE ?5 END, "
             "?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, "
             "?23, ?24, ?25)";
    case StoreQuery::kFinishStudy:
      return "UPDATE study SET status = ?2, prompt_tokens_asked = ?3, new_tokens_asked = ?4, "
             "prefill_tokens = ?5, decode_rows = ?6, replayed_rows = ?7, forward_passes = ?8, "
             "peak_state_bytes = ?9, prefill_seconds = ?10, seconds = ?11, "
             "peak_memory_bytes = ?12, extras = ?13 WHERE id = ?1";
    case StoreQuery::kSetReading:
      return "UPDATE study SET reading = ?2 WHERE id = ?1";
    case StoreQuery::kStudies:
      return fmt::format("SELECT {} FROM study ORDER BY id DESC", kStudyColumns);
    case StoreQuery::kStudy:
      return fmt::format("SELECT {} FROM study WHERE id = ?1", kStudyColumns);
    case StoreQuery::kParts:
      return fmt::format("SELECT {} FROM study WHERE parent = ?1 ORDER BY id", kStudyColumns);
    case StoreQuery::kDeleteStudy:
      return "DELETE FROM study WHERE id = ?1";
    case StoreQuery::kInsertRun:
      return "INSERT INTO run (study, run_index, prompt_name, setting_name, repetition, seed, "
             "is_control, config, execution, prompt_ids, ids, text, stop_reason, stop_id, "
             "thinking_tokens, answer_tokens, hash, seconds, trace_bytes) "
             "VALUES (nullif(?1, 0), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, "
             "?15, ?16, ?17, ?18, ?19)";
    case StoreQuery::kInsertTrace:
      return "INSERT INTO trace (run, zstd) VALUES (?1, ?2)";
    case StoreQuery::kRun:
      return fmt::format("SELECT {} FROM run WHERE id = ?1", kRunColumns);
    case StoreQuery::kRuns:
      return fmt::format("SELECT {} FROM run WHERE {} ORDER BY coalesce(study, 0), run_index, id",
                         kRunColumns, kRunFilter);
    case StoreQuery::kNewestRuns:
      return fmt::format("SELECT {} FROM run WHERE {} ORDER BY id DESC LIMIT ?3", kRunColumns,
                         kRunFilter);
    case StoreQuery::kTrace:
      return "SELECT zstd FROM trace WHERE run = ?1";
    case StoreQuery::kRunIds:
      return "SELECT id FROM run WHERE study = ?1 ORDER BY run_index";
    case StoreQuery::kFinishedRuns:
      return "SELECT run_index FROM run WHERE study = ?1 ORDER BY run_index";
    case StoreQuery::kDeleteRun:
      return "DELETE FROM run WHERE id = ?1";
    case StoreQuery::kCount:
      break;
  }
  CHECK(false) << "no such query";
  return "";
}

}  // namespace logitlab
