#include "lab/store/store.h"

#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sqlite3.h>

#include "base/env.h"
#include "base/json.h"
#include "lab/store/schema.h"
#include "lab/store/sqlite.h"
#include "trace/trace_text.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

// The journal keeps at most this between checkpoints, after a large trace as well.
constexpr int64_t kJournalBytes = int64_t{32} << 20;
constexpr int kJournalModeTries = 500;

static_assert(std::endian::native == std::endian::little, "ids are stored little-endian");

std::string_view bytes_of(const std::vector<TokenId>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(TokenId)};
}

std::vector<TokenId> ids_of(const std::string& bytes) {
  std::vector<TokenId> ids(bytes.size() / sizeof(TokenId));
  if (!ids.empty()) {  // without elements data() may be null, which memcpy must not be given
    std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(TokenId));
  }
  return ids;
}

void bind_totals(const StudyTotals& totals, SqliteStatement* out) {
  out->bind(totals.prompt_tokens_asked)
      .bind(totals.new_tokens_asked)
      .bind(totals.prefill_tokens)
      .bind(totals.decode_rows)
      .bind(totals.replayed_rows)
      .bind(totals.forward_passes)
      .bind(static_cast<int64_t>(totals.peak_state_bytes))
      .bind(totals.prefill_seconds)
      .bind(totals.seconds)
      .bind(static_cast<int64_t>(totals.peak_memory_bytes));
}

void read_totals(SqliteStatement* row, StudyTotals* totals) {
  totals->prompt_tokens_asked = row->integer();
  totals->new_tokens_asked = row->integer();
  totals->prefill_tokens = row->integer();
  totals->decode_rows = row->integer();
  totals->replayed_rows = row->integer();
  totals->forward_passes = row->integer();
  totals->peak_state_bytes = static_cast<size_t>(row->integer());
  totals->prefill_seconds = row->number();
  totals->seconds = row->number();
  totals->peak_memory_bytes = static_cast<size_t>(row->integer());
}

Result<StudyRecord> read_study(SqliteStatement* row, const std::string& path) {
  StudyRecord out;
  out.id = row->integer();
  out.parent = row->integer();
  out.name = row->bytes();
  out.source = row->bytes();
  const std::string where = fmt::format("{}: study {}: overrides", path, out.id);
  ASSIGN_OR_RETURN(const Json overrides, parse_json(row->bytes(), where));
  for (const Json& one : overrides) {
    if (!one.is_string()) {
      return fail(ErrorCode::kDataLoss, "{}: found {}, want a list of strings", where,
                  quoted_json(one));
    }
    out.overrides.push_back(one.get<std::string>());
  }
  out.created = row->bytes();
  out.status = row->bytes();
  out.origin.model = row->bytes();
  out.origin.model_hash = row->bytes();
  out.origin.device = row->bytes();
  out.origin.isa = row->bytes();
  out.origin.build = row->bytes();
  out.origin.command = row->bytes();
  out.origin.threads = static_cast<int>(row->integer());
  read_totals(row, &out.totals);
  out.reading = row->bytes();
  out.extras_json = row->bytes();
  out.n_runs = row->integer();
  return out;
}

RunRecord read_run(SqliteStatement* row) {
  RunRecord out;
  out.id = row->integer();
  out.study = row->integer();
  out.index = row->integer();
  out.prompt_name = row->bytes();
  out.setting_name = row->bytes();
  out.run = row->integer();
  out.seed = row->unsigned_integer();
  out.is_control = row->integer() != 0;
  out.config_json = row->bytes();
  out.execution_json = row->bytes();
  out.prompt_ids = ids_of(row->bytes());
  out.ids = ids_of(row->bytes());
  out.text = row->bytes();
  out.stop_reason = row->bytes();
  out.stop_id = static_cast<TokenId>(row->integer());
  out.thinking_tokens = row->integer();
  out.answer_tokens = row->integer();
  out.hash = row->unsigned_integer();
  out.seconds = row->number();
  out.trace_bytes = row->integer();
  return out;
}

// SQLite answers "busy" to this one without waiting, when two processes do it at once.
Status use_write_ahead_log(Sqlite* database) {
  for (int i = 0;; ++i) {
    auto status = database->execute("PRAGMA journal_mode = WAL");
    if (status || status.error().code != ErrorCode::kResourceExhausted || i >= kJournalModeTries) {
      return status;
    }
    sqlite3_sleep(10);
  }
}

// SQLite takes a file of a few bytes for an empty database and writes over it.
Status require_database(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[16] = {};
  file.read(magic, sizeof magic);
  const auto n = file.gcount();
  if (n > 0 && std::memcmp(magic, "SQLite format 3", sizeof magic) != 0) {
    return fail(ErrorCode::kDataLoss,
                "{}: found a file that is not a database, want a store of logitlab; name another "
                "with --store",
                path.string());
  }
  return {};
}

Status require_place(const fs::path& path, StoreMode mode) {
  std::error_code error;
  const fs::file_status found = fs::status(path, error);
  if (fs::exists(found)) {
    if (!fs::is_regular_file(found)) {
      return fail(ErrorCode::kInvalidArgument, "{}: found {}, want a file for the store",
                  path.string(), fs::is_directory(found) ? "a folder" : "a device or pipe");
    }
    return require_database(path);
  }
  if (mode == StoreMode::kRead) {
    return fail(ErrorCode::kNotFound,
                "{}: no store is there; `logitlab study NAME` makes one, --store names another",
                path.string());
  }
  fs::create_directories(path.parent_path(), error);
  if (error) {
    return fail(error == std::errc::no_space_on_device ? ErrorCode::kResourceExhausted
                                                       : ErrorCode::kInvalidArgument,
                "{}: no folder can be made for the store: {}", path.parent_path().string(),
                error.message());
  }
  return {};
}

// With the settings that hold for one connection.
Result<std::unique_ptr<Sqlite>> connect(const std::string& path, SqliteMode mode) {
  ASSIGN_OR_RETURN(auto database, Sqlite::open(path, mode));
  RETURN_IF_ERROR(require_store(database.get(), store_migrations().size()));
  if (!database->is_read_only()) {
    // Acts on an empty file alone; removing runs then shortens it.
    RETURN_IF_ERROR(database->execute("PRAGMA auto_vacuum = INCREMENTAL"));
    RETURN_IF_ERROR(use_write_ahead_log(database.get()));
  }
  // Without a sync at each commit: a run takes no milliseconds of disk, and in this mode a power
  // cut ends the journal at a whole transaction.
  RETURN_IF_ERROR(
      database->execute(fmt::format("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; "
                                    "PRAGMA journal_size_limit = {}; PRAGMA cell_size_check = ON",
                                    kJournalBytes)));
  RETURN_IF_ERROR(migrate(database.get(), store_migrations()));
  return database;
}

bool has_journal(const std::string& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path + "-wal", error);
  return !error && bytes > 0;
}

}  // namespace

std::string default_store_path() {
  return (logitlab_home() / "logitlab.db").string();
}

struct Store::Impl {
  std::unique_ptr<Sqlite> database;
  std::array<std::optional<SqliteStatement>, static_cast<size_t>(StoreQuery::kCount)> statements;

  // Made ready on its first use.
  Result<SqliteStatement*> query(StoreQuery which);
  Result<int64_t> insert_run(const RunRecord& run);
  Result<std::vector<StudyRecord>> read_studies(SqliteStatement* rows);
  Result<std::vector<int64_t>> integers(StoreQuery which, int64_t study);
  Result<RunRecord> run(int64_t id, bool with_trace);
  Status remove(StoreQuery which, int64_t id, std::string_view what);
  [[nodiscard]] tl::unexpected<Error> absent(std::string_view what, int64_t id) const {
    return fail(ErrorCode::kNotFound, "{} {}: not in {}; `logitlab runs` lists what is", what, id,
                database->path());
  }
};

Result<SqliteStatement*> Store::Impl::query(StoreQuery which) {
  auto& slot = statements[static_cast<size_t>(which)];
  if (!slot) {
    ASSIGN_OR_RETURN(slot, database->prepare(sql_of(which)));
  }
  slot->reset();
  return &*slot;
}

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

const std::string& Store::path() const {
  return impl_->database->path();
}

Result<std::unique_ptr<Store>> Store::open(const std::string& path, StoreMode mode) {
  std::error_code error;
  const fs::path place = fs::absolute(path, error);
  if (path.empty() || error) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\": found no file name, want one for the store",
                path);
  }
  RETURN_IF_ERROR(require_place(place, mode));
  auto database = connect(place.string(),
                          mode == StoreMode::kRead ? SqliteMode::kExisting : SqliteMode::kCreate);
  // In a folder that cannot be written SQLite has no place for its locks. Nobody else can write
  // there either, so that none are needed.
  if (!database && mode == StoreMode::kRead &&
      database.error().code == ErrorCode::kInvalidArgument && !has_journal(place.string())) {
    if (auto unchanging = connect(place.string(), SqliteMode::kUnchanging)) {
      database = std::move(unchanging);
    }
  }
  if (!database) {
    return tl::unexpected<Error>(std::move(database).error());
  }
  if (mode == StoreMode::kWrite && (*database)->is_read_only()) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: found a store that cannot be written, want one that can; name another with "
                "--store",
                place.string());
  }
  auto impl = std::make_unique<Impl>();
  impl->database = std::move(*database);
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

Result<int64_t> Store::begin_study(const StudyRecord& study) {
  ASSIGN_OR_RETURN(SqliteStatement * insert, impl_->query(StoreQuery::kInsertStudy));
  const std::string overrides = dump_json(Json(study.overrides));
  const RunOrigin& origin = study.origin;
  insert->bind(study.parent)
      .bind_text(study.name)
      .bind_blob(study.source)
      .bind_text(overrides)
      .bind_text(study.created)
      .bind_text(study.status)
      .bind_text(origin.model)
      .bind_text(origin.model_hash)
      .bind_text(origin.device)
      .bind_text(origin.isa)
      .bind_text(origin.build)
      .bind_blob(origin.command)
      .bind(static_cast<int64_t>(origin.threads));
  bind_totals(study.totals, insert);
  insert->bind_blob(study.reading).bind_blob(study.extras_json);
  RETURN_IF_ERROR(insert->run());
  return impl_->database->last_id();
}

Result<int64_t> Store::Impl::insert_run(const RunRecord& run) {
  std::string own_zstd;
  const std::string* zstd = &run.trace_zstd;
  auto trace_bytes = static_cast<int64_t>(run.trace.size());
  if (!run.trace.empty()) {
    TraceCompressor().append(run.trace, &own_zstd);
    zstd = &own_zstd;
  } else if (!run.trace_zstd.empty()) {
    ASSIGN_OR_RETURN(const size_t bytes, decompressed_trace_bytes(run.trace_zstd, "trace_zstd"));
    trace_bytes = static_cast<int64_t>(bytes);
  }
  ASSIGN_OR_RETURN(SqliteStatement * insert, query(StoreQuery::kInsertRun));
  insert->bind(run.study)
      .bind(run.index)
      .bind_text(run.prompt_name)
      .bind_text(run.setting_name)
      .bind(run.run)
      .bind(run.seed)
      .bind(static_cast<int64_t>(run.is_control))
      .bind_text(run.config_json)
      .bind_text(run.execution_json)
      .bind_blob(bytes_of(run.prompt_ids))
      .bind_blob(bytes_of(run.ids))
      .bind_blob(run.text)
      .bind_text(run.stop_reason)
      .bind(static_cast<int64_t>(run.stop_id))
      .bind(run.thinking_tokens)
      .bind(run.answer_tokens)
      .bind(run.hash)
      .bind(run.seconds)
      .bind(trace_bytes);
  RETURN_IF_ERROR(insert->run());
  const int64_t id = database->last_id();
  if (!zstd->empty()) {
    ASSIGN_OR_RETURN(SqliteStatement * trace, query(StoreQuery::kInsertTrace));
    trace->bind(id).bind_blob(*zstd);
    RETURN_IF_ERROR(trace->run());
  }
  return id;
}

Result<int64_t> Store::add_run(const RunRecord& run) {
  ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::begin(impl_->database.get()));
  ASSIGN_OR_RETURN(const int64_t id, impl_->insert_run(run));
  RETURN_IF_ERROR(transaction.commit());
  return id;
}

Status Store::add_runs(std::vector<RunRecord>* runs) {
  ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::begin(impl_->database.get()));
  std::vector<int64_t> ids;
  ids.reserve(runs->size());
  for (const RunRecord& run : *runs) {
    ASSIGN_OR_RETURN(const int64_t id, impl_->insert_run(run));
    ids.push_back(id);
  }
  RETURN_IF_ERROR(transaction.commit());
  for (size_t i = 0; i < ids.size(); ++i) {
    (*runs)[i].id = ids[i];
  }
  return {};
}

Status Store::finish_study(int64_t id, std::string_view status, const StudyTotals& totals,
                           std::string_view extras_json) {
  ASSIGN_OR_RETURN(SqliteStatement * update, impl_->query(StoreQuery::kFinishStudy));
  update->bind(id).bind_text(status);
  bind_totals(totals, update);
  update->bind_blob(extras_json);
  RETURN_IF_ERROR(update->run());
  return impl_->database->changes() == 1 ? Status() : impl_->absent("study", id);
}

Status Store::set_reading(int64_t study, std::string_view reading) {
  ASSIGN_OR_RETURN(SqliteStatement * update, impl_->query(StoreQuery::kSetReading));
  update->bind(study).bind_blob(reading);
  RETURN_IF_ERROR(update->run());
  return impl_->database->changes() == 1 ? Status() : impl_->absent("study", study);
}

Result<std::vector<StudyRecord>> Store::Impl::read_studies(SqliteStatement* rows) {
  std::vector<StudyRecord> out;
  for (;;) {
    ASSIGN_OR_RETURN(const bool has_row, rows->step());
    if (!has_row) {
      return out;
    }
    ASSIGN_OR_RETURN(StudyRecord study, read_study(rows, database->path()));
    out.push_back(std::move(study));
  }
}

Result<std::vector<StudyRecord>> Store::studies() {
  ASSIGN_OR_RETURN(SqliteStatement * rows, impl_->query(StoreQuery::kStudies));
  return impl_->read_studies(rows);
}

Result<std::vector<StudyRecord>> Store::parts(int64_t course) {
  ASSIGN_OR_RETURN(SqliteStatement * rows, impl_->query(StoreQuery::kParts));
  rows->bind(course);
  return impl_->read_studies(rows);
}

Result<StudyRecord> Store::study(int64_t id) {
  ASSIGN_OR_RETURN(SqliteStatement * row, impl_->query(StoreQuery::kStudy));
  row->bind(id);
  ASSIGN_OR_RETURN(const bool is_there, row->step());
  if (!is_there) {
    return impl_->absent("study", id);
  }
  auto out = read_study(row, path());
  row->reset();
  return out;
}

Result<std::vector<RunRecord>> Store::runs(const RunFilter& filter) {
  ASSIGN_OR_RETURN(SqliteStatement * rows,
                   impl_->query(filter.limit > 0 ? StoreQuery::kNewestRuns : StoreQuery::kRuns));
  filter.study ? rows->bind(*filter.study) : rows->bind_null();
  filter.model_hash ? rows->bind_text(*filter.model_hash) : rows->bind_null();
  if (filter.limit > 0) {
    rows->bind(filter.limit);
  }
  std::vector<RunRecord> out;
  for (;;) {
    ASSIGN_OR_RETURN(const bool has_row, rows->step());
    if (!has_row) {
      return out;
    }
    out.push_back(read_run(rows));
  }
}

Result<RunRecord> Store::Impl::run(int64_t id, bool with_trace) {
  ASSIGN_OR_RETURN(SqliteStatement * row, query(StoreQuery::kRun));
  row->bind(id);
  ASSIGN_OR_RETURN(const bool is_there, row->step());
  if (!is_there) {
    return absent("run", id);
  }
  RunRecord out = read_run(row);
  row->reset();
  if (!with_trace || out.trace_bytes == 0) {
    return out;
  }
  const std::string where = fmt::format("{}: run {}", database->path(), id);
  ASSIGN_OR_RETURN(SqliteStatement * trace, query(StoreQuery::kTrace));
  trace->bind(id);
  ASSIGN_OR_RETURN(const bool has_trace, trace->step());
  if (!has_trace) {
    return fail(ErrorCode::kDataLoss, "{}: found no trace, want one of {} bytes; was it removed?",
                where, out.trace_bytes);
  }
  const std::string zstd = trace->bytes();
  trace->reset();
  ASSIGN_OR_RETURN(out.trace, decompress_trace(zstd, where));
  if (static_cast<int64_t>(out.trace.size()) != out.trace_bytes) {
    return fail(ErrorCode::kDataLoss, "{}: found a trace of {} bytes, want {}", where,
                out.trace.size(), out.trace_bytes);
  }
  return out;
}

Result<RunRecord> Store::run(int64_t id) {
  return impl_->run(id, true);
}

Result<std::vector<int64_t>> Store::Impl::integers(StoreQuery which, int64_t study) {
  ASSIGN_OR_RETURN(SqliteStatement * rows, query(which));
  rows->bind(study);
  std::vector<int64_t> out;
  for (;;) {
    ASSIGN_OR_RETURN(const bool has_row, rows->step());
    if (!has_row) {
      return out;
    }
    out.push_back(rows->integer());
  }
}

// The ids first: a query that stays open while the visitor works would keep the journal growing
// under a writer.
Status Store::visit_runs(int64_t study, const std::function<Status(const RunRecord&)>& visit,
                         bool with_traces) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> ids, impl_->integers(StoreQuery::kRunIds, study));
  for (const int64_t id : ids) {
    ASSIGN_OR_RETURN(const RunRecord run, impl_->run(id, with_traces));
    RETURN_IF_ERROR(visit(run));
  }
  return {};
}

Result<std::vector<int64_t>> Store::finished_runs(int64_t study) {
  return impl_->integers(StoreQuery::kFinishedRuns, study);
}

Status Store::Impl::remove(StoreQuery which, int64_t id, std::string_view what) {
  ASSIGN_OR_RETURN(SqliteStatement * statement, query(which));
  statement->bind(id);
  RETURN_IF_ERROR(statement->run());
  if (database->changes() != 1) {
    return absent(what, id);
  }
  // The record is gone either way; a reader that holds the file only keeps it long.
  [[maybe_unused]] const auto shortened = database->execute("PRAGMA incremental_vacuum");
  return {};
}

Status Store::remove_study(int64_t id) {
  return impl_->remove(StoreQuery::kDeleteStudy, id, "study");
}

Status Store::remove_run(int64_t id) {
  return impl_->remove(StoreQuery::kDeleteRun, id, "run");
}

}  // namespace logitlab
