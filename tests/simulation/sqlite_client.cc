#include "tests/simulation/sqlite_client.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <utility>

#include "fs/database_capture.h"
#include "replication/status_macros.h"
#include "tests/fs/capture_vfs.h"
#include "tests/simulation/process.h"

namespace echofs::sim {
namespace {

struct Closer {
  void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
};
using Connection = std::unique_ptr<sqlite3, Closer>;

absl::Status Error(sqlite3* connection, const std::string& what) {
  return absl::UnavailableError(fmt::format("{}: {}", what, sqlite3_errmsg(connection)));
}

absl::Status Run(sqlite3* connection, const std::string& sql) {
  if (sqlite3_exec(connection, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) {
    return absl::OkStatus();
  }
  return Error(connection, sql);
}

// A directory for the file of one transaction.
class WorkDirectory {
 public:
  WorkDirectory() {
    const char* const base = getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/echofs-simulate-XXXXXX";
    ECHOFS_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~WorkDirectory() { std::filesystem::remove_all(path_); }
  WorkDirectory(const WorkDirectory&) = delete;
  WorkDirectory& operator=(const WorkDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::vector<std::uint8_t> ImageOf(const PageDatabases& databases, const std::string& name) {
  std::vector<std::uint8_t> image;
  const absl::StatusOr<DatabaseCopy> copy = databases.Copy(name);
  if (!copy.ok()) return image;
  for (const PageDatabases::Page& page : *copy->pages) {
    image.insert(image.end(), page.begin(), page.end());
  }
  return image;
}

absl::Status WriteFile(const std::string& path, ByteView image) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          PosixStorage()->Open(path, OpenOptions{.create = true}));
  return file->WriteAt(0, image);
}

absl::Status Transaction(Process* process, const std::string& path, const std::string& name,
                         const std::string& sql) {
  DatabasePosition position;
  position.name = name;
  const absl::StatusOr<DatabasePosition> logged = process->log().Position(name);
  if (logged.ok()) position = *logged;
  fs::CaptureContext context;
  context.log = &process->log();
  context.term = [process] { return process->machine().term(); };
  context.may_commit = [process] { return process->CanCommit(); };
  context.wake = [] {};
  fs::DatabaseCapture capture(name, position, std::move(context));
  const fs::CaptureVfs vfs(path, &capture);
  sqlite3* opened = nullptr;
  const int rc =
      sqlite3_open_v2(path.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "capture");
  const Connection connection(opened);
  if (rc != SQLITE_OK) return Error(opened, "open");
  ECHOFS_RETURN_IF_ERROR(Run(opened, fmt::format("PRAGMA page_size={}", kPageSize)));
  // The node's own log is synced when the client waits, as for an application whose commits wait (D1).
  ECHOFS_RETURN_IF_ERROR(Run(opened, "PRAGMA synchronous=OFF; PRAGMA journal_mode=DELETE"));
  return Run(opened, "BEGIN IMMEDIATE; " + sql + "; COMMIT");
}

}  // namespace

absl::StatusOr<LogEntry> CommitWithSqlite(Process* process, const std::string& name,
                                          const std::string& create, const std::string& change) {
  ChangeLog& log = process->log();
  PageDatabases& databases = process->databases();
  const LogIndex before = log.last_index();
  const WorkDirectory directory;
  const std::string path = directory.path() + "/" + name;
  const std::vector<std::uint8_t> image = ImageOf(databases, name);
  if (!image.empty()) ECHOFS_RETURN_IF_ERROR(WriteFile(path, image));
  const absl::Status committed = Transaction(process, path, name, image.empty() ? create : change);
  ECHOFS_RETURN_IF_ERROR(databases.ApplyLog());
  std::optional<LogEntry> last;
  const std::unique_ptr<LogReader> reader = log.Read(before.Next());
  while (log.last_index() > before) {
    ECHOFS_ASSIGN_OR_RETURN(std::optional<LogEntry> entry, reader->Next());
    if (!entry) break;
    if (last) process->OnAppended(*last, true);  // the caller tells of the last one
    last = std::move(entry);
  }
  if (committed.ok() && last) return *std::move(last);
  if (last) process->OnAppended(*last, true);
  return committed.ok() ? absl::InternalError("a transaction changed nothing") : committed;
}

absl::StatusOr<std::vector<std::int64_t>> QueryWithSqlite(const PageDatabases& databases,
                                                          const std::string& name,
                                                          const std::string& query) {
  std::vector<std::int64_t> numbers;
  std::vector<std::uint8_t> image = ImageOf(databases, name);
  if (image.empty()) return numbers;
  sqlite3* opened = nullptr;
  ECHOFS_CHECK(sqlite3_open(":memory:", &opened) == SQLITE_OK);
  const Connection connection(opened);
  const auto size = static_cast<sqlite3_int64>(image.size());
  if (sqlite3_deserialize(opened, "main", image.data(), size, size, SQLITE_DESERIALIZE_READONLY) !=
      SQLITE_OK) {
    return Error(opened, name);
  }
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(opened, query.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
    return Error(opened, name);
  }
  int rc = SQLITE_ROW;
  while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
    numbers.push_back(sqlite3_column_int64(statement, 0));
  }
  sqlite3_finalize(statement);
  if (rc != SQLITE_DONE) return Error(opened, name);
  return numbers;
}

absl::Status CheckWithSqlite(PageDatabases& databases) {
  for (const std::string& name : databases.LocalDatabases()) {
    ECHOFS_ASSIGN_OR_RETURN(
        const std::vector<std::int64_t> sound,
        QueryWithSqlite(databases, name,
                        "SELECT integrity_check = 'ok' FROM pragma_integrity_check"));
    if (sound != std::vector<std::int64_t>{1}) {
      return absl::DataLossError(name + " does not pass SQLite's integrity_check");
    }
  }
  return absl::OkStatus();
}

}  // namespace echofs::sim
