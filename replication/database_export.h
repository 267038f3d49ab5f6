// A copy of one database at one position, for a place outside of the cluster. Writers and readers go on meanwhile.
//
// Pages come in short steps, each from another state (fetch_session.h), and beside them everything that the log gets
// during the copy. A change set may reach the sink before a page that it changed is copied, but not before the files hold
// it: that page is then copied from this state or a later one, and the change sets up to that come again. So whoever
// puts each piece over the ones before has, at the end, the database at the position that End names, with that digest.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "replication/apply_target.h"
#include "replication/bytes.h"
#include "replication/change_log.h"
#include "replication/ids.h"

namespace echofs {

// Where a copy goes. One thread.
class DatabaseSink {
 public:
  virtual ~DatabaseSink() = default;
  // The first call; page_count is what is to be copied, more or less.
  virtual absl::Status Begin(const DatabasePosition& position) = 0;
  // Whole pages, ascending from page 1 on; the lock page is zeros.
  virtual absl::Status Copied(PageNumber first, ByteView pages) = 0;
  virtual absl::Status Changed(PageNumber number, ByteView page) = 0;
  // Pages beyond are gone; those that are missing up to here are zeros.
  virtual absl::Status Resize(PageNumber page_count) = 0;
  // The last call. The size is that of `position`.
  virtual absl::Status End(const DatabasePosition& position) = 0;
  // Whoever wants the copy has gone.
  virtual bool cancelled() const = 0;
};

// Copies `database` into `sink`, which is not owned. On any node; on a replica it may be ahead of what readers see.
// Holds no lock of SQLite's. NotFound when there is no such database; Aborted when it was made anew or got another
// page size on the way, or the log was cut: start again. Blocking.
absl::Status ExportDatabase(const ChangeLog& log, ApplyTarget& target, const std::string& database,
                            DatabaseSink& sink);

}  // namespace echofs
