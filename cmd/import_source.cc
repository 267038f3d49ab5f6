#include "cmd/import_source.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <charconv>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "replication/status_macros.h"
#include "replication/storage.h"

namespace echofs::cmd {
namespace {

constexpr int kStepPages = 256;                // of one backup step, between looks at the progress
constexpr std::uint64_t kVersionsOffset = 18;  // in the header: write and read version
constexpr std::uint8_t kWalVersion = 2;
constexpr int kProblemsMax = 5;        // that are shown
constexpr int kSourceLockMs = 10'000;  // for writers of FILE

absl::Status SqliteError(sqlite3* connection, const std::string& what) {
  const int code = sqlite3_errcode(connection);
  const std::string message = fmt::format("{}: {}", what, sqlite3_errmsg(connection));
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(message);
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

// Appends the first column of each row.
absl::Status Query(sqlite3* connection, const std::string& sql, const std::string& what,
                   std::vector<std::string>* rows) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(connection, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
    return SqliteError(connection, what);
  }
  int code = sqlite3_step(statement);
  for (; code == SQLITE_ROW; code = sqlite3_step(statement)) {
    const unsigned char* text = sqlite3_column_text(statement, 0);
    rows->emplace_back(text == nullptr ? "" : reinterpret_cast<const char*>(text));
  }
  const absl::Status status =
      code == SQLITE_DONE ? absl::OkStatus() : SqliteError(connection, what);
  sqlite3_finalize(statement);
  return status;
}

absl::Status Execute(sqlite3* connection, const std::string& sql, const std::string& what) {
  std::vector<std::string> rows;
  return Query(connection, sql, what, &rows);
}

absl::StatusOr<std::string> Value(sqlite3* connection, const std::string& sql,
                                  const std::string& what) {
  std::vector<std::string> rows;
  ECHOFS_RETURN_IF_ERROR(Query(connection, sql, what, &rows));
  if (rows.empty()) return absl::InternalError(fmt::format("{}: no answer", what));
  return rows.front();
}

absl::StatusOr<SqliteConnection> Connect(const std::string& path, int flags) {
  sqlite3* opened = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &opened, flags, nullptr);
  SqliteConnection connection(opened);
  if (code != SQLITE_OK) return SqliteError(opened, fmt::format("cannot open {}", path));
  sqlite3_extended_result_codes(opened, 1);
  return connection;
}

absl::StatusOr<DatabaseFormat> FormatOf(sqlite3* connection, const std::string& path) {
  const std::string what = fmt::format("cannot read {}", path);
  DatabaseFormat format;
  ECHOFS_ASSIGN_OR_RETURN(const std::string mode,
                          Value(connection, "PRAGMA main.journal_mode", what));
  ECHOFS_ASSIGN_OR_RETURN(const std::string size, Value(connection, "PRAGMA main.page_size", what));
  format.wal_mode = mode == "wal";
  std::from_chars(size.data(), size.data() + size.size(), format.page_size);
  return format;
}

// By its header. To be asked while no connection of this process has the file: closing it ends their locks.
absl::StatusOr<bool> IsWalFile(const std::string& path) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          PosixStorage()->Open(path, OpenOptions{.read_only = true}));
  std::vector<std::uint8_t> versions(2);
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file, kVersionsOffset, versions));
  return versions[0] == kWalVersion || versions[1] == kWalVersion;
}

// What stands in a URI between "file:" and "?".
std::string UriPath(const std::string& path) {
  std::string text;
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      text += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

void SqliteClose::operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }

absl::StatusOr<std::unique_ptr<ImportSource>> ImportSource::Open(const std::string& path,
                                                                 bool private_copy) {
  std::string name = path;
  int flags = SQLITE_OPEN_READONLY;
  // To read a WAL database SQLite makes its -wal and -shm when they are missing, and a connection that only reads
  // leaves them behind. Where there is none nobody has it open, and all is in the file.
  ECHOFS_ASSIGN_OR_RETURN(const bool wal, PosixStorage()->Exists(path + "-wal"));
  ECHOFS_ASSIGN_OR_RETURN(const bool shm, PosixStorage()->Exists(path + "-shm"));
  ECHOFS_ASSIGN_OR_RETURN(const bool journal, PosixStorage()->Exists(path + "-journal"));
  ECHOFS_ASSIGN_OR_RETURN(const bool in_wal_mode, IsWalFile(path));
  const auto open = [&]() -> absl::StatusOr<std::unique_ptr<ImportSource>> {
    ECHOFS_ASSIGN_OR_RETURN(SqliteConnection connection, Connect(name, flags));
    sqlite3_busy_timeout(connection.get(), kSourceLockMs);
    std::unique_ptr<ImportSource> source(new ImportSource(path, std::move(connection)));
    ECHOFS_RETURN_IF_ERROR(source->BeginReading());
    source->wal_mode_ = in_wal_mode;
    return source;
  };
  if (private_copy || (in_wal_mode && !wal && !shm && !journal)) {
    name = fmt::format("file:{}?immutable=1", UriPath(path));
    flags |= SQLITE_OPEN_URI;
  }
  absl::StatusOr<std::unique_ptr<ImportSource>> source = open();
  if (source.ok() || !journal) return source;
  return absl::Status(
      source.status().code(),
      fmt::format("{}; {}-journal may be of a transaction that was interrupted: open the database "
                  "once with sqlite3, which rolls it back",
                  std::string(source.status().message()), path));
}

absl::Status ImportSource::BeginReading() {
  const std::string what = fmt::format("cannot read {}", path_);
  ECHOFS_RETURN_IF_ERROR(Execute(connection_.get(), "BEGIN", what));
  ECHOFS_ASSIGN_OR_RETURN(const std::string tables,
                          Value(connection_.get(), "SELECT count(*) FROM sqlite_schema", what));
  ECHOFS_ASSIGN_OR_RETURN(const DatabaseFormat format, FormatOf(connection_.get(), path_));
  ECHOFS_ASSIGN_OR_RETURN(const std::string pages,
                          Value(connection_.get(), "PRAGMA page_count", what));
  if (pages == "0") {
    return absl::InvalidArgumentError(fmt::format("{} is empty: it has no page", path_));
  }
  page_size_ = format.page_size;
  return absl::OkStatus();
}

absl::Status ImportSource::CheckIntegrity() {
  std::vector<std::string> rows;
  const absl::Status checked =
      Query(connection_.get(), fmt::format("PRAGMA integrity_check({})", kProblemsMax),
            fmt::format("cannot check {}", path_), &rows);
  if (absl::IsInternal(checked)) {
    return absl::InternalError(
        fmt::format("{}. If the database needs functions or collations of the application, check "
                    "it there and import it with --skip-check",
                    std::string(checked.message())));
  }
  ECHOFS_RETURN_IF_ERROR(checked);
  if (rows.size() == 1 && rows.front() == "ok") return absl::OkStatus();
  return absl::DataLossError(fmt::format("{} is damaged: {}", path_, fmt::join(rows, "; ")));
}

absl::Status ImportSource::CopyInto(const ImportTarget& target, Progress* progress) {
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW;
  if (target.create) flags |= SQLITE_OPEN_CREATE;
  ECHOFS_ASSIGN_OR_RETURN(const SqliteConnection connection, Connect(target.path, flags));
  const std::string what = fmt::format("cannot write {}", target.path);
  sqlite3_busy_timeout(connection.get(),
                       static_cast<int>(absl::ToInt64Milliseconds(target.lock_limit)));
  ECHOFS_RETURN_IF_ERROR(Execute(connection.get(), "PRAGMA synchronous = FULL", what));
  sqlite3_backup* const backup =
      sqlite3_backup_init(connection.get(), "main", connection_.get(), "main");
  if (backup == nullptr) return SqliteError(connection.get(), what);
  int code = SQLITE_OK;
  while (code == SQLITE_OK) {
    code = sqlite3_backup_step(backup, kStepPages);
    const auto total = static_cast<std::uint64_t>(sqlite3_backup_pagecount(backup));
    const auto rest = static_cast<std::uint64_t>(sqlite3_backup_remaining(backup));
    progress->Set((total - rest) * page_size_, total * page_size_);
  }
  sqlite3_backup_finish(backup);
  if (code == SQLITE_DONE) return absl::OkStatus();
  if ((code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED) {
    return absl::UnavailableError(fmt::format(
        "{}: applications hold locks on it for longer than {} s; nothing was changed, try again",
        what, absl::ToInt64Seconds(target.lock_limit)));
  }
  return SqliteError(connection.get(), what);
}

absl::Status Rewrite(const std::string& path, std::uint32_t page_size) {
  const std::string what = fmt::format("cannot give {} pages of {} bytes", path, page_size);
  ECHOFS_ASSIGN_OR_RETURN(const SqliteConnection connection,
                          Connect(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW));
  ECHOFS_RETURN_IF_ERROR(Execute(connection.get(), "PRAGMA journal_mode = DELETE", what));
  ECHOFS_RETURN_IF_ERROR(
      Execute(connection.get(), fmt::format("PRAGMA page_size = {}", page_size), what));
  return Execute(connection.get(), "VACUUM", what);
}

absl::StatusOr<DatabaseFormat> ReadFormat(const std::string& path, absl::Duration lock_limit) {
  ECHOFS_ASSIGN_OR_RETURN(const SqliteConnection connection,
                          Connect(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW));
  sqlite3_busy_timeout(connection.get(), static_cast<int>(absl::ToInt64Milliseconds(lock_limit)));
  ECHOFS_RETURN_IF_ERROR(Execute(connection.get(), "SELECT count(*) FROM sqlite_schema",
                                 fmt::format("cannot read {}", path)));
  return FormatOf(connection.get(), path);
}

}  // namespace echofs::cmd
