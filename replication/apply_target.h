// The databases of a node as replication sees them (design section 3). fs/ implements it for SQLite
// files, tests and the simulator with page stores.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"
#include "replication/change_log.h"
#include "replication/ids.h"

namespace echofs {

// Outcome of an attempt to apply an entry, or to install a copy.
struct ApplyOutcome {
  enum class Kind {
    kApplied,
    kBlocked,  // an application holds a lock that the apply needs: try again soon; nothing was changed
  };
  Kind kind = Kind::kApplied;
  int blocked_by_pid = 0;  // with kBlocked, 0 when unknown
};

// A run of consecutive pages, read in one short step from a committed state of a database.
struct PageRun {
  DatabasePosition position;  // of the state the pages were read from
  PageNumber first = 1;
  std::vector<std::uint8_t>
      pages;  // whole pages; empty beyond the last page; the lock page is zeros
};

// Thread-safe, but Apply and InstallCopy for one database come from one thread at a time.
class ApplyTarget {
 public:
  virtual ~ApplyTarget() = default;

  // Where the local copy of a database stands: the position of the last entry in its files. NotFound when
  // there is no local copy.
  virtual absl::StatusOr<DatabasePosition> AppliedPosition(const std::string& database) = 0;
  // Names of the databases that have a local copy.
  virtual std::vector<std::string> LocalDatabases() = 0;

  // Applies one entry (change set or drop) that follows the applied position. `payload` is the LTX file.
  // DataLoss when the digest afterwards is not the entry's: then the database is stopped and wants a copy.
  // Blocking: may do file I/O, but never waits for an application.
  virtual absl::StatusOr<ApplyOutcome> Apply(const LogEntry& entry, ByteSource& payload) = 0;

  // Puts a whole copy in the place of the local one, as one step that readers see as a transaction.
  // `file` holds the pages of the state `position`; the caller has checked its digest. On kApplied the
  // callee owns the file (it may have renamed it).
  virtual absl::StatusOr<ApplyOutcome> InstallCopy(const DatabasePosition& position,
                                                   const std::string& file) = 0;

  // The source's side of a first copy: up to `count` pages from `first` on, of the newest logged state.
  // Holds the database only for this one step; never takes a lock that applications see. Unavailable when
  // a transaction is in the way for the moment: try again.
  virtual absl::StatusOr<PageRun> ReadPages(const std::string& database, PageNumber first,
                                            std::uint32_t count) = 0;

  // Makes everything that was applied so far durable in the database files.
  virtual absl::Status SyncAll() = 0;
};

}  // namespace echofs
