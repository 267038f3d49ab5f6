// The database file that `echofs import` takes in, read by SQLite.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cmd/progress.h"

struct sqlite3;

namespace echofs::cmd {

struct SqliteClose {
  void operator()(sqlite3* connection) const;
};
using SqliteConnection = std::unique_ptr<sqlite3, SqliteClose>;

// Which database a copy goes into.
struct ImportTarget {
  std::string path;
  bool create = false;  // it is a new file
  absl::Duration
      lock_limit;  // how long to wait for its writers and, in rollback modes, its readers
};

// One state of a database file, its -wal included, held by a read transaction: others may go on writing to it. The file
// itself is never written. One thread. Errors are for people.
class ImportSource {
 public:
  // `private_copy`: nobody else has the file, and it has no -wal.
  static absl::StatusOr<std::unique_ptr<ImportSource>> Open(const std::string& path,
                                                            bool private_copy);

  // PRAGMA integrity_check; DataLoss says what is wrong.
  absl::Status CheckIntegrity();

  std::uint32_t page_size() const { return page_size_; }  // bytes
  bool wal_mode() const { return wal_mode_; }
  // All pages into the target's database, as one transaction there. When it fails, or the process is killed, nothing
  // has happened to that.
  absl::Status CopyInto(const ImportTarget& target, Progress* progress);

 private:
  ImportSource(std::string path, SqliteConnection connection)
      : path_(std::move(path)), connection_(std::move(connection)) {}
  absl::Status BeginReading();

  const std::string path_;
  const SqliteConnection connection_;
  std::uint32_t page_size_ = 0;
  bool wal_mode_ = false;
};

// Gives a database that nobody else has another page size, and a rollback journal mode.
absl::Status Rewrite(const std::string& path, std::uint32_t page_size);

// Page size and journal mode of a database that is there, after a transaction that was interrupted has been rolled back.
struct DatabaseFormat {
  std::uint32_t page_size = 0;  // bytes
  bool wal_mode = false;
};
absl::StatusOr<DatabaseFormat> ReadFormat(const std::string& path, absl::Duration lock_limit);

}  // namespace echofs::cmd
