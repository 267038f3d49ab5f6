// `echofs import`: a database file becomes a database of the cluster, in one transaction.
//
// On the primary the transaction is SQLite's own, made by a connection in the mount, so that applications stay connected
// and see the old content or the new one. Elsewhere the file is sent to the primary, which does the same.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "replication/change_log.h"

namespace echofs::cmd {

struct ImportOptions {
  std::string data_dir;  // of the running node
  std::string database;
  std::string file;
  bool replace = false;     // also when there is a database of this name
  bool skip_check = false;  // PRAGMA integrity_check
  bool received =
      false;  // this is the primary's part of another node's import: the file is nobody else's
};

// Returns where the database stands afterwards. When it fails nothing has changed. Errors are for people.
absl::StatusOr<DatabasePosition> ImportDatabase(const ImportOptions& options);

}  // namespace echofs::cmd
