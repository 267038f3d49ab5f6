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
#include "absl/time/time.h"
#include "replication/bytes.h"
#include "replication/change_log.h"
#include "replication/ids.h"
#include "replication/page_set.h"

namespace echofs {

// Outcome of an attempt to apply an entry, or to install a copy.
struct ApplyOutcome {
  enum class Kind {
    kApplied,
    kBlocked,  // an application holds a lock that the apply needs: try again soon; nothing was changed
    kLater,  // it is the readers' turn: try again after `retry_after`; nothing was changed
  };
  Kind kind = Kind::kApplied;
  int blocked_by_pid = 0;      // with kBlocked, 0 when unknown
  absl::Duration retry_after;  // with kLater
};

// A run of consecutive pages, read in one short step from a committed state of a database.
struct PageRun {
  DatabasePosition position;  // of the state the pages were read from
  PageNumber first = 1;
  std::vector<std::uint8_t>
      pages;  // whole pages; empty beyond the last page; the lock page is zeros
};

// Thread-safe, but Join, Apply, InstallCopy and EndTurn for one database come from one thread at a time.
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

  // Makes a replica's of a local copy that could not become one at once, because an application was writing when
  // the node changed its role. kBlocked while it still does. For all local copies before the first Apply; by the
  // thread of Apply.
  virtual absl::StatusOr<ApplyOutcome> Join(const std::string& database) = 0;

  // Puts a whole copy in the place of the local one, as one step that readers see as a transaction.
  // `file` holds the pages of the state `position`; the caller has checked its digest. On kApplied the
  // callee owns the file (it may have renamed it).
  virtual absl::StatusOr<ApplyOutcome> InstallCopy(const DatabasePosition& position,
                                                   const std::string& file) = 0;

  // Takes a database whose last entries are not the cluster's history to a state of that history (R5), as one
  // step that readers see as a transaction: `file` holds the new content of `pages` at their places, all other
  // pages are the same in both states. DataLoss when the digest afterwards would not be that of `position`: then
  // it wants a whole copy. The file stays the caller's.
  virtual absl::StatusOr<ApplyOutcome> InstallPages(const DatabasePosition& position,
                                                    const std::string& file,
                                                    const PageSet& pages) = 0;

  // Durably forgets where the files of these databases stand, for the entries that they hold are about to be
  // taken out of the log: a node that crashes afterwards has no copy of them. Until then they stay as they are,
  // AppliedPosition included; what is applied or installed next makes their position known again. No Apply or
  // install runs meanwhile. Names that have no copy are no error.
  virtual absl::Status ForgetPositions(const std::vector<std::string>& databases) = 0;

  // No entry follows at once: gives back to applications what Apply keeps for several entries in a row
  // (locks). To be called after the last of a series of Apply and InstallCopy.
  virtual absl::Status EndTurn(const std::string& database) = 0;

  // The source's side of a first copy: up to `count` pages from `first` on, of the newest logged state.
  // Holds the database only for this one step; never takes a lock that applications see. Unavailable when
  // a transaction is in the way for the moment: try again.
  virtual absl::StatusOr<PageRun> ReadPages(const std::string& database, PageNumber first,
                                            std::uint32_t count) = 0;

  // ---- Role changes (design R2, R4), one thread ----
  // Takes writing away from applications. Who is in a transaction may end it until `deadline`; afterwards its
  // commit is refused. When it returns OK nothing is committed here until ResumeWriters, and all that was
  // committed is in the log. After an error call ResumeWriters.
  virtual absl::Status StopWriters(absl::Time deadline) = 0;
  // Applications may write again, on the connections that they have: after StopWriters or BecomePrimary.
  virtual absl::Status ResumeWriters() = 0;
  // A replica that has applied its whole log, and is not applied to any more, takes the primary's role; entries
  // carry `term` from now on. Applications write only after ResumeWriters: before that the caller makes its role
  // durable. FailedPrecondition when a database is not complete.
  virtual absl::Status BecomePrimary(Term term) = 0;
  // After StopWriters: the databases take entries by Apply from now on.
  virtual absl::Status BecomeReplica() = 0;

  // Makes everything that was applied, or is in the log as committed here, durable in the database files: the log may
  // let go of it then (L4). Called by one thread at a time.
  virtual absl::Status SyncAll() = 0;
};

}  // namespace echofs
