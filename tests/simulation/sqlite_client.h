// The second variant of the simulation: transactions that real SQLite makes, and the primary's real capture
// (fs/database_capture) turns into entries of the simulated node's log. For each transaction the database's pages are put
// into a file below TMPDIR, SQLite changes it in journal_mode=DELETE through tests/fs/capture_vfs, and what came into the
// log is applied to the node's pages, where the digest is checked. With a WAL the capture has a thread of its own, which a
// seeded run cannot have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/log_entry.h"
#include "tests/simulation/page_databases.h"

namespace echofs::sim {

class Process;

// Runs `create` when the database does not exist, else `change`, as one transaction of an application on this node. Returns
// its entry. An error leaves it in doubt: what got into the log all the same has been applied.
absl::StatusOr<LogEntry> CommitWithSqlite(Process* process, const std::string& name,
                                          const std::string& create, const std::string& change);

// What real SQLite finds in a node's pages: the numbers in the first column of the result, none when there is no such
// database.
absl::StatusOr<std::vector<std::int64_t>> QueryWithSqlite(const PageDatabases& databases,
                                                          const std::string& name,
                                                          const std::string& query);
// PRAGMA integrity_check on every database.
absl::Status CheckWithSqlite(PageDatabases& databases);

}  // namespace echofs::sim
