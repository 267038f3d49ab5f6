#include "replication/lease_store.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "replication/lease_wire.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr const char* kSchema = R"sql(
BEGIN;
CREATE TABLE lease(
  key TEXT PRIMARY KEY NOT NULL,
  term INTEGER NOT NULL CHECK (term >= 0),
  revision INTEGER NOT NULL CHECK (revision >= 0),
  primary_id TEXT NOT NULL,
  primary_address TEXT NOT NULL,
  in_sync TEXT NOT NULL,
  held INTEGER NOT NULL CHECK (held IN (0, 1)),
  ttl_ms INTEGER NOT NULL CHECK (ttl_ms >= 0));
CREATE TRIGGER term_only_grows BEFORE UPDATE ON lease
  WHEN NEW.term < OLD.term OR NEW.revision < OLD.revision
  BEGIN SELECT RAISE(ABORT, 'the term of a lease cannot fall'); END;
CREATE TRIGGER lease_stays BEFORE DELETE ON lease
  BEGIN SELECT RAISE(ABORT, 'a lease cannot be removed: its term must never be given again'); END;
PRAGMA user_version = 1;
COMMIT;
)sql";

// From version 1 to 2.
constexpr const char* kAddCluster = R"sql(
BEGIN;
ALTER TABLE lease ADD COLUMN cluster_id TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 2;
COMMIT;
)sql";
static_assert(kLeaseStoreVersion == 2, "the schema sets it");

constexpr const char* kSave = R"sql(
INSERT INTO lease(key, term, revision, primary_id, primary_address, in_sync, held, ttl_ms, cluster_id)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (key) DO UPDATE SET term = ?2, revision = ?3, primary_id = ?4, primary_address = ?5,
  in_sync = ?6, held = ?7, ttl_ms = ?8, cluster_id = ?9)sql";

struct CloseDatabase {
  void operator()(sqlite3* database) const { sqlite3_close(database); }
};
struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

class SqliteLeaseStore final : public LeaseStore {
 public:
  explicit SqliteLeaseStore(std::string path) : path_(std::move(path)) {}

  absl::Status Open();
  absl::StatusOr<std::map<std::string, LeaseTenure>> LoadAll() override;
  absl::Status Save(const std::string& key, const LeaseTenure& tenure) override;

 private:
  absl::Status Error(int result) const;
  absl::Status Run(const char* sql);
  absl::StatusOr<Statement> Prepare(const char* sql);
  // The first column of the first row as a text.
  absl::StatusOr<std::string> Ask(const char* sql);
  absl::Status CheckVersion();
  absl::StatusOr<LeaseTenure> TakeRow(sqlite3_stmt* row) const;

  const std::string path_;
  std::unique_ptr<sqlite3, CloseDatabase> database_;
};

std::string Text(sqlite3_stmt* row, int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(row, column));
  return text == nullptr ? "" : std::string(text, sqlite3_column_bytes(row, column));
}

absl::Status SqliteLeaseStore::Error(int result) const {
  const std::string what =
      database_ != nullptr ? sqlite3_errmsg(database_.get()) : sqlite3_errstr(result);
  switch (result & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::FailedPreconditionError(fmt::format(
          "{} is in use by another program; one lease server has it for itself", path_));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(fmt::format(
          "{} is damaged ({}). Restore it from a backup. Without one, move it away and start the "
          "nodes again: their logs say which terms were given",
          path_, what));
    default:
      return absl::UnavailableError(fmt::format("{}: {}", path_, what));
  }
}

absl::Status SqliteLeaseStore::Run(const char* sql) {
  const int result = sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr);
  return result == SQLITE_OK ? absl::OkStatus() : Error(result);
}

absl::StatusOr<Statement> SqliteLeaseStore::Prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v2(database_.get(), sql, -1, &statement, nullptr);
  if (result != SQLITE_OK) return Error(result);
  return Statement(statement);
}

absl::StatusOr<std::string> SqliteLeaseStore::Ask(const char* sql) {
  ECHOFS_ASSIGN_OR_RETURN(const Statement statement, Prepare(sql));
  const int result = sqlite3_step(statement.get());
  if (result != SQLITE_ROW) return Error(result);
  return Text(statement.get(), 0);
}

absl::Status SqliteLeaseStore::Open() {
  sqlite3* database = nullptr;
  const int result = sqlite3_open_v2(path_.c_str(), &database,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  database_.reset(database);
  if (result != SQLITE_OK) return Error(result);
  ECHOFS_RETURN_IF_ERROR(
      Run("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"));
  // Takes the lock for good.
  ECHOFS_RETURN_IF_ERROR(Run("BEGIN IMMEDIATE; COMMIT"));
  ECHOFS_RETURN_IF_ERROR(CheckVersion());
  ECHOFS_ASSIGN_OR_RETURN(const std::string checked, Ask("PRAGMA quick_check"));
  return checked == "ok" ? absl::OkStatus() : Error(SQLITE_CORRUPT);
}

absl::Status SqliteLeaseStore::CheckVersion() {
  ECHOFS_ASSIGN_OR_RETURN(const std::string text, Ask("PRAGMA user_version"));
  const long version = std::strtol(text.c_str(), nullptr, 10);
  if (version == 0) ECHOFS_RETURN_IF_ERROR(Run(kSchema));
  if (version == 0 || version == 1) return Run(kAddCluster);
  if (version == kLeaseStoreVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "{}: format version {} was written by a newer echofs; this one knows {}. Start the lease "
      "server with the newer echofs",
      path_, version, kLeaseStoreVersion));
}

absl::StatusOr<LeaseTenure> SqliteLeaseStore::TakeRow(sqlite3_stmt* row) const {
  LeaseTenure tenure;
  LeaseRecord& record = tenure.record;
  record.term.value = static_cast<std::uint64_t>(sqlite3_column_int64(row, 1));
  record.revision = static_cast<std::uint64_t>(sqlite3_column_int64(row, 2));
  record.primary_id = Text(row, 3);
  record.primary_address = Text(row, 4);
  const auto in_sync = nlohmann::json::parse(Text(row, 5), nullptr, /*allow_exceptions=*/false);
  if (!in_sync.is_array()) return Error(SQLITE_CORRUPT);
  for (const auto& node : in_sync) {
    if (!node.is_string()) return Error(SQLITE_CORRUPT);
    record.in_sync.push_back(node.get<std::string>());
  }
  tenure.held = sqlite3_column_int(row, 6) != 0;
  tenure.ttl = FromMilliseconds(static_cast<std::uint64_t>(sqlite3_column_int64(row, 7)));
  tenure.cluster_id = Text(row, 8);
  return tenure;
}

absl::StatusOr<std::map<std::string, LeaseTenure>> SqliteLeaseStore::LoadAll() {
  ECHOFS_ASSIGN_OR_RETURN(
      const Statement statement,
      Prepare("SELECT key, term, revision, primary_id, primary_address, in_sync, held, ttl_ms, "
              "cluster_id FROM lease"));
  std::map<std::string, LeaseTenure> leases;
  int result = SQLITE_OK;
  while ((result = sqlite3_step(statement.get())) == SQLITE_ROW) {
    ECHOFS_ASSIGN_OR_RETURN(leases[Text(statement.get(), 0)], TakeRow(statement.get()));
  }
  if (result != SQLITE_DONE) return Error(result);
  return leases;
}

absl::Status SqliteLeaseStore::Save(const std::string& key, const LeaseTenure& tenure) {
  const LeaseRecord& record = tenure.record;
  const std::string in_sync =
      nlohmann::json(record.in_sync).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  ECHOFS_ASSIGN_OR_RETURN(const Statement statement, Prepare(kSave));
  sqlite3_stmt* const row = statement.get();
  const auto bind_text = [row](int at, const std::string& text) {
    return sqlite3_bind_text(row, at, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
  };
  const auto bind_number = [row](int at, std::uint64_t number) {
    return sqlite3_bind_int64(row, at, static_cast<sqlite3_int64>(number));
  };
  for (const int result :
       {bind_text(1, key), bind_number(2, record.term.value), bind_number(3, record.revision),
        bind_text(4, record.primary_id), bind_text(5, record.primary_address),
        bind_text(6, in_sync), bind_number(7, tenure.held ? 1 : 0),
        bind_number(8, ToMilliseconds(tenure.ttl)), bind_text(9, tenure.cluster_id)}) {
    if (result != SQLITE_OK) return Error(result);
  }
  const int result = sqlite3_step(row);
  return result == SQLITE_DONE ? absl::OkStatus() : Error(result);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LeaseStore>> LeaseStore::Open(const std::string& path) {
  auto store = std::make_unique<SqliteLeaseStore>(path);
  ECHOFS_RETURN_IF_ERROR(store->Open());
  return store;
}

}  // namespace echofs
