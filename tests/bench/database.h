// SQLite for the workloads: whatever it reports as an error ends the program.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

#include "tests/bench/options.h"

namespace echofs::bench {

// One connection; waits up to 30 s for locks.
class Database {
 public:
  Database(const std::string& path, int flags);
  ~Database() { sqlite3_close(db_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void Check(int rc, const std::string& what) const;
  void Execute(const std::string& sql) const;
  sqlite3* get() const { return db_; }

 private:
  const std::string path_;
  sqlite3* db_ = nullptr;
};

class Statement {
 public:
  Statement(const Database& database, const char* sql);
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  void Bind(std::int64_t value) { sqlite3_bind_int64(statement_, 1, value); }
  // Runs to the end; the first column of the last row, or 0.
  std::int64_t Run();

 private:
  const Database& database_;
  sqlite3_stmt* statement_ = nullptr;
};

inline constexpr char kInsert[] = "INSERT INTO t(v) VALUES (randomblob(100))";

// Made if it is not there, with an empty table t(id INTEGER PRIMARY KEY, v), in the asked modes.
std::unique_ptr<Database> OpenForWriting(const Options& options);

// Rows 1 to --rows of 100 bytes are in t afterwards.
void FillRows(const Database& database, const Options& options);

// Of --replica, opened again and again until it is there: a replica may not have the database or its table yet.
std::unique_ptr<Database> OpenReplica(const Options& options);

// Until --replica has all rows of t that `database` has.
void WaitForReplica(const Database& database, const Options& options);

}  // namespace echofs::bench
