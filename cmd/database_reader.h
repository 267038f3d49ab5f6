// Reads a database of a running node at one position, and checks its digest: into a file, or only to check it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cmd/progress.h"
#include "cmd/tools_client.h"
#include "replication/change_log.h"
#include "replication/storage.h"

namespace echofs::cmd {

// What was read.
struct DatabaseContent {
  DatabasePosition position;
  std::uint64_t digest = 0;  // of the pages; position.digest is that of the history
};

// `file` gets the database from its first byte on, and its size; null: nothing is written. Neither is owned. Begins
// anew when the database changes in a way that needs it, some times at most.
absl::StatusOr<DatabaseContent> ReadDatabase(ToolsClient* client, const std::string& database,
                                             File* file, Progress* progress);

}  // namespace echofs::cmd
