// SQLite with our errors: a connection and its prepared statements, closed when they end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

struct sqlite3;
struct sqlite3_stmt;

namespace logitlab {

// One prepared statement. Values are bound from the first parameter on and read from the first
// column on, so that a record is a list of bind() or a list of reads. One thread.
class SqliteStatement {
 public:
  SqliteStatement() = default;

  SqliteStatement& bind(int64_t value);
  // Its 64 bits: above 2^63 it is negative in the file.
  SqliteStatement& bind(uint64_t value);
  SqliteStatement& bind(double value);
  SqliteStatement& bind_text(std::string_view value);  // any bytes; must live until step()
  SqliteStatement& bind_blob(std::string_view value);  // the same
  SqliteStatement& bind_null();
  template <typename T>
  SqliteStatement& bind(T) = delete;

  // Whether there is a row. Without one the statement is ready for its next use.
  [[nodiscard]] Result<bool> step();
  // For statements that give no rows.
  [[nodiscard]] Status run();
  // Ends it early and lets the file go. Values are forgotten.
  void reset();

  [[nodiscard]] int64_t integer();
  [[nodiscard]] uint64_t unsigned_integer();
  [[nodiscard]] double number();
  [[nodiscard]] std::string bytes();  // of a text or a blob

 private:
  friend class Sqlite;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  SqliteStatement(class Sqlite* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement) {}

  class Sqlite* database_ = nullptr;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int parameter_ = 0;
  int column_ = 0;
  int bind_error_ = 0;
};

enum class SqliteMode {
  kCreate,     // the file may be made
  kExisting,   // it must be there; read only where it cannot be written
  kUnchanging  // it must be there, and nobody writes it: no locks, no files beside it
};

// One connection to one file. One thread. Statements must end before it.
class Sqlite {
 public:
  // `path` is a file, never a URI or a name with a meaning. Nothing is read yet.
  [[nodiscard]] static Result<std::unique_ptr<Sqlite>> open(const std::string& path,
                                                            SqliteMode mode);
  ~Sqlite();
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  [[nodiscard]] Result<SqliteStatement> prepare(std::string_view sql);
  // One or more statements without values whose rows nobody wants.
  [[nodiscard]] Status execute(std::string_view sql);
  // The first column of the first row, of a statement without values; 0 when there is none.
  [[nodiscard]] Result<int64_t> integer(std::string_view sql);

  [[nodiscard]] int64_t last_id() const;
  [[nodiscard]] int64_t changes() const;  // rows that the last statement changed
  [[nodiscard]] bool is_read_only() const;
  [[nodiscard]] const std::string& path() const { return path_; }
  // What SQLite's last code was, as an error that names the file. kDataLoss: no database, or a
  // damaged one; kResourceExhausted: the disk, memory, or somebody else who does not let go;
  // kInvalidArgument: it cannot be opened or written, or a rule of a table says no; kNotFound: a
  // record refers to one that is not there.
  [[nodiscard]] tl::unexpected<Error> error(int code) const;

 private:
  Sqlite(std::string path, sqlite3* database) : path_(std::move(path)), database_(database) {}

  std::string path_;
  sqlite3* database_;
};

// BEGIN IMMEDIATE now; ROLLBACK when it ends without commit().
class SqliteTransaction {
 public:
  [[nodiscard]] static Result<SqliteTransaction> begin(Sqlite* database);
  SqliteTransaction(SqliteTransaction&& other) noexcept;
  SqliteTransaction& operator=(SqliteTransaction&&) = delete;
  SqliteTransaction(const SqliteTransaction&) = delete;
  SqliteTransaction& operator=(const SqliteTransaction&) = delete;
  ~SqliteTransaction();

  [[nodiscard]] Status commit();

 private:
  explicit SqliteTransaction(Sqlite* database) : database_(database) {}
  Sqlite* database_;  // null: nothing to roll back
};

}  // namespace logitlab
