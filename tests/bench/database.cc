#include "tests/bench/database.h"

#include <chrono>
#include <thread>

namespace echofs::bench {

namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Database::Database(const std::string& path, int flags) : path_(path) {
  Check(sqlite3_open_v2(path.c_str(), &db_, flags, nullptr), "opening");
  sqlite3_busy_timeout(db_, 30000);
}

void Database::Check(int rc, const std::string& what) const {
  if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW) return;
  Die(path_ + ": " + what + ": " + (db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(rc)));
}

void Database::Execute(const std::string& sql) const {
  Check(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr), sql);
}

Statement::Statement(const Database& database, const char* sql) : database_(database) {
  database.Check(sqlite3_prepare_v2(database.get(), sql, -1, &statement_, nullptr), sql);
}

std::int64_t Statement::Run() {
  std::int64_t value = 0;
  int rc;
  while ((rc = sqlite3_step(statement_)) == SQLITE_ROW) value = sqlite3_column_int64(statement_, 0);
  database_.Check(rc, sqlite3_sql(statement_));
  sqlite3_reset(statement_);
  return value;
}

std::unique_ptr<Database> OpenForWriting(const Options& options) {
  auto database =
      std::make_unique<Database>(options.database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  database->Execute("PRAGMA journal_mode=" + options.journal);
  database->Execute("PRAGMA synchronous=" + options.synchronous);
  database->Execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)");
  return database;
}

void FillRows(const Database& database, const Options& options) {
  database.Execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " +
                   std::to_string(options.rows) +
                   ") INSERT OR IGNORE INTO t SELECT i, randomblob(100) FROM n");
}

std::unique_ptr<Database> OpenReplica(const Options& options) {
  if (options.replica.empty()) Die(options.workload + " needs --replica");
  const Clock::time_point end = Clock::now() + std::chrono::seconds(60);
  while (Clock::now() < end) {
    sqlite3* probe = nullptr;
    int rc = sqlite3_open_v2(options.replica.c_str(), &probe, SQLITE_OPEN_READONLY, nullptr);
    if (rc == SQLITE_OK)
      rc = sqlite3_exec(probe, "SELECT max(id) FROM t", nullptr, nullptr, nullptr);
    sqlite3_close(probe);
    if (rc == SQLITE_OK) return std::make_unique<Database>(options.replica, SQLITE_OPEN_READONLY);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  Die(options.replica + " did not get the table within a minute");
}

void WaitForReplica(const Database& database, const Options& options) {
  const auto replica = OpenReplica(options);
  const std::int64_t id = Statement(database, "SELECT max(id) FROM t").Run();
  Statement last(*replica, "SELECT max(id) FROM t");
  const Clock::time_point end = Clock::now() + std::chrono::minutes(5);
  while (last.Run() < id) {
    if (Clock::now() > end) Die("the replica did not catch up in 5 minutes");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace echofs::bench
