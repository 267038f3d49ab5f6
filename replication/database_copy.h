// Copies one database from the primary into a file (first copy, and healing after a digest
// mismatch, A6).
//
// The pages come in short steps, each from another state of the database. What was committed
// meanwhile is in this node's own log by then: its entries after the copy's begin, up to its end,
// are written over the pages. Then the file must have the digest that the log has at the end; only
// then may it be installed.
//
// A rewind is the same with fewer pages: those that this node's orphans touched are fetched, and the entries of
// the cluster's history since the two parted, which are in this node's own log, are written over them. Pages that
// neither touched are the same in the local database and at the end.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "replication/change_log.h"
#include "replication/copy_task.h"
#include "replication/storage.h"
#include "replication/transport.h"

namespace echofs {

// Copies `task.database`, or the pages that task.rewind wants, into a new file `path`, which is removed again on failure. Blocking, for
// minutes if the database is large; ends with Cancelled soon after task.Cancel. Waits for this
// node's log to reach the end of the copy. Does not own anything it is given.
absl::StatusOr<CompletedCopy> CopyDatabase(Storage* storage, const ChangeLog& log, FetchCall& call,
                                           const std::string& path, CopyTask& task);

}  // namespace echofs
