#include "lab/store/sqlite.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <sqlite3.h>

#include "base/check.h"

namespace logitlab {
namespace {

// A writer holds the file for one run's insertion: milliseconds, unless its disk is stuck.
constexpr int kBusyTimeoutMs = 30'000;

// A write that the system cut short has no errno by the time SQLite tells of it.
bool is_disk_full(int code, int system_error) {
  return code == SQLITE_FULL || code == SQLITE_IOERR_WRITE || code == SQLITE_IOERR_SHMSIZE ||
         ((code & 0xff) == SQLITE_IOERR &&
          (system_error == ENOSPC || system_error == EDQUOT || system_error == EFBIG));
}

// "ab?c" as "ab%3fc": what a URI needs of a path.
std::string uri_of(const std::string& path) {
  std::string out = "file:";
  for (const char c : path) {
    if (c == '?' || c == '#' || c == '%') {
      out += fmt::format("%{:02x}", static_cast<unsigned>(c));
    } else {
      out.push_back(c);
    }
  }
  return out + "?immutable=1";
}

}  // namespace

void SqliteStatement::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

SqliteStatement& SqliteStatement::bind(int64_t value) {
  bind_error_ |= sqlite3_bind_int64(statement_.get(), ++parameter_, value);
  return *this;
}

SqliteStatement& SqliteStatement::bind(uint64_t value) {
  return bind(static_cast<int64_t>(value));
}

SqliteStatement& SqliteStatement::bind(double value) {
  bind_error_ |= sqlite3_bind_double(statement_.get(), ++parameter_, value);
  return *this;
}

// A null pointer would bind NULL in place of an empty value.
SqliteStatement& SqliteStatement::bind_text(std::string_view value) {
  bind_error_ |=
      sqlite3_bind_text64(statement_.get(), ++parameter_, value.empty() ? "" : value.data(),
                          value.size(), SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}

SqliteStatement& SqliteStatement::bind_blob(std::string_view value) {
  bind_error_ |=
      sqlite3_bind_blob64(statement_.get(), ++parameter_, value.empty() ? "" : value.data(),
                          value.size(), SQLITE_STATIC);
  return *this;
}

SqliteStatement& SqliteStatement::bind_null() {
  bind_error_ |= sqlite3_bind_null(statement_.get(), ++parameter_);
  return *this;
}

Result<bool> SqliteStatement::step() {
  const int bind_error = std::exchange(bind_error_, SQLITE_OK);
  column_ = 0;
  const int code = bind_error != SQLITE_OK ? bind_error : sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) {
    return true;
  }
  if (code == SQLITE_DONE) {
    reset();
    return false;
  }
  auto error = database_->error(code);
  reset();
  return error;
}

Status SqliteStatement::run() {
  ASSIGN_OR_RETURN(const bool has_row, step());
  CHECK(!has_row) << "a row that nobody reads";
  return {};
}

void SqliteStatement::reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  parameter_ = 0;
  bind_error_ = SQLITE_OK;
}

int64_t SqliteStatement::integer() {
  return sqlite3_column_int64(statement_.get(), column_++);
}

uint64_t SqliteStatement::unsigned_integer() {
  return static_cast<uint64_t>(integer());
}

double SqliteStatement::number() {
  return sqlite3_column_double(statement_.get(), column_++);
}

std::string SqliteStatement::bytes() {
  const void* data = sqlite3_column_blob(statement_.get(), column_);
  const int n = sqlite3_column_bytes(statement_.get(), column_++);
  return data == nullptr ? std::string()
                         : std::string(static_cast<const char*>(data), static_cast<size_t>(n));
}

Result<std::unique_ptr<Sqlite>> Sqlite::open(const std::string& path, SqliteMode mode) {
  sqlite3* opened = nullptr;
  const bool is_unchanging = mode == SqliteMode::kUnchanging;
  const int flags =
      (is_unchanging ? SQLITE_OPEN_READONLY | SQLITE_OPEN_URI : SQLITE_OPEN_READWRITE) |
      (mode == SqliteMode::kCreate ? SQLITE_OPEN_CREATE : 0) | SQLITE_OPEN_NOMUTEX;
  const std::string name = is_unchanging ? uri_of(path) : path;
  const int code = sqlite3_open_v2(name.c_str(), &opened, flags, nullptr);
  std::unique_ptr<Sqlite> out(new Sqlite(path, opened));
  if (opened == nullptr) {
    return fail(ErrorCode::kResourceExhausted, "{}: no memory to open it", path);
  }
  if (code != SQLITE_OK) {
    return out->error(code);
  }
  sqlite3_extended_result_codes(opened, 1);
  sqlite3_busy_timeout(opened, kBusyTimeoutMs);
  // A file from elsewhere shall not run functions of its choice.
  sqlite3_db_config(opened, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(opened, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  return out;
}

Sqlite::~Sqlite() {
  const int code = sqlite3_close(database_);
  DCHECK(code == SQLITE_OK) << path_ << ": " << sqlite3_errstr(code);
}

Result<SqliteStatement> Sqlite::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(database_, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) {
    return error(code);
  }
  return SqliteStatement(this, statement);
}

Status Sqlite::execute(std::string_view sql) {
  const int code = sqlite3_exec(database_, std::string(sql).c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) {
    return error(code);
  }
  return {};
}

Result<int64_t> Sqlite::integer(std::string_view sql) {
  ASSIGN_OR_RETURN(SqliteStatement statement, prepare(sql));
  ASSIGN_OR_RETURN(const bool has_row, statement.step());
  return has_row ? statement.integer() : 0;
}

int64_t Sqlite::last_id() const {
  return sqlite3_last_insert_rowid(database_);
}

int64_t Sqlite::changes() const {
  return sqlite3_changes64(database_);
}

bool Sqlite::is_read_only() const {
  return sqlite3_db_readonly(database_, "main") == 1;
}

tl::unexpected<Error> Sqlite::error(int code) const {
  const int system_error = sqlite3_system_errno(database_);
  const std::string said = sqlite3_errmsg(database_);
  if (is_disk_full(code, system_error)) {
    return fail(ErrorCode::kResourceExhausted,
                "{}: the disk takes no more; what was stored before is there, make room and go on",
                path_);
  }
  switch (code & 0xff) {
    case SQLITE_NOTADB:
      return fail(ErrorCode::kDataLoss,
                  "{}: found a file that is not a database, want a store of logitlab; name another "
                  "with --store",
                  path_);
    case SQLITE_CORRUPT:
      return fail(ErrorCode::kDataLoss,
                  "{}: the store is damaged ({}); `sqlite3 FILE .recover` saves what can be read",
                  path_, said);
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      return fail(ErrorCode::kResourceExhausted, "{}: {}", path_, said);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return fail(ErrorCode::kResourceExhausted,
                  "{}: another process has held the store for {} s; wait for it or end it", path_,
                  kBusyTimeoutMs / 1000);
    case SQLITE_READONLY:
      return fail(ErrorCode::kInvalidArgument,
                  "{}: found a store that cannot be written, want one that can; name another with "
                  "--store",
                  path_);
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return fail(ErrorCode::kInvalidArgument, "{}: the store cannot be opened: {}", path_,
                  system_error == 0 ? said : std::strerror(system_error));
    case SQLITE_CONSTRAINT:
      if (code == SQLITE_CONSTRAINT_FOREIGNKEY) {
        return fail(ErrorCode::kNotFound,
                    "{}: the study that the record belongs to is not in the store; was it removed?",
                    path_);
      }
      return fail(ErrorCode::kInvalidArgument, "{}: a record breaks a rule of the store: {}", path_,
                  said);
    case SQLITE_IOERR:
      return fail(ErrorCode::kDataLoss, "{}: the disk does not obey: {}", path_,
                  system_error == 0 ? said : std::strerror(system_error));
    default:
      return fail(ErrorCode::kInternal, "{}: SQLite says {}: {}", path_, code, said);
  }
}

Result<SqliteTransaction> SqliteTransaction::begin(Sqlite* database) {
  RETURN_IF_ERROR(database->execute("BEGIN IMMEDIATE"));
  return SqliteTransaction(database);
}

SqliteTransaction::SqliteTransaction(SqliteTransaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

// SQLite has rolled back by itself after some errors; then there is nothing left to undo.
SqliteTransaction::~SqliteTransaction() {
  if (database_ != nullptr) {
    [[maybe_unused]] const auto undone = database_->execute("ROLLBACK");
  }
}

Status SqliteTransaction::commit() {
  RETURN_IF_ERROR(database_->execute("COMMIT"));
  database_ = nullptr;
  return {};
}

}  // namespace logitlab
